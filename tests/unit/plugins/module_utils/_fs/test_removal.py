# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removing trees that others wrote to (docs/behaviour.md, section 7)."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._fs import removal
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.removal import (
    empty_directory,
    remove_tree,
    try_empty_directory,
    try_remove_tree,
)
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors
from ansible_collections.hypervisor.oci.tests.unit.support import mounted, names, needs_root, tree


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
def test_depth_costs_neither_stack_nor_descriptors(tmp_path: Path, above: int, depth: int) -> None:
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


def test_few_names_are_held_at_a_time(tmp_path: Path, above: int, monkeypatch: pytest.MonkeyPatch) -> None:
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
    """Section 7, mount points: ``lost+found`` stays."""
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
        assert caught.value.message == (f"cannot be removed: '{where}' (a mount point); unmount it, and run again")
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


# -- what a container can do so that not even root removes it


@pytest.fixture(name="protect")
def fixture_protect(tmp_path: Path) -> t.Iterator[t.Callable[[str, str], None]]:
    """Sets an attribute as ``chattr`` does; all of them are gone after the test."""

    def protect(attribute: str, name: str) -> None:
        done = subprocess.run(
            ["chattr", attribute, os.fspath(tmp_path / name)], check=False, capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"this file system has no attributes: {done.stderr}")

    yield protect
    subprocess.run(["chattr", "-R", "-f", "-ia", os.fspath(tmp_path)], check=False, capture_output=True)


@needs_root
@pytest.mark.parametrize("attribute", ["+i", "+a"])
@pytest.mark.parametrize(
    "protected", [["top/d/f"], ["top/d"], ["top"], ["top/d/f", "top/d", "top", "top/g", "top/fifos"]]
)
def test_immutable_and_append_only(
    tmp_path: Path, above: int, protect: t.Callable[[str, str], None], protected: list[str], attribute: str
) -> None:
    """Section 7: the attributes are taken away, of a tree that is ours."""
    (tmp_path / "top/d/e").mkdir(parents=True)
    (tmp_path / "top/fifos").mkdir()
    os.mkfifo(tmp_path / "top/fifos/fifo")
    for name in ("d/f", "d/e/f", "g"):
        (tmp_path / "top" / name).touch()
    os.symlink("g", tmp_path / "top/d/link")
    for name in protected:
        protect(attribute, name)
    with pytest.raises(PermissionError):
        name = protected[0]
        (os.rmdir if (tmp_path / name).is_dir() else os.unlink)(tmp_path / name)
    remove_tree(above, b"top")
    assert os.listdir(tmp_path) == []


@needs_root
def test_deep_and_immutable(tmp_path: Path, above: int, protect: t.Callable[[str, str], None]) -> None:
    """What is moved up before it is removed."""
    deep = "/".join(["d"] * 70)
    (tmp_path / deep / "e/e").mkdir(parents=True)
    (tmp_path / deep / "e/f").touch()
    for name in ("e/f", "e/e", "e", ""):
        protect("+i", os.path.join(deep, name))
    remove_tree(above, b"d")
    assert os.listdir(tmp_path) == []


@needs_root
def test_a_file_with_another_name_outside(tmp_path: Path, above: int, protect: t.Callable[[str, str], None]) -> None:
    """It keeps its attribute: that name is not ours."""
    (tmp_path / "top").mkdir()
    (tmp_path / "outside").touch()
    os.link(tmp_path / "outside", tmp_path / "top/f")
    protect("+i", "outside")
    remove_tree(above, b"top")
    assert os.listdir(tmp_path) == ["outside"]
    with pytest.raises(PermissionError):
        os.unlink(tmp_path / "outside")


@needs_root
def test_the_folder_around_is_not_touched(tmp_path: Path, above: int, protect: t.Callable[[str, str], None]) -> None:
    """It is not part of the tree, and so an administrator has protected it."""
    (tmp_path / "top/d").mkdir(parents=True)
    protect("+i", ".")
    with pytest.raises(RootfsError) as caught:
        remove_tree(above, b"top")
    assert caught.value.message == (
        "cannot be removed: 'top' (operation not permitted);"
        " look at its attributes (lsattr), or remove it as root, and run again"
    )
    assert names(tmp_path) == ["top"]


@needs_root
def test_all_but_a_mount_goes(tmp_path: Path, above: int) -> None:
    """Section 7: it is named by its full path."""
    (tmp_path / "top/a/b/c").mkdir(parents=True)
    for name in ("a/b/f", "a/f", "f"):
        (tmp_path / "top" / name).touch()
    (tmp_path / "top/z/z").mkdir(parents=True)
    with mounted(tmp_path / "top/a/b/c"):
        (tmp_path / "top/a/b/c/precious").touch()
        remains = try_remove_tree(above, b"top")
        assert remains.describe(os.fspath(tmp_path / "top")) == (f"'{tmp_path}/top/a/b/c' (a mount point)")
        assert names(tmp_path / "top") == ["a", "a/b", "a/b/c", "a/b/c/precious"]
    assert not try_remove_tree(above, b"top")
    assert os.listdir(tmp_path) == []


