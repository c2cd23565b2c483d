# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories of the host, no component followed (docs/behaviour.md, section 7)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._fs import directories
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.directories import (
    make_directories,
    make_private,
    move,
    open_existing,
    open_or_none,
    open_private,
    remove_if_empty,
)
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors
from ansible_collections.hypervisor.oci.tests.unit.support import needs_root, set_xattr_or_skip

_NOBODY = 65534


@pytest.fixture
def above(tmp_path: Path) -> t.Iterator[int]:
    """The directory of the test, open."""
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def mode_of(path: Path) -> int:
    """Its permission bits."""
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize(
    ("path", "missing"), [("a/b", []), ("a", []), ("", []), ("a/c/d", [b"c", b"d"]), ("x", [b"x"])]
)
def test_the_deepest_directory_that_is_there(tmp_path: Path, path: str, missing: list[bytes]) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    fd, rest = open_existing(os.fsencode(tmp_path / path))
    try:
        assert rest == missing
        found = Path(tmp_path, *path.split("/")[: -len(missing) or None])
        assert os.path.samestat(os.fstat(fd), os.stat(found))
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", ["file", "link"])
@pytest.mark.parametrize("below", ["", "/b"])
def test_a_component_that_is_no_directory(tmp_path: Path, kind: str, below: str) -> None:
    if kind == "file":
        (tmp_path / "a").write_bytes(b"")
    else:
        (tmp_path / "real").mkdir()
        os.symlink("real", tmp_path / "a")
    with pytest.raises(RootfsError) as caught:
        open_existing(os.fsencode(f"{tmp_path}/a{below}"))
    assert caught.value.message == (f"'{tmp_path}/a' is not a directory; remove it or choose another path")


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o700, 0o710])
def test_directories_above_dest(tmp_path: Path, above: int, mode: int, umask: int) -> None:
    """Section 7: the last is 0700, or 0710 with an id map; those above it can be passed."""
    before = os.umask(umask)
    try:
        os.close(make_directories(above, [b"a", b"b", b"c"], mode))
    finally:
        os.umask(before)
    modes = [mode_of(tmp_path / path) for path in ("a", "a/b", "a/b/c")]
    assert modes == [0o755, 0o755, mode]


@needs_root
def test_the_last_directory_above_dest_has_the_group_of_the_map(tmp_path: Path, above: int) -> None:
    os.close(make_directories(above, [b"a", b"b"], 0o710, 100000))
    assert [os.stat(tmp_path / path).st_gid for path in ("a", "a/b")] == [0, 100000]
    assert mode_of(tmp_path / "a/b") == 0o710


def test_a_directory_that_is_there_stays_as_it_is(tmp_path: Path, above: int) -> None:
    os.chmod(tmp_path, 0o755)
    os.close(make_directories(above, [], 0o700, os.getegid()))
    assert mode_of(tmp_path) == 0o755


def test_what_was_made_goes_when_a_later_one_cannot_be_made(tmp_path: Path, above: int) -> None:
    before = open_descriptors()
    with pytest.raises(OSError, match="too long"):
        make_directories(above, [b"a", b"b", b"n" * 300], 0o700)
    assert os.listdir(tmp_path) == []
    assert open_descriptors() == before


@pytest.mark.parametrize("umask", [0, 0o022, 0o277])
def test_a_private_folder(tmp_path: Path, above: int, umask: int) -> None:
    """Section 7: 0700, whatever the umask and a setgid bit above say."""
    os.chmod(tmp_path, 0o2777)
    before = os.umask(umask)
    try:
        os.close(make_private(above, b"x"))
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "x") == 0o700
    again = make_private(above, b"x")
    assert os.path.samestat(os.fstat(again), os.stat(tmp_path / "x"))
    os.close(again)


def test_a_private_folder_inherits_nothing(tmp_path: Path, above: int) -> None:
    """Section 6: nothing is inherited from the folder above."""
    none = 0xFFFFFFFF
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *entry) for entry in ((1, 7, none), (2, 7, 1), (4, 7, none), (16, 7, none), (32, 7, none))
    )
    set_xattr_or_skip(tmp_path, "system.posix_acl_default", acl)
    os.close(make_private(above, b"x"))
    assert os.listxattr(tmp_path / "x") == []
    assert mode_of(tmp_path / "x") == 0o700


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o755, 0o777])
def test_a_private_folder_that_is_open_to_others(tmp_path: Path, above: int, mode: int) -> None:
    """Its records cannot be trusted."""
    (tmp_path / "x").mkdir()
    os.chmod(tmp_path / "x", mode)
    for open_it in (make_private, open_private):
        with pytest.raises(RootfsError) as caught:
            open_it(above, b"x")
        assert caught.value.message == (
            "the private folder 'x' belongs to another user or is open to others, so its content cannot be"
            " trusted; inspect it, remove it and run again"
        )


@needs_root
def test_a_private_folder_of_another_user(tmp_path: Path, above: int) -> None:
    (tmp_path / "x").mkdir(0o700)
    os.chown(tmp_path / "x", 1234, 0)
    with pytest.raises(RootfsError, match="belongs to another user"):
        open_private(above, b"x")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_private_folder_that_is_none(tmp_path: Path, above: int, kind: str) -> None:
    if kind == "file":
        (tmp_path / "x").write_bytes(b"")
    else:
        (tmp_path / "real").mkdir(0o700)
        os.symlink("real", tmp_path / "x")
    for open_it in (make_private, open_private):
        with pytest.raises(RootfsError) as caught:
            open_it(above, b"x")
        assert caught.value.message == ("'x' is not a directory; remove it and run again")


