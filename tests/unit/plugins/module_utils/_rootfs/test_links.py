# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Symlinks and hard links (docs/behaviour.md, section 4)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.images.builder import directory, file, hardlink, symlink
from ansible_collections.hypervisor.oci.tests.unit.support import (
    ADVICE,
    SECOND,
    contents,
    in_layers,
    owned,
    refused,
    tree,
    unpack,
)

# -- a directory where a link is


def test_a_directory_replaces_a_link_to_a_directory(tmp_path: Path) -> None:
    """Section 4."""
    unpack(
        tmp_path,
        [directory("usr/lib", 0o711, mtime=1), symlink("lib", "usr/lib")],
        [directory("lib", 0o750, mtime=2), file("lib/f", b"x")],
    )
    found = tree(tmp_path)
    assert (found["lib"].type, found["lib"].mode) == ("directory", 0o750)
    assert (found["usr/lib"].mode, found["usr/lib"].mtime) == (0o711, SECOND)
    assert found["lib/f"].content == b"x"


@pytest.mark.parametrize("link", ["usr/lib", "/usr/lib", "../usr/lib", "other"])
@pytest.mark.parametrize("layers", [1, 2])
def test_keep_dirlinks(tmp_path: Path, link: str, layers: int) -> None:
    """Section 4: keeps the link, and gives its metadata to the directory behind it."""
    first = [directory("usr/lib", 0o711, mtime=1), symlink("other", "usr/lib"), symlink("lib", link, mtime=9)]
    second = [directory("lib", 0o750, mtime=2), file("lib/f", b"x")]
    unpack(tmp_path, *in_layers(layers, first, second), keep_dirlinks=True)
    found = tree(tmp_path)
    assert (found["lib"].content, found["lib"].mtime) == (link.encode(), 9 * SECOND)
    assert (found["usr/lib"].mode, found["usr/lib"].mtime) == (0o750, 2 * SECOND)
    assert found["usr/lib/f"].content == b"x"


@pytest.mark.parametrize("link", ["nowhere", "file", "lib", "file/lib"])
def test_keep_dirlinks_keeps_no_other_links(tmp_path: Path, link: str) -> None:
    """Section 4: a directory where anything else is replaces it."""
    unpack(tmp_path, [file("file", b"x"), symlink("lib", link)], [directory("lib", 0o750)], keep_dirlinks=True)
    assert tree(tmp_path)["lib"].type == "directory"
    assert contents(tmp_path)["file"] == b"x"


def test_keep_dirlinks_of_a_link_to_the_root(tmp_path: Path) -> None:
    unpack(
        tmp_path,
        [symlink("d/self", "/")],
        [directory("d/self", 0o750, mtime=3), file("d/self/f", b"x")],
        keep_dirlinks=True,
    )
    found = tree(tmp_path)
    assert (found["."].mode, found["."].mtime) == (0o750, 3 * SECOND)
    assert found["f"].content == b"x"


# -- links


@pytest.mark.parametrize(
    "text", ["/etc/passwd", "../../../../etc/passwd", "a//b/./c/", "..", "/", " ", "größe\n", "x" * 4000]
)
def test_a_symlink_says_what_the_archive_says(tmp_path: Path, text: str) -> None:
    """Section 4: its text is stored as it is, and nothing behind it is touched."""
    unpack(tmp_path, [symlink("s", text, uid=5, gid=6, mtime="7.5")])
    node = tree(tmp_path)["s"]
    assert (node.type, node.content) == ("symlink", text.encode())
    assert (node.uid, node.gid) == owned(5, 6)
    assert node.mtime == 7_500_000_000


def test_a_symlink_that_says_nothing(tmp_path: Path) -> None:
    text = refused(tmp_path, [symlink("s", "")])
    assert text == f"'s': the target of the symbolic link is empty; {ADVICE}"


def test_a_symlink_that_is_longer_than_the_system_takes(tmp_path: Path) -> None:
    text = refused(tmp_path, [symlink("s", "x" * 5000)])
    assert text.startswith("'s': cannot be written: file name too long")


@pytest.mark.parametrize("target", ["d/f", "/d/f", "./d//f", "link/f", "d/../d/f", "/../d/f"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_hard_link(tmp_path: Path, target: str, layers: int) -> None:
    """Section 4: the target keeps its own metadata, its parent is resolved in the root."""
    first = [file("d/f", b"x", 0o640, uid=1, gid=2, mtime=3), symlink("link", "/d")]
    second = [hardlink("e/h", target, 0o777, uid=9, gid=9, mtime=9)]
    unpack(tmp_path, *in_layers(layers, first, second))
    found = tree(tmp_path)
    assert found["e/h"] == found["d/f"]
    node = found["e/h"]
    assert (node.mode, node.mtime, node.links) == (0o640, 3 * SECOND, 2)
    assert (node.uid, node.gid) == owned(1, 2)
    assert os.path.samefile(tmp_path / "e/h", tmp_path / "d/f")


def test_a_hard_link_to_a_symlink_links_the_symlink(tmp_path: Path) -> None:
    """Section 4: the target itself is not followed."""
    unpack(
        tmp_path,
        [
            file("f", b"x"),
            symlink("s", "f"),
            symlink("dangling", "/nowhere"),
            hardlink("h", "s"),
            hardlink("i", "dangling"),
        ],
    )
    found = tree(tmp_path)
    assert (found["h"].type, found["h"].content) == ("symlink", b"f")
    assert (found["i"].type, found["i"].content) == ("symlink", b"/nowhere")
    assert found["f"].links == 1


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("nothing", "'nothing', which does not exist"),
        ("no/thing", "'no/thing', which does not exist"),
        ("f/below", "'f/below', which does not exist"),
        ("n" * 300, "which does not exist"),
        ("d", "'d', which is a directory"),
        ("d/", "'d/', which is a directory"),
        ("", "'', which is a directory"),
        ("/", "'/', which is a directory"),
        (".", "'.', which is a directory"),
        ("d/..", "'d/..', which is a directory"),
        ("h", "itself"),
        ("/./h", "itself"),
        ("self/h", "itself"),
    ],
)
def test_wrong_hard_links(tmp_path: Path, target: str, what: str) -> None:
    """Section 4: a target that is missing, a directory, or the entry itself."""
    text = refused(tmp_path, [file("f"), directory("d"), symlink("self", "/"), hardlink("h", target)])
    assert text.startswith("'h': it is a hard link to ")
    assert text.endswith(f"{what}; {ADVICE}")


def test_a_hard_link_to_what_it_replaces_the_folder_of(tmp_path: Path) -> None:
    text = refused(tmp_path, [file("d/f"), hardlink("d", "d/f")])
    assert text == f"'d': it is a hard link to 'd/f', which does not exist; {ADVICE}"