class Faults:
    """Calls of ``os`` that fail for some names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def __call__(self, function: str, code: int, *faulty: str) -> None:
        real = getattr(os, function)

        def call(name: t.Any, *more: t.Any, **options: t.Any) -> t.Any:
            text = os.fsdecode(name) if isinstance(name, (bytes, str)) else name
            if text in faulty:
                raise OSError(code, os.strerror(code))
            return real(name, *more, **options)

        self._patch.setattr(os, function, call)


@pytest.mark.parametrize(
    "function, code, name, said",
    [
        ("unlink", errno.EIO, "f", "'T/d/f' (input/output error)"),
        ("unlink", errno.EPERM, "f", "'T/d/f' (operation not permitted)"),
        ("unlink", errno.EBUSY, "f", "'T/d/f' (device or resource busy)"),
        ("unlink", errno.EROFS, "fifo", "'T/d/fifo' (read-only file system)"),
        ("unlink", errno.EPERM, "fifo", "'T/d/fifo' (operation not permitted)"),
        ("rmdir", errno.EIO, "e", "'T/d/e' (input/output error)"),
        ("open", errno.EIO, "e", "'T/d/e' (input/output error)"),
    ],
)
def test_errors_of_one_name(
    tmp_path: Path, above: int, monkeypatch: pytest.MonkeyPatch, function: str, code: int, name: str, said: str
) -> None:
    """All else is removed, nothing waits for a FIFO, and no descriptor is left open."""
    (tmp_path / "top/d/e/e2").mkdir(parents=True)
    for other in ("f", "g", "e/f2"):
        (tmp_path / "top/d" / other).touch()
    os.mkfifo(tmp_path / "top/d/fifo")
    before = open_descriptors()
    with monkeypatch.context() as patch:
        Faults(patch)(function, code, name)
        remains = try_remove_tree(above, b"top")
    assert open_descriptors() == before
    assert remains.describe("T") == said
    assert remains.advice
    assert names(tmp_path / "top")[:2] == ["d", f"d/{name}"]
    remove_tree(above, b"top")
    assert os.listdir(tmp_path) == []


def test_a_directory_that_cannot_be_read(tmp_path: Path, above: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "top/d").mkdir(parents=True)
    (tmp_path / "top/f").touch()
    with monkeypatch.context() as patch:
        inode = (tmp_path / "top/d").stat().st_ino
        real = removal.some_names_in

        def read(fd: int, *more: t.Any) -> list[bytes]:
            if os.fstat(fd).st_ino == inode:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(fd, *more)

        patch.setattr(removal, "some_names_in", read)
        remains = try_empty_directory(above)
    assert remains.describe(b"") == "'top/d' (input/output error)"
    assert names(tmp_path) == ["top", "top/d"]


def test_what_is_told_is_bounded(tmp_path: Path, above: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are a container's, and shown, not obeyed; after a thousand of them a removal gives up."""
    monkeypatch.setattr(removal, "_BATCH", 3)
    monkeypatch.setattr(removal, "_MOST_LEFT", 8)
    top = tmp_path / "top"
    top.mkdir()
    long = [f"\x1b[31m{'x' * 200}{number}" for number in range(10)]
    for name in long:
        (top / name).touch()
    with monkeypatch.context() as patch:
        Faults(patch)("unlink", errno.EIO, *long)
        with pytest.raises(RootfsError) as caught:
            remove_tree(above, b"top")
    assert re.search(r"\)( and 3 more); the disk", caught.value.message)
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 2000
    monkeypatch.setattr(removal, "_MOST_LEFT", 1000)
    with monkeypatch.context() as patch:
        Faults(patch)("unlink", errno.EIO, *long[:7])
        assert try_remove_tree(above, b"top").count == 7
    assert sorted(os.listdir(top)) == sorted(long[:7])


def test_nothing_is_waited_for(tmp_path: Path, above: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that becomes a FIFO under way is not opened."""
    os.mkfifo(tmp_path / "fifo")
    Faults(monkeypatch)("unlink", errno.EPERM, "fifo")
    done = threading.Event()

    def remove() -> None:
        assert try_remove_tree(above, b"fifo").count == 1
        done.set()

    threading.Thread(target=remove, daemon=True).start()
    assert done.wait(10)