def test_a_private_folder_that_is_missing(above: int) -> None:
    assert open_private(above, b"x") is None


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_dest_as_something_else(tmp_path: Path, above: int, kind: str) -> None:
    """Section 7: a link or file at dest is an error."""
    if kind == "file":
        (tmp_path / "x").write_bytes(b"")
    else:
        if kind == "link":
            (tmp_path / "real").mkdir()
        os.symlink("real", tmp_path / "x")
    with pytest.raises(RootfsError) as caught:
        open_or_none(above, b"x")
    assert caught.value.message == ("'x' is a link or a file, not a directory; remove it or choose another path")
    assert open_or_none(above, b"missing") is None


def test_removing_only_what_is_empty(tmp_path: Path, above: int) -> None:
    (tmp_path / "full/f").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    assert remove_if_empty(above, b"empty") is True
    assert remove_if_empty(above, b"full") is False
    assert remove_if_empty(above, b"missing") is False
    assert os.listdir(tmp_path) == ["full"]


@pytest.mark.parametrize("code", [0, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP])
def test_a_move_never_goes_over_something(
    tmp_path: Path, above: int, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Also where the kernel or file system has no renameat2."""
    if code:

        def refuse(*_arguments: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(directories, "rename_new", refuse)
    for name in ("a", "b", "full/f"):
        (tmp_path / name).mkdir(parents=True)
    move(above, b"a", above, b"c")
    for taken in (b"c", b"full"):
        with pytest.raises(FileExistsError):
            move(above, b"b", above, taken)
    with pytest.raises(FileNotFoundError):
        move(above, b"missing", above, b"d")
    assert sorted(os.listdir(tmp_path)) == ["b", "c", "full"]


@pytest.mark.parametrize("mode", [0o555, 0o500, 0o000, 0o1777])
def test_a_move_of_a_directory_that_is_closed(tmp_path: Path, above: int, mode: int) -> None:
    """An ordinary user cannot move between folders what he may not write to; its mode stays."""
    (tmp_path / "a").mkdir()
    (tmp_path / "to").mkdir()
    os.chmod(tmp_path / "a", mode)
    to = os.open(tmp_path / "to", os.O_RDONLY)
    try:
        move(above, b"a", to, b"b")
    finally:
        os.close(to)
    assert mode_of(tmp_path / "to/b") == mode


Make = t.Callable[[int, bytes], int]
_MAKERS = [
    make_private,
    lambda parent, name: make_directories(parent, [name], 0o711),
    lambda parent, name: make_directories(parent, [name, b"below"], 0o700),
]


def _by_directory(name: bytes, parent: int) -> None:
    os.mkdir(name, 0o700, dir_fd=parent)
    os.chown(name, 1000, 1000, dir_fd=parent)


def _by_one_that_is_open(name: bytes, parent: int) -> None:
    os.mkdir(name, dir_fd=parent)
    os.chmod(name, 0o777, dir_fd=parent)


def _by_link(name: bytes, parent: int) -> None:
    os.symlink("/", name, dir_fd=parent)


@needs_root
@pytest.mark.parametrize("make", _MAKERS)
@pytest.mark.parametrize("swap", [_by_directory, _by_one_that_is_open, _by_link])
def test_one_that_is_swapped_when_it_is_made(
    above: int, make: Make, swap: t.Callable[[bytes, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the directory above can do so before it is opened."""
    mkdir = os.mkdir

    def swapped(name: bytes, mode: int, *, dir_fd: int) -> None:
        mkdir(name, mode, dir_fd=dir_fd)
        monkeypatch.setattr(os, "mkdir", mkdir)
        os.rmdir(name, dir_fd=dir_fd)
        swap(name, dir_fd)

    monkeypatch.setattr(os, "mkdir", swapped)
    before = open_descriptors()
    with pytest.raises(RootfsError, match="another user replaced the directory 'new' while"):
        make(above, b"new")
    assert open_descriptors() == before


@needs_root
@pytest.mark.parametrize("make", _MAKERS)
def test_the_owner_of_the_directory_above_does_not_win(
    tmp_path: Path, above: int, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of his swaps what is made for a directory of its own, as soon as it is there."""
    os.chown(tmp_path, _NOBODY, _NOBODY)
    start, started = os.pipe()
    done, tell = os.pipe()
    attacker = os.fork()
    if not attacker:
        os.close(started)
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
        with contextlib.suppress(OSError):
            if os.read(start, 1):
                os.rename(b"new", b"away", src_dir_fd=above, dst_dir_fd=above)
                os.mkdir(b"new", 0o700, dir_fd=above)
                os.write(tell, b"!")
        os._exit(0)
    os.close(start)
    os.close(tell)
    mkdir = os.mkdir

    def made(name: bytes, mode: int, *, dir_fd: int) -> None:
        mkdir(name, mode, dir_fd=dir_fd)
        monkeypatch.setattr(os, "mkdir", mkdir)
        os.write(started, b"!")
        assert os.read(done, 1) == b"!"

    monkeypatch.setattr(os, "mkdir", made)
    try:
        with pytest.raises(RootfsError, match="another user replaced the directory 'new'"):
            make(above, b"new")
    finally:
        os.close(started)
        os.close(done)
        os.waitpid(attacker, 0)
    assert not (tmp_path / "new/below").exists()
