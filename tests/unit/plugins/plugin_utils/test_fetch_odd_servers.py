# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers that do not go on with a blob as they should while the controller fetches (docs/behaviour.md, section 7)."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError, SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.platform import parse_platform
from ansible_collections.hypervisor.oci.plugins.module_utils._remote import retries
from ansible_collections.hypervisor.oci.plugins.module_utils._source.offer import read_offer
from ansible_collections.hypervisor.oci.plugins.plugin_utils._criteria import Criteria
from ansible_collections.hypervisor.oci.plugins.plugin_utils._fetch import FetchedImage, FetchedStaging
from ansible_collections.hypervisor.oci.plugins.plugin_utils._progress import Progress
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file
from ansible_collections.hypervisor.oci.tests.unit.registry import Handler, Registry, TokenServer, serving

BIG = Layer(file("big", os.urandom(1_000_000)), compression="none")
IMAGE = Image([BIG])
CUT = 700_000
READER = {"url_username": "reader", "url_password": "right"}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, short pauses, and nothing of this machine's configuration."""
    monkeypatch.setattr(retries, "_FIRST_PAUSE", 0.01)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", "/nonexistent")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(name="registry")
def fixture_registry() -> t.Iterator[Registry]:
    """A registry with the image."""
    with serving(Registry()) as registry:
        registry.push("app", "1", IMAGE)
        yield registry


def fetch(registry: Registry, folder: Path, **args: t.Any) -> bytes:
    """Fetch the layer as a fork of a run of its own does, and return it."""
    folder.mkdir()
    given = {"src": f"docker://{registry.host}/app:1", "url_retries": 1, "registry_plain_http": True, **args}
    image = FetchedImage(given, os.path.abspath, lambda _text: None)
    criteria = Criteria(platform=parse_platform("linux/amd64"))
    with FetchedStaging(image, str(folder), criteria, _progress) as staging:
        offer, _status = read_offer(staging.offer())
        (bundle,) = staging.bundles(list(offer.layers))
        return Path(bundle.path).read_bytes()


def _progress(sizes: dict[str, int]) -> Progress:
    return Progress("node1", sizes, lambda _line, _long: None, verbs=("fetching", "fetched"))


def interrupt(registry: Registry, folder: Path, **args: t.Any) -> None:
    """Let a run end in the middle of the layer."""
    registry.cuts = [CUT]
    with pytest.raises(SourceError, match="too early"):
        fetch(registry, folder, **{"url_retries": 0, **args})
    registry.asked.clear()


@pytest.mark.parametrize("how", ["200", "206", "416", "longer"])
def test_servers_that_do_not_go_on_as_they_should(registry: Registry, tmp_path: Path, how: str) -> None:
    """The run passes, whatever comes instead of the rest: what was there is given up, if need be."""
    interrupt(registry, tmp_path / "first")

    def odd(handler: Handler) -> bool:
        if "Range" not in handler.headers:
            return False
        if how == "200":
            handler.send(200, BIG.data)
        elif how == "206":
            handler.send(206, BIG.data[1000:], Content_Range=f"bytes 1000-{len(BIG.data) - 1}/{len(BIG.data)}")
        elif how == "416":
            handler.send(416)
        else:
            handler.send(200, BIG.data + b"x")
        return True

    registry.handle = odd
    assert fetch(registry, tmp_path / "second") == BIG.data


def test_a_server_that_has_another_blob_is_asked_twice_and_no_more(registry: Registry, tmp_path: Path) -> None:
    interrupt(registry, tmp_path / "first")
    registry.blobs["app", BIG.digest] = BIG.data[:CUT]
    with pytest.raises(SourceError, match="does not serve the blob"):
        fetch(registry, tmp_path / "second")
    # the rest with another total, the whole of another size, and once more the whole
    assert [asked.status for asked in registry.asked if BIG.digest in asked.path] == [206, 200, 200]
    registry.blobs["app", BIG.digest] = BIG.data
    assert fetch(registry, tmp_path / "third") == BIG.data


def test_what_came_for_one_host_is_not_continued_for_another(registry: Registry, tmp_path: Path) -> None:
    """Neither without credentials, nor with the same user's wrong password: it asks the server, which sends nothing."""
    with serving(TokenServer()) as tokens:
        registry.auth, registry.tokens = "bearer", tokens
        tokens.anonymous, tokens.users = False, {"reader": "right", "other": "right"}
        interrupt(registry, tmp_path / "first", **READER)
        for number, wrong in enumerate(({}, {**READER, "url_password": "wrong"}, {"url_username": "reader"})):
            with pytest.raises(OciError, match="no token"):
                fetch(registry, tmp_path / f"wrong{number}", **wrong)
        assert not any(asked.sent and BIG.digest in asked.path for asked in registry.asked)
        # one who may have it as well gets it from its first byte
        assert fetch(registry, tmp_path / "other", **{**READER, "url_username": "other"}) == BIG.data
        assert "range" not in registry.log().lower()
        assert fetch(registry, tmp_path / "again", **READER) == BIG.data
        assert "range" in registry.log().lower()
