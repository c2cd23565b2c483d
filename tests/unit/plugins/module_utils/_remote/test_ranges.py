# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives that are read by ranges: what is fetched, and what is not (docs/behaviour.md, section 1)."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.modules import oci_image_info
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, docker_archive, file, oci_archive
from ansible_collections.hypervisor.oci.tests.unit.support import contents
from ansible_collections.hypervisor.oci.tests.unit.web import Web, serving
from ansible_collections.hypervisor.oci.tests.unit.remote import (
    ARCHIVE,
    BIG,
    IMAGE,
    SMALL,
    TREE,
    call,
    noise,
    opened,
    problem,
    pull,
    read,
)

# -- what is fetched


def test_only_the_index_and_the_chosen_blobs(web: Web, tmp_path: Path) -> None:
    result = pull(web, tmp_path)
    assert result["changed"]
    assert contents(tmp_path / "dest" / "root") == TREE
    wanted = BIG.size + SMALL.size
    documents = len(IMAGE.data) + len(IMAGE.config.data)
    assert wanted < web.sent <= 1.02 * wanted + documents
    # a blob is one request
    assert sum(asked.sent > 100_000 for asked in web.asked) == 1
    assert len(web.asked) <= 10
    for asked in web.asked:
        assert asked.status == 206
        assert asked.headers["accept-encoding"] == "identity"
        assert asked.headers["user-agent"] == "ansible-httpget"
    conditions = [asked.headers.get("if-range") for asked in web.asked]
    assert conditions == [None] + [web.etag] * (len(conditions) - 1)


def test_a_run_that_changes_nothing_fetches_no_blob(web: Web, tmp_path: Path) -> None:
    pull(web, tmp_path)
    web.asked.clear()
    result = pull(web, tmp_path)
    assert not result["changed"]
    assert web.sent < 30_000


def test_check_mode_fetches_no_blob_and_writes_nothing(web: Web, tmp_path: Path) -> None:
    result = pull(web, tmp_path, check_mode=True)
    assert result["changed"]
    assert web.sent < 30_000
    assert os.listdir(tmp_path) == []


def test_no_byte_is_fetched_twice() -> None:
    """Windows and blobs do not overlap: many small layers are read out of the windows."""
    layers = [Layer(file(f"f{n}", noise(5_000, n))) for n in range(30)]
    with serving(oci_archive(Image(layers))) as web, opened(web.url) as source:
        for layer in layers:
            assert read(source, layer) == layer.data
        assert web.sent <= len(web.data)
        assert len(web.asked) < 12


@pytest.mark.parametrize("order", ["sorted", "reversed"])
@pytest.mark.parametrize("style", ["new", "old"])
def test_other_archives(order: t.Any, style: t.Any, tmp_path: Path) -> None:
    data = docker_archive(IMAGE, repo_tags=[["demo:1"]], style=style, order=order)
    with serving(data) as web:
        pull(web, tmp_path)
        assert contents(tmp_path / "dest" / "root") == TREE
        assert web.sent <= len(data)


def test_long_extended_headers_and_many_members() -> None:
    members = {f"{'long' * 40}/{n}": b"x" * (n * 10) for n in range(400)}
    with serving(oci_archive(IMAGE, files=members)) as web, opened(web.url) as source:
        assert read(source, BIG) == BIG.data
        for name, data in members.items():
            assert source.size_of(name) == len(data)
        assert len(web.asked) < 40


def test_reading_again_from_the_beginning() -> None:
    with serving(ARCHIVE) as web, opened(web.url) as source:
        reader = source.open(BIG.path)
        assert reader.read(100_000) == BIG.data[:100_000]
        reader.close()
        assert read(source, BIG) == BIG.data


@pytest.mark.parametrize("size", [0, 1, 511])
def test_what_is_no_archive(size: int) -> None:
    with serving(b"<html>login</html>".ljust(size, b" ")[: size or None]) as web:
        if not size:
            web.data = b""
        message = problem(web.url)
        found = {0: "empty", 1: "text"}.get(size, "an HTML page, as servers send for errors and logins")
        assert f"src '{web.url}' is not an image archive: it is {found}; " in message


# -- the cache


def test_a_blob_in_the_cache_is_not_fetched(web: Web, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    pull(web, tmp_path, cache_dir=str(cache))
    web.asked.clear()
    again = pull(web, tmp_path, cache_dir=str(cache), recreate=True)
    assert again["report"]["counts"]["blobs_from_cache"] == 2
    assert web.sent < 30_000
    # one changed layer
    changed = Layer(file("changed", noise(500_000, 5)))
    web.data, web.etag = oci_archive(Image([BIG, changed])), '"version-2"'
    web.asked.clear()
    result = pull(web, tmp_path, cache_dir=str(cache))
    assert result["report"]["counts"]["blobs_from_cache"] == 1
    assert changed.size < web.sent < 1.05 * changed.size
    assert contents(tmp_path / "dest" / "root")["changed"] == noise(500_000, 5)


def test_no_spool_is_made_where_all_is_in_the_cache(web: Web, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    web.ranges = False
    pull(web, tmp_path, cache_dir=str(cache))
    web.asked.clear()
    pull(web, tmp_path, cache_dir=str(cache), recreate=True)
    assert len(web.asked) == 1
    # a damaged one is fetched again, from a spool that is made then
    path = cache / "sha256" / BIG.digest[7:]
    path.write_bytes(bytes(BIG.size))
    again = pull(web, tmp_path, cache_dir=str(cache), recreate=True)
    assert again["report"]["counts"]["cache_entries_damaged"] == 1
    assert contents(tmp_path / "dest" / "root") == TREE
    assert path.read_bytes() == BIG.data


# -- the modules


def test_the_info_module(
    web: Web, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    url = web.url.replace("//", "//us3r:s3cret@")
    result, written = call(oci_image_info, monkeypatch, capfd, src=url)
    assert "s3cret" not in written
    assert result["form"] == "archive"
    platforms = [image["platform"] for image in result["images"]]
    assert platforms == ["linux/amd64", "linux/arm64", "linux/s390x"]
    assert web.sent < 30_000
    # a file that changes is read anew, once
    seen: list[int] = []

    def change(_handler: t.Any) -> bool:
        seen.append(1)
        if len(seen) == 2:
            web.data, web.etag = oci_archive(IMAGE), '"version-2"'
        return False

    web.handle = change
    result, _written = call(oci_image_info, monkeypatch, capfd, src=url)
    assert len(result["images"]) == 1
    web.handle = lambda _handler: False
    web.ranges = False
    result, _written = call(oci_image_info, monkeypatch, capfd, src=url)
    assert result["form"] == "stream"
    assert os.listdir(tmp_path) == []
