# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Contents compared with layers while containers change them (docs/behaviour.md, section 17)."""

from __future__ import annotations

import os
import time
import types
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._drift import content
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.compare import Place
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    file,
    hardlink,
    sparse,
    symlink,
    write_docker_archive,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import beside_of
from ansible_collections.hypervisor.oci.tests.unit.support import run, without_waiting

LARGE = os.urandom(1000) * 3000
MEMBERS = (
    [file("large", LARGE, mtime=5), file("empty", b"", mtime=5), file("target", b"first content", mtime=5)],
    [hardlink("name", "target"), symlink("d", "real"), file("real/x", b"lower")],
    [file("target", b"third content", mtime=5), file("d/y", b"through a link", mtime=5)],
)
IMAGE = Image([Layer(*members) for members in MEMBERS])


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)


@pytest.fixture(name="src")
def fixture_src(tmp_path: Path) -> str:
    return write_oci_archive(tmp_path / "image.tar", IMAGE)


@pytest.fixture(name="top")
def fixture_top(tmp_path: Path, src: str) -> Path:
    (tmp_path / "guests").mkdir(0o700)
    run(tmp_path / "guests/web", src=src)
    time.sleep(0.02)
    return tmp_path / "guests/web"


def drift(top: Path, src: str, **options: t.Any) -> t.Any:
    return run(top, src=src, verify="content", **options)["drift"]


def changed(found: dict[str, t.Any]) -> dict[str, list[str]]:
    return {item["path"]: item["differs"] for item in found["changed"]["files"]}


