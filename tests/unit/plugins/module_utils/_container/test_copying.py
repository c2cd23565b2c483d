# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copying a tree by descriptor: all that belongs to it, and nothing else (docs/behaviour.md, section 9)."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._report import Report
from ansible_collections.hypervisor.oci.plugins.module_utils._container import copying
from ansible_collections.hypervisor.oci.plugins.module_utils._container.copying import copy_metadata, copy_tree
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors
from ansible_collections.hypervisor.oci.tests.unit.support import names, needs_root, set_xattr_or_skip, tree

_READ = os.O_RDONLY | os.O_DIRECTORY


@pytest.fixture
def source(tmp_path: Path) -> Path:
    top = tmp_path / "source"
    top.mkdir()
    return top


def copy(source: Path) -> Report:
    """Copy to ``copied`` beside it; what else is needed for that is gone afterwards."""
    with contextlib.ExitStack() as opened:
        fds = [os.open(source, _READ)]
        opened.callback(os.close, fds[0])
        for name in ("copied", "links"):
            source.with_name(name).mkdir(0o700)
            fds.append(os.open(source.with_name(name), _READ))
            opened.callback(os.close, fds[-1])
        opened.callback(shutil.rmtree, source.with_name("links"))
        return copy_tree(*fds)


def acl(*entries: tuple[int, int, int]) -> bytes:
    """The value of an ACL's attribute."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)


_NONE = 0xFFFFFFFF
_ACL = acl((1, 7, _NONE), (2, 5, 1234), (4, 5, _NONE), (0x10, 5, _NONE), (0x20, 0, _NONE))
_CAPABILITY = struct.pack("<IIIII", 0x02000001, 0x400, 0, 0, 0)
_MAPPED = struct.pack("<IIIIII", 0x03000001, 0x400, 0, 0, 0, 100000)


@needs_root
def test_all_that_belongs_to_it(source: Path) -> None:
    """Owners, modes, times, attributes, links of both kinds, FIFOs and harmless devices, at any level."""
    below = source / "below"
    below.mkdir()
    (below / "--name").write_text("text")
    (source / "setuid").write_text("x")
    (source / "closed").mkdir()
    (source / "closed/file").write_text("")
    os.link(source / "setuid", below / "again")
    os.symlink("/etc/shadow", source / "link")
    os.symlink("a" * 4000, below / "long")
    os.mkfifo(source / "fifo")
    os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    set_xattr_or_skip(source / "setuid", "user.note", b"\0kept")
    os.setxattr(below, "system.posix_acl_access", _ACL)
    os.setxattr(below, "system.posix_acl_default", _ACL)
    os.setxattr(source / "fifo", "system.posix_acl_access", _ACL)
    everything = sorted(
        Path(top, name)
        # rglob of Python 3.8 gives up at a link to a name that is too long
        for top, folders, files in os.walk(source)
        for name in (*folders, *files)
    )
    for number, path in enumerate(everything):
        os.chown(path, 1000 + number, 2000, follow_symlinks=False)
    (source / "setuid").chmod(0o6751)
    (source / "closed").chmod(0)
    below.chmod(0o3750)
    os.setxattr(source / "setuid", "security.capability", _CAPABILITY)
    os.setxattr(below / "--name", "security.capability", _MAPPED)
    for path in [*everything, source]:
        times = (5, 1_500_000_000_123_456_789)
        os.utime(path, ns=times, follow_symlinks=False)
    wanted = tree(source)
    before = open_descriptors()
    report = copy(source)
    assert open_descriptors() == before
    assert tree(source.with_name("copied")) == wanted
    assert wanted["setuid"].links == 2
    assert report.counted("devices_skipped") == 0


@needs_root
def test_what_is_left_out(source: Path) -> None:
    os.mknod(source / "disk", 0o60600, os.makedev(7, 0))
    os.mknod(source / "memory", 0o20600, os.makedev(1, 1))
    os.link(source / "memory", source / "again")
    (source / "file").write_text("")
    os.setxattr(source / "file", "trusted.overlay.opaque", b"y")
    with socket.socket(socket.AF_UNIX) as listening:
        fd = os.open(source, _READ)
        # the path would be too long
        listening.bind(f"/proc/self/fd/{fd}/socket")
        os.close(fd)
    report = copy(source)
    assert names(source.with_name("copied")) == ["file"]
    assert os.listxattr(source.with_name("copied") / "file") == []
    assert report.counted("devices_skipped") == 3
    assert report.counted("sockets_skipped") == 1


def test_holes_stay_holes(source: Path) -> None:
    size = 64 << 20
    with open(source / "sparse", "wb") as file:
        file.write(b"begin")
        file.seek(32 << 20)
        file.write(b"middle")
        file.truncate(size)
    with open(source / "empty", "wb") as file:
        file.truncate(size)
    copy(source)
    for name in ("sparse", "empty"):
        copied = source.with_name("copied") / name
        assert copied.read_bytes() == (source / name).read_bytes()
        assert copied.stat().st_blocks * 512 < 1 << 20


def test_no_seeking_for_holes(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system cannot tell, all is data."""
    (source / "file").write_bytes(b"x" * 100_000)
    seek = os.lseek

    def refuse(fd: int, position: int, how: int) -> int:
        if how in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(22, "Invalid argument")
        return seek(fd, position, how)

    monkeypatch.setattr(os, "lseek", refuse)
    monkeypatch.setattr(copying, "_MOST_AT_ONCE", 4096)
    copy(source)
    copied = source.with_name("copied") / "file"
    assert copied.read_bytes() == b"x" * 100_000


