# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blobs in the folder that they were sent to, of which nothing is believed (docs/behaviour.md, section 7)."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._source import sent
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sent import (
    UPLOAD_PREFIX,
    BUNDLE_HEAD,
    blob_digest,
    upload_name,
    find_sent,
    is_upload_path,
    is_plain_path,
    bundle_head,
    bundle_name,
)

HEX = "0123456789abcdef" * 4
BLOB = f"blobs/sha256/{HEX}"
BLOBS = {f"blobs/sha256/{letter * 64}": size for letter, size in zip("abc", (5, 0, 7))}


@pytest.fixture(name="folder")
def fixture_folder(tmp_path: Path) -> t.Iterator[int]:
    """A descriptor of tmp_path."""
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_names_of_blobs() -> None:
    assert blob_digest(BLOB) == f"sha256:{HEX}"
    assert blob_digest(f"blobs/sha512/{HEX}{HEX}") == f"sha512:{HEX}{HEX}"
    for name in (BLOB[:-1], BLOB + "0", BLOB.upper(), f"{BLOB}\n", f"./{BLOB}", f"blobs/sha512/{HEX}", f"blobs/md5/{HEX}"):  # fmt: skip
        assert blob_digest(name) is None


def test_names_of_files_are_plain_whatever_the_archive_says() -> None:
    assert upload_name(BLOB) == f"sha256-{HEX}"
    names = [upload_name(name) for name in ("../../etc/passwd", "/x", "", ".", "a\0b", "\udcff", "a" * 5000)]  # fmt: skip
    assert len(set(names)) == 7
    for name in names:
        assert name.startswith("member-")
        assert len(name) < 100
        assert "/" not in name


def test_nothing_but_a_whole_file_of_one_name_is_found(tmp_path: Path, folder: int) -> None:
    """Whoever logs in owns the folder: no link, FIFO, device, second name of another's file."""
    path = tmp_path / upload_name(BLOB)
    other = tmp_path / "other"
    other.write_bytes(b"12345")

    def refused() -> None:
        assert find_sent(folder, {BLOB: 5}) == {}
        path.unlink()

    assert find_sent(folder, {BLOB: 5}) == {}
    path.symlink_to(other)
    refused()
    os.link(other, path)
    refused()
    os.mkfifo(path)
    refused()
    path.write_bytes(b"1234")
    refused()
    path.write_bytes(b"123456")
    refused()
    path.mkdir()
    assert find_sent(folder, {BLOB: 5}) == {}
    path.rmdir()
    path.write_bytes(b"12345")
    assert read(folder, {BLOB: 5}) == {BLOB: b"12345"}


def read(folder: int, sizes: dict[str, int]) -> dict[str, bytes]:
    """What is found, and what it holds."""
    contents = {}
    for name, found in find_sent(folder, sizes).items():
        reader = found.open()
        assert reader is not None
        contents[name] = reader.read()
        reader.close()
    return contents


# -- bundles


def test_a_bundle_holds_several(tmp_path: Path, folder: int) -> None:
    name = bundle_name(list(BLOBS))
    (tmp_path / name).write_bytes(bundle_head(BLOBS) + b"12345" + b"abcdefg")
    first, second, third = BLOBS
    whole = {first: b"12345", second: b"", third: b"abcdefg"}
    assert read(folder, BLOBS) == whole
    assert read(folder, {third: 7, BLOB: 5}) == {third: b"abcdefg"}
    # the size decides as well as the name
    assert read(folder, {first: 4, third: 8}) == {}
    # a file of its own goes before it
    (tmp_path / upload_name(first)).write_bytes(b"54321")
    assert read(folder, BLOBS) == {**whole, first: b"54321"}


def test_of_a_bundle_that_is_cut_off_counts_what_is_whole(tmp_path: Path, folder: int) -> None:
    path = tmp_path / bundle_name(list(BLOBS))
    data = bundle_head(BLOBS) + b"12345" + b"abcdefg"
    path.write_bytes(data[:-1])
    assert list(find_sent(folder, BLOBS)) == list(BLOBS)[:2]
    path.write_bytes(data[:-8])
    assert list(find_sent(folder, BLOBS)) == []
    path.write_bytes(data[: len(bundle_head(BLOBS)) - 1])
    assert list(find_sent(folder, BLOBS)) == []


