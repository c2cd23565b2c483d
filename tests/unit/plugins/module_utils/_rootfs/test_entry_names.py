# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of entries (docs/behaviour.md, section 4)."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import EntryError
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.apply import split_name
from ansible_collections.hypervisor.oci.tests.images.builder import char, directory, fifo, file, hardlink, symlink
from ansible_collections.hypervisor.oci.tests.unit.support import (
    ADVICE,
    SECOND,
    contents,
    names,
    owned,
    refused,
    tree,
    unpack,
)

# -- names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("..", "its name has a '..' component"),
        ("../x", "its name has a '..' component"),
        ("a/../b", "its name has a '..' component"),
        ("/../x", "its name has a '..' component"),
        ("a/..", "its name has a '..' component"),
        ("./a/./..//b", "its name has a '..' component"),
        ("a/" + "n" * 256, "its name has a component of over 255 bytes"),
        ("n" * 256 + "/a", "its name has a component of over 255 bytes"),
        ("ö" * 128, "its name has a component of over 255 bytes"),
    ],
)
@pytest.mark.parametrize(
    "make", [file, directory, fifo, lambda name: symlink(name, "x")], ids=["file", "directory", "fifo", "symlink"]
)
def test_wrong_names(tmp_path: Path, make: t.Any, name: str, message: str) -> None:
    """Section 4, first row."""
    top = tmp_path / "top"
    text = refused(top, [make(name)])
    assert text.endswith(f": {message}; {ADVICE}")
    assert names(top) == []
    assert names(tmp_path) == ["top"]


def test_an_empty_name(tmp_path: Path) -> None:
    assert refused(tmp_path, [file("")]) == f"'': its name is empty; {ADVICE}"


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("/a", "a"),
        ("///a", "a"),
        ("./a", "a"),
        ("././a", "a"),
        ("a//b", "a/b"),
        ("a/./b", "a/b"),
        ("/./a/.//b/.", "a/b"),
        ("a/", "a"),
        ("a//", "a"),
        ("...", "..."),
        ("..a/b..", "..a/b.."),
        ("a b\nc", "a b\nc"),
        ("größe", "größe"),
        ("n" * 255, "n" * 255),
        ("-", "-"),
    ],
)
def test_names_are_cleaned(tmp_path: Path, name: str, cleaned: str) -> None:
    """Section 4: absolute names, ``./``, doubled and trailing slashes."""
    unpack(tmp_path, [file(name, b"x")])
    assert contents(tmp_path)[cleaned] == b"x"
    *above, last = cleaned.encode().split(b"/")
    assert split_name(name.encode()) == (tuple(above), last)


def test_names_that_are_no_utf_8_stay_as_they_are(tmp_path: Path) -> None:
    unpack(tmp_path, [file(b"d\xff/f\xfe", b"x"), symlink(b"l", b"\xff/\xfe")])
    assert os.listdir(os.fsencode(tmp_path) + b"/d\xff") == [b"f\xfe"]
    assert os.readlink(os.fsencode(tmp_path) + b"/l") == b"\xff/\xfe"


@pytest.mark.parametrize("name", [".", "./", "/", "//", "/./", "././/"])
def test_the_root_itself_as_a_directory(tmp_path: Path, name: str) -> None:
    """Section 4: sets the root's own metadata."""
    top = tmp_path / "top"
    unpack(top, [directory(name, 0o1751, uid=7, gid=8, mtime=9), file("f")])
    node = tree(top)["."]
    assert (node.mode, node.uid, node.gid) == (0o1751, *owned(7, 8))
    assert node.mtime == 9 * SECOND


@pytest.mark.parametrize(
    "member",
    [file("."), file("/", b"x"), symlink("./", "/etc"), hardlink(".", "f"), fifo("/"), char(".", 1, 3)],
    ids=["file", "file /", "symlink", "hardlink", "fifo", "device"],
)
def test_the_root_as_anything_else(tmp_path: Path, member: t.Any) -> None:
    """Section 4: CVE-2021-29136."""
    text = refused(tmp_path / "top", [file("f"), member])
    assert text.endswith(f": the root itself must be a directory; {ADVICE}")
    assert (tmp_path / "top").is_dir()
    assert not (tmp_path / "top").is_symlink()


def test_a_root_that_no_entry_speaks_of(tmp_path: Path) -> None:
    """Section 4: as any missing parent."""
    unpack(tmp_path / "top", [file("f")], umask=0o077)
    node = tree(tmp_path / "top")["."]
    assert (node.mode, node.uid, node.gid, node.mtime) == (0o755, *owned(0, 0), 0)


# -- what the system refuses


@pytest.mark.parametrize("name", [b".", b"./", b"/", b"//", b"/.", b"././/"])
def test_the_name_of_the_root(name: bytes) -> None:
    """Section 4."""
    assert split_name(name) == ((), b"")


def test_a_name_of_nothing() -> None:
    with pytest.raises(EntryError, match="its name is empty"):
        split_name(b"")


@pytest.mark.parametrize("name", [b"..", b"../", b"a/..", b"a/../", b"../a", b"a/../b", b"a/..//", b"a/../."])
def test_a_name_that_leads_up(name: bytes) -> None:
    """Section 4: wherever it stands, and whatever comes behind it."""
    with pytest.raises(EntryError, match="its name has a '..' component"):
        split_name(name)


@pytest.mark.parametrize("name", [b"%b", b"%b/", b"a/%b", b"%b/a", b"a/%b/b", b"%b/."])
def test_a_component_that_is_too_long(name: bytes) -> None:
    assert split_name(name % (b"x" * 255))
    with pytest.raises(EntryError, match="over 255 bytes"):
        split_name(name % (b"x" * 256))