def test_many_levels(source: Path) -> None:
    """As many as there are descriptors for, and no more."""

    def deepen(levels: int) -> None:
        fd = os.open(source, _READ)
        for _level in range(levels):
            with contextlib.suppress(FileExistsError):
                os.mkdir("d", dir_fd=fd)
            below = os.open("d", _READ, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(fd)

    deepen(200)
    copy(source)
    assert len(names(source.with_name("copied"))) == 200
    source.with_name("copied").rename(source.with_name("before"))
    deepen(201)
    with pytest.raises(RootfsError, match="more than 200 levels deep"):
        copy(source)


Swap = t.Callable[[Path], None]


def _link(path: Path) -> None:
    path.rename(path.with_name("away"))
    path.symlink_to(path.parents[1] / "outside")


def _other(path: Path) -> None:
    path.rename(path.with_name("away"))
    (path.parents[1] / "outside").rename(path)


def _gone(path: Path) -> None:
    path.rename(path.parents[1] / "away")


def _fifo(path: Path) -> None:
    _gone(path)
    os.mkfifo(path)


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("swap", [_link, _gone, _fifo])
def test_what_is_swapped_after_it_was_listed(
    source: Path, kind: str, swap: Swap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the outside is copied, and nothing is waited for."""
    _prepare(source, kind)
    look = os.scandir
    done: list[Path] = []

    def listed(fd: int) -> t.Any:
        with look(fd) as entries:
            found = list(entries)
        if not done:
            done.append(source)
            swap(source / "it")
        return contextlib.nullcontext(found)

    monkeypatch.setattr(os, "scandir", listed)
    before = open_descriptors()
    if kind == "file" and swap is _fifo:
        # what it is when it is looked at
        copy(source)
    else:
        with pytest.raises(RootfsError, match="'it' was changed while it was being copied"):
            copy(source)
    assert open_descriptors() == before
    assert _canaries(source) == []


@pytest.mark.parametrize("swap", [_link, _other, _gone, _fifo])
def test_a_directory_that_is_swapped_while_it_is_copied(
    source: Path, swap: Swap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was opened is copied, whatever its name leads to by then, and the change is told."""
    _prepare(source, "directory")
    make = os.mkdir

    def made(name: bytes, mode: int, dir_fd: int | None = None) -> None:
        make(name, mode, dir_fd=dir_fd)
        if name == b"it":
            monkeypatch.setattr(os, "mkdir", make)
            swap(source / "it")

    monkeypatch.setattr(os, "mkdir", made)
    with pytest.raises(RootfsError, match="'it' was changed while it was being copied"):
        copy(source)
    assert _canaries(source) == []


@pytest.mark.parametrize("size", [0, 1, 10_000_000])
def test_a_file_that_changes_while_it_is_read(source: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "file").write_bytes(b"x" * 4096)
    read = copying._copy_data

    def change(*arguments: int) -> None:
        os.truncate(source / "file", size)
        read(*arguments)

    monkeypatch.setattr(copying, "_copy_data", change)
    with pytest.raises(RootfsError, match="'file' was changed while it was being copied"):
        copy(source)


def _prepare(source: Path, kind: str) -> None:
    outside = source.with_name("outside")
    if kind == "file":
        (source / "it").write_text("inside")
        outside.write_text("canary")
        return
    (source / "it").mkdir()
    (source / "it/file").write_text("inside")
    outside.mkdir()
    (outside / "file").write_text("canary")


def _canaries(source: Path) -> list[Path]:
    return [
        path
        for path in source.with_name("copied").rglob("*")
        if not path.is_symlink() and path.is_file() and path.read_text() == "canary"
    ]


def test_mounts_are_not_entered(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "below/mount").mkdir(parents=True)
    inode = (source / "below/mount").stat().st_ino

    def mount_id(fd: int) -> int:
        return int(os.fstat(fd).st_ino == inode)

    monkeypatch.setattr(copying, "mount_id", mount_id)
    with pytest.raises(RootfsError, match="'below/mount' is a mount point inside of"):
        copy(source)


def test_metadata_alone(source: Path) -> None:
    (source / "file").write_text("")
    source.chmod(0o2751)
    os.utime(source, ns=(7, 1_234_567_890))
    other = source.with_name("other")
    other.mkdir()
    fds = [os.open(path, _READ) for path in (source, other)]
    copy_metadata(*fds)
    for fd in fds:
        os.close(fd)
    assert tree(other)["."] == tree(source)["."]
    assert names(other) == []
