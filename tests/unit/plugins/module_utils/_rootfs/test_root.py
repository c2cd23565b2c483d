# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The root by descriptor: depth, descriptors, and what only its own methods show (docs/behaviour.md, section 4)."""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import EntryError
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.attributes import Attributes
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.removal import empty_directory
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.root import Directory, Root
from ansible_collections.hypervisor.oci.tests.images.builder import block, directory, file, opaque, whiteout
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors
from ansible_collections.hypervisor.oci.tests.unit.support import names, unpack

MISSING = Attributes(0o755, os.geteuid(), os.getegid(), 0, {})


@contextlib.contextmanager
def a_root(top: Path, count: t.Callable[[], None] = lambda: None) -> t.Iterator[Root]:
    """A root in ``top``, which is emptied afterwards, however deep it became."""
    top.mkdir(0o700, exist_ok=True)
    fd = os.open(top, os.O_RDONLY)
    root = Root(fd, MISSING, count)
    try:
        yield root
    finally:
        root.close()
        empty_directory(fd)
        os.close(fd)


def make_file(root: Root, path: bytes) -> Directory:
    """A file below directories; returns the last of them."""
    *above, name = path.split(b"/")
    parent = root.make_parent(above)
    os.close(root.create_file(parent, name))
    root.add(parent, name)
    return parent


@pytest.mark.parametrize("depth", [100, 1200])
def test_depth_costs_neither_stack_nor_descriptors(tmp_path: Path, depth: int) -> None:
    """Section 7, limits: the depth of directories must not exhaust anything."""
    before = open_descriptors()
    with a_root(tmp_path / "top") as root:
        root.begin_layer()
        make_file(root, b"/".join([b"d"] * depth) + b"/f")
        assert open_descriptors() - before < 200
        found = list(root.directories())
        assert len(found) == depth + 1
        for below in found:
            assert stat.S_ISDIR(os.fstat(root.fd(below)).st_mode)
        # children come before their parents
        seen: set[int] = set()
        for below in found:
            assert not any(id(child) not in seen for child in below.children.values())
            seen.add(id(below))
        root.begin_layer()
        assert root.white_out(root.top, b"d")
        assert os.listdir(tmp_path / "top") == []
    assert open_descriptors() == before


def test_descriptors_are_given_back_whatever_happens(tmp_path: Path) -> None:
    before = open_descriptors()
    with a_root(tmp_path / "top") as root:
        root.begin_layer()
        for number in range(200):
            make_file(root, b"d%d/e/f" % number)
        assert open_descriptors() - before < 200
        with pytest.raises(EntryError):
            root.make_parent([b"x" * 300])
    assert open_descriptors() == before


def test_a_descriptor_that_was_closed_is_opened_again(tmp_path: Path) -> None:
    """Directories far apart, by turns: the cache of descriptors never gives a wrong one."""
    with a_root(tmp_path / "top") as root:
        root.begin_layer()
        for number in range(150):
            make_file(root, b"d%d/e/first" % number)
        for number in reversed(range(150)):
            make_file(root, b"d%d/e/second" % number)
        assert len(names(tmp_path / "top")) == 150 * 4
        assert (tmp_path / "top/d7/e/second").is_file()


def test_the_root_is_never_removed(tmp_path: Path) -> None:
    """Section 5: nothing reaches the root or anything above it."""
    with a_root(tmp_path / "top") as root, pytest.raises(EntryError) as caught:
        root.remove_tree(root.top)
    assert caught.value.what == "the root itself cannot be removed"


def test_implied_directories_are_counted(tmp_path: Path) -> None:
    counted: list[None] = []
    with a_root(tmp_path / "top", lambda: counted.append(None)) as root:
        root.begin_layer()
        make_file(root, b"a/b/c/f")
        make_file(root, b"a/b/d/f")
        make_file(root, b"g")
    assert len(counted) == 4


def test_a_parent_that_was_just_used_and_is_gone(tmp_path: Path) -> None:
    """The last parent is remembered; removing or replacing it must not leave it so."""
    top = tmp_path / "top"
    unpack(
        top,
        [file("a/b/f"), file("a", b"now a file"), file("a/b/g", b"g")],
        [file("a/b/h"), whiteout("a"), file("a/b/i")],
        [file("a/b/j"), opaque("a"), file("a/b/k")],
        [file("a/b/l"), whiteout("a/b/j"), directory("a/b"), file("a/b/m")],
    )
    assert names(top) == ["a", "a/b", *[f"a/b/{name}" for name in "klm"]]


def test_a_parent_that_a_skipped_device_removed(tmp_path: Path) -> None:
    """It goes without its parent being looked up, so nothing else forgets it."""
    top = tmp_path / "top"
    unpack(top, [file("a/b/f"), block("a", 8, 0), file("a/b/g")], devices="skip")
    assert names(top) == ["a", "a/b", "a/b/g"]


def test_a_file_is_opened_inside_the_root_alone(tmp_path: Path) -> None:
    with a_root(tmp_path / "top") as root:
        root.begin_layer()
        make_file(root, b"d/f")
        for path, there in (
            (b"d/f", True),
            (b"/d/f", True),
            (b"/d//f/", True),
            (b"d", False),
            (b"", False),
            (b"/", False),
            (b"d/..", False),
            (b"d/.", False),
            (b"nothing", False),
            (b"d/f/below", False),
        ):
            fd = root.open_file(path)
            assert (fd is not None) is there, path
            if fd is not None:
                os.close(fd)


def test_what_a_layer_makes_itself_needs_no_memory(tmp_path: Path) -> None:
    """Section 5: all in a directory of the layer at hand is its own, which whiteouts leave alone."""
    with a_root(tmp_path / "top") as root:
        root.begin_layer()
        old = make_file(root, b"old/f")
        root.begin_layer()
        new = make_file(root, b"old/new/deep/g")
        make_file(root, b"old/h")
        above = t.cast(Directory, new.parent)
        assert (old.added, above.added, new.added) == ({b"new", b"h"}, None, None)
        assert not root.white_out(new, b"g")
        assert root.white_out(above, b"deep")
        assert root.white_out_all(above)
        assert root.white_out_all(root.top)
        found = [path.name for path in sorted((tmp_path / "top").rglob("*"))]
        assert found == ["old", "h", "new", "deep", "g"]
        # of the next layer it is a lower one
        root.begin_layer()
        assert root.white_out(new, b"g")
        assert root.white_out_all(old)
        assert os.listdir(tmp_path / "top" / "old") == []