def rewrite(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as opened:
        opened.seek(offset)
        opened.write(data)
    os.utime(path, (5, 5))


def test_each_byte_counts(top: Path, src: str) -> None:
    assert drift(top, src)["verdict"] == "clean"
    for offset in (0, 1_048_576, len(LARGE) - 1):
        rewrite(top / "large", offset, bytes([LARGE[offset] ^ 1]))
        assert changed(drift(top, src)) == {"/large": ["content"]}
        rewrite(top / "large", offset, bytes([LARGE[offset]]))
    assert drift(top, src)["verdict"] == "clean"


def test_a_name_whose_file_was_replaced_by_a_later_layer(top: Path, src: str) -> None:
    """It has the content that its target had when it was linked."""
    assert ((top / "name").read_bytes(), (top / "target").read_bytes()) == (b"first content", b"third content")
    assert drift(top, src)["verdict"] == "clean"
    rewrite(top / "name", 0, b"third")
    rewrite(top / "real/y", 0, b"THROUGH")
    found = drift(top, src)
    assert changed(found) == {"/name": ["content"], "/real/y": ["content"]}
    assert run(top, src=src, verify="content", repair="paths")["changed"] is True
    assert (top / "name").read_bytes() == b"first content"
    assert drift(top, src)["verdict"] == "clean"


def test_names_that_are_files_of_their_own_now(tmp_path: Path) -> None:
    """Each is compared."""
    src = write_oci_archive(tmp_path / "links.tar", Image([Layer(file("a", b"same", mtime=5), hardlink("b", "a"))]))
    (tmp_path / "guests").mkdir(0o700)
    top = tmp_path / "guests/web"
    run(top, src=src)
    (top / "b").unlink()
    (top / "b").write_bytes(b"evil")
    os.utime(top / "b", (5, 5))
    found = changed(drift(top, src))
    assert any("links" in differs for differs in found.values())
    assert "content" in found["/b"]
    run(top, src=src, verify="content", repair="paths")
    assert (top / "a").samefile(top / "b")
    assert drift(top, src)["verdict"] == "clean"


def test_sparse_files(tmp_path: Path) -> None:
    """Data where the image has a hole is a change; a hole instead of zeros is none."""
    data = [(4096, b"x" * 5000), (2_000_000, b"y" * 100)]
    src = write_oci_archive(tmp_path / "sparse.tar", Image([Layer(sparse("f", data, 3_000_000, mtime=5))]))
    (tmp_path / "guests").mkdir(0o700)
    top = tmp_path / "guests/web"
    run(top, src=src)
    assert drift(top, src)["verdict"] == "clean"
    for offset in (0, 4095, 1_000_000, 2_999_999, 4096, 2_000_050):
        with open(top / "f", "rb") as opened:
            opened.seek(offset)
            before = opened.read(1)
        rewrite(top / "f", offset, b"!")
        assert changed(drift(top, src)) == {"/f": ["content"]}, offset
        rewrite(top / "f", offset, before)
        assert drift(top, src)["verdict"] == "clean", offset


def test_a_file_that_changes_meanwhile_is_busy(top: Path, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither changed nor clean."""
    settled = content._File.is_settled

    def touched(file_: t.Any) -> bool:
        if file_.place == Place("", "large"):
            os.utime(top / "large")
        return settled(file_)

    monkeypatch.setattr(content._File, "is_settled", touched)
    found = drift(top, src)
    assert (found["verdict"], found["busy"]) == ("busy", {"count": 1, "paths": ["/large"]})


def test_a_file_that_goes_or_becomes_another_meanwhile(top: Path, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not opened when it is no regular file."""
    opening = content._Check._open

    def replaced(check: t.Any, place: Place) -> t.Any:
        if place.name == "large":
            (top / "large").unlink()
            os.mkfifo(top / "large")
        if place.name == "empty":
            (top / "empty").unlink()
        return opening(check, place)

    monkeypatch.setattr(content._Check, "_open", replaced)
    assert drift(top, src)["busy"] == {"count": 2, "paths": ["/empty", "/large"]}


def test_layers_that_are_damaged_prove_nothing(top: Path, tmp_path: Path) -> None:
    """What a layer seems to show is forgotten when its digest is wrong."""
    plain = [Layer(*members, compression="none") for members in MEMBERS]
    src = write_oci_archive(tmp_path / "plain.tar", Image(plain))
    run(top, src=src)
    damaged = tmp_path / "damaged"
    data = Path(src).read_bytes()
    place = data.find(LARGE[:512])
    assert place > 0
    damaged.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    found = drift(top, str(damaged))
    assert found["verdict"] == "not verifiable"
    assert (changed(found), found["busy"]["count"]) == ({}, 0)
    assert "digest" in found["reason"]


def test_a_journal_of_another_image(top: Path, src: str, tmp_path: Path) -> None:
    """One with more layers, and one with other entries: never clean, and nothing is written."""
    other = tmp_path / "guests/other"
    (journal,) = beside_of(top).glob("*.journal")
    fewer = write_oci_archive(tmp_path / "fewer.tar", Image([Layer(*MEMBERS[0])]))
    more = write_oci_archive(tmp_path / "more.tar", Image([Layer(*(file(str(n), str(n)) for n in range(9)))] * 3))
    for image in (fewer, more):
        run(other, src=image, recreate=True, keep=0)
        (of_other,) = beside_of(other).glob("*.journal")
        of_other.write_bytes(journal.read_bytes())
        assert drift(other, image)["verdict"] == "drifted"
        before = sorted(os.listdir(other))
        with pytest.raises(OciError):
            run(other, src=image, verify="content", repair="paths")
        assert sorted(os.listdir(other)) == before
    of_other.write_bytes(b"oci-drift-1\nx")
    with pytest.raises(OciError, match="is damaged"):
        drift(other, more)


def test_time_is_bounded(top: Path, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_TICK", 1)
    monkeypatch.setattr(content, "time", types.SimpleNamespace(monotonic=lambda: 10.0**12))
    found = drift(top, src)
    assert (found["verdict"], found["reason"]) == ("incomplete", "it took longer than verify_timeout")


def test_old_archives(tmp_path: Path) -> None:
    """Those of ``docker save`` name no digests of blobs."""
    image = Image([Layer(file("f", b"one", mtime=5)), Layer(file("g", b"two", mtime=5))])
    src = write_docker_archive(tmp_path / "old.tar", image)
    (tmp_path / "guests").mkdir(0o700)
    top = tmp_path / "guests/web"
    run(top, src=src)
    assert drift(top, src)["verdict"] == "clean"
    rewrite(top / "g", 0, b"TWO")
    assert changed(drift(top, src)) == {"/g": ["content"]}
    assert len(list(beside_of(top).iterdir())) == 2