def test_a_bundle_that_becomes_shorter_is_not_read(tmp_path: Path, folder: int) -> None:
    path = tmp_path / bundle_name(list(BLOBS))
    path.write_bytes(bundle_head(BLOBS) + b"12345" + b"abcdefg")
    found = find_sent(folder, BLOBS)
    path.write_bytes(bundle_head(BLOBS))
    assert [place.open() for place in found.values()] == [None] * 3
    path.unlink()
    assert [place.open() for place in found.values()] == [None] * 3


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"{}",
        b"7",
        b"null",
        b'"ab"',
        b'["ab"]',
        b"[[1, 2, 3]]",
        b"[" * 30_000,
        b"[[]]",
        b"\xff",
        b'[["NAME"]]',
        b'[["NAME", -1]]',
        b'[["NAME", true]]',
        b'[["NAME", 5.0]]',
        b'[["NAME", "5"]]',
        b'[["NAME", 1e400]]',
        b'[["NAME", 6]]',
        b'[["x", -5], ["NAME", 5]]',
        b'[["x", 99999999999999999999], ["NAME", 5]]',
        b'[["NAME", ' + b"9" * 9000 + b"]]",
        b'[["NAME", 5]' + b" " * BUNDLE_HEAD + b"]",
    ],
)
def test_what_a_bundle_says_of_itself_is_not_believed(tmp_path: Path, folder: int, head: bytes) -> None:
    line = head.replace(b"NAME", upload_name(BLOB).encode())
    (tmp_path / bundle_name([BLOB])).write_bytes(line + b"\n" + b"12345")
    assert find_sent(folder, {BLOB: 5}) == {}


@pytest.mark.parametrize("how", ["link", "second name", "fifo", "directory"])
def test_a_bundle_is_a_file_of_one_name(tmp_path: Path, folder: int, how: str) -> None:
    other = tmp_path / "other"
    other.write_bytes(bundle_head({BLOB: 5}) + b"12345")
    path = tmp_path / bundle_name([BLOB])
    if how == "link":
        path.symlink_to(other)
    elif how == "second name":
        os.link(other, path)
    elif how == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert find_sent(folder, {BLOB: 5}) == {}
    if how == "directory":
        path.rmdir()
    else:
        path.unlink()
    os.rename(other, path)
    assert list(find_sent(folder, {BLOB: 5})) == [BLOB]


def test_not_more_bundles_than_some_are_looked_at(tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sent, "_MOST_BUNDLES", 2)
    for number in range(3):
        name = f"bundle-{number:064x}"
        content = [[upload_name(f"blobs/sha256/{number:064x}"), 1]]
        (tmp_path / name).write_bytes(json.dumps(content).encode() + b"\n1")
    names = [f"blobs/sha256/{number:064x}" for number in range(3)]
    assert list(find_sent(folder, dict.fromkeys(names, 1))) == names[:2]


# -- paths that one side tells the other


@pytest.mark.parametrize("path", ["/", "/a", "/a/", "/a b/.c/größer", "/$x;*?[a]{b}/&", "/" + "x" * 4095])
def test_a_path_that_programs_leave_as_it_is(path: str) -> None:
    assert is_plain_path(path)
    assert not is_upload_path(path)


@pytest.mark.parametrize(
    "path",
    ["", "a", "./a", "//a", "/a//b", "/.", "/..", "/a/./b", "/a/..", "/'", '/"', "/`", "/\\", "/\n", "/\r", "/\0"]
    + ["/\x1b", "/\x9b", "/\u2029", "/\u200f", "/\udc80", "/" + "x" * 4096],
    ids=ascii,
)  # fmt: skip
def test_a_path_that_is_told_to_nobody(path: str) -> None:
    assert not is_plain_path(path)
    assert not is_upload_path(f"{path or '.'}/{UPLOAD_PREFIX}{'0' * 32}")
