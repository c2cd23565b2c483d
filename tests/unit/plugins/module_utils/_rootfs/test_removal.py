# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removing trees that others wrote to (docs/behaviour.md, section 7)."""

from __future__ import annotations

import os
import socket
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs import removal
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.removal import (
    empty_directory,
    remove_tree,
)
from ansible_collections.hypervisor.oci.tests.tools.descriptors import (
    open_descriptors,
)
from ansible_collections.hypervisor.oci.tests.unit.support import (
    mounted,
    names,
    needs_root,
    tree,
)


@pytest.fixture
def above(tmp_path: Path) -> t.Iterator[int]:
    """The directory of the test, open."""
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_everything_goes_and_nothing_is_followed(tmp_path: Path, above: int) -> None:
    """Section 7, absent: removal never follows symlinks."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"x")
    before = tree(outside)
    top = tmp_path / "top"
    (top / "d" / "e").mkdir(parents=True)
    (top / "d" / "e" / "f").write_bytes(b"x")
    os.link(outside / "f", top / "hard")
    os.symlink(outside, top / "link")
    os.symlink(outside / "f", top / "d" / "link")
    os.symlink("nowhere", top / "dangling")
    os.mkfifo(top / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        # a relative name, since those of sockets are short
        here = os.open(".", os.O_RDONLY)
        os.chdir(top)
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
            os.close(here)
    (top / os.fsdecode(b"\xff\n")).write_bytes(b"")
    remove_tree(above, b"top")
    assert sorted(os.listdir(tmp_path)) == ["outside"]
    assert {name: node.content for name, node in tree(outside).items()} == {
        name: node.content for name, node in before.items()
    }


@pytest.mark.parametrize("make", ["file", "link", "fifo", "nothing"])
def test_what_is_no_directory(tmp_path: Path, above: int, make: str) -> None:
    (tmp_path / "kept").mkdir()
    if make == "file":
        (tmp_path / "x").write_bytes(b"")
    elif make == "link":
        os.symlink("kept", tmp_path / "x")
    elif make == "fifo":
        os.mkfifo(tmp_path / "x")
    remove_tree(above, b"x")
    assert os.listdir(tmp_path) == ["kept"]


def test_closed_directories(tmp_path: Path, above: int) -> None:
    """Also for an ordinary user, who owns them."""
    (tmp_path / "top/d/e").mkdir(parents=True)
    (tmp_path / "top/d/e/f").write_bytes(b"")
    for path in ("top/d/e", "top/d", "top"):
        os.chmod(tmp_path / path, 0)
    remove_tree(above, b"top")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("depth", [63, 64, 65, 130, 1200])
def test_depth_costs_neither_stack_nor_descriptors(
    tmp_path: Path, above: int, depth: int
) -> None:
    """Section 7, limits."""
    fd = os.dup(above)
    for _level in range(depth):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    before = open_descriptors()
    remove_tree(above, b"d")
    assert open_descriptors() == before
    assert os.listdir(tmp_path) == ["f"]


def test_few_names_are_held_at_a_time(
    tmp_path: Path, above: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Section 7: memory does not grow with a directory that a container filled."""
    monkeypatch.setattr(removal, "_BATCH", 3)
    top = tmp_path / "top"
    for number in range(10):
        (top / "d" / str(number)).mkdir(parents=True)
        (top / f"f{number}").touch()
    fd = os.open(top, os.O_RDONLY)
    empty_directory(fd, frozenset({b"d", b"f3", b"f7"}))
    os.close(fd)
    assert sorted(os.listdir(top)) == ["d", "f3", "f7"]
    remove_tree(above, b"top")
    assert os.listdir(tmp_path) == []


def test_names_that_are_kept(tmp_path: Path, above: int) -> None:
    """Section 7, mount points: C(lost+found) stays."""
    for name in ("lost+found", "a", "b"):
        (tmp_path / name / "below").mkdir(parents=True)
    empty_directory(above, frozenset([b"lost+found", b"not there"]))
    assert names(tmp_path) == ["lost+found", "lost+found/below"]


@needs_root
@pytest.mark.parametrize("where", ["top", "top/d/e"])
def test_a_mount_in_the_way(tmp_path: Path, above: int, where: str) -> None:
    """Section 7, in use: removal stays on its mount."""
    (tmp_path / "top/d/e").mkdir(parents=True)
    with mounted(tmp_path / where):
        (tmp_path / where / "f").write_bytes(b"x")
        with pytest.raises(RootfsError) as caught:
            remove_tree(above, b"top")
        assert caught.value.message == (
            f"cannot be removed: '{where}' (a mount point); unmount it, and run again"
        )
        assert (tmp_path / where / "f").read_bytes() == b"x"


@needs_root
def test_a_mount_is_emptied_from_within(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    with mounted(tmp_path / "top"):
        (tmp_path / "top/d").mkdir()
        fd = os.open(tmp_path / "top", os.O_RDONLY)
        try:
            empty_directory(fd)
        finally:
            os.close(fd)
        assert os.listdir(tmp_path / "top") == []
