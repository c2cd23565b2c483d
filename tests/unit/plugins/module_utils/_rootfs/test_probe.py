# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""File systems that ignore or refuse metadata (docs/behaviour.md, section 6). System calls stand in for them."""

from __future__ import annotations

import errno
import os
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._fs import directories
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file, hardlink, write_oci_archive
from ansible_collections.hypervisor.oci.tests.unit.support import (
    contents,
    mounted,
    needs_root,
    needs_user,
    run,
    without_waiting,
)

NOBODY = 65534
NO_TIMES = "the file system of dest does not store times: files keep the times at which they are written"
ADVICE = "set ownership: ignore, or choose a dest on another file system"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)


@pytest.fixture(name="src")
def fixture_src(tmp_path: Path) -> str:
    """An image with a setuid file of an ordinary user."""
    return write_oci_archive(tmp_path / "i.tar", Image([Layer(file("f", b"x", 0o4755, uid=1000, gid=1000))]))


@pytest.fixture(name="dest")
def fixture_dest(tmp_path: Path) -> Path:
    """A dest in a closed folder."""
    (tmp_path / "above").mkdir(0o700)
    return tmp_path / "above/x"


def refused(dest: Path, **arguments: t.Any) -> str:
    """Return the error of a run that leaves nothing behind."""
    with pytest.raises(OciError) as caught:
        run(dest, **arguments)
    assert os.listdir(dest.parent) == []
    return caught.value.message


class Squashed:
    """A status in which files of root belong to nobody, as a server shows them that squashes root."""

    def __init__(self, status: os.stat_result) -> None:
        self._status = status

    def __getattr__(self, name: str) -> t.Any:
        value = getattr(self._status, name)
        return NOBODY if name in ("st_uid", "st_gid") and value == 0 else value


def squash_root(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstat

    def fchown(_fd: int, uid: int, gid: int) -> None:
        if (uid, gid) != (-1, -1):
            raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fstat", lambda fd: Squashed(real(fd)))
    monkeypatch.setattr(os, "fchown", fchown)


@needs_root
def test_owners_that_are_ignored(dest: Path, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file would become one of root that every user may run."""
    monkeypatch.setattr(os, "fchown", lambda _fd, _uid, _gid: None)
    assert refused(dest, src=src) == (
        "the file system of dest does not store owners: a file belongs to 0:0 after it was given to 1:1; " + ADVICE
    )
    maps = {"uid_map": ["5:100005:9"], "gid_map": ["0:200000:9"]}
    assert "after it was given to 100005:200000; " in refused(dest, src=src, **maps)
    assert run(dest, src=src, ownership="ignore")["changed"]
    assert stat.S_IMODE((dest / "f").stat().st_mode) == 0o755


def test_modes_that_are_ignored(dest: Path, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (dest.parent / ".x.oci_rootfs").mkdir(0o700)
    monkeypatch.setattr(os, "fchmod", lambda _fd, _mode: None)
    message = refused(dest, src=src, ownership="ignore")
    assert message == (
        "the file system of dest does not store permissions: a file has the mode 0600 after it was set to 0751;"
        " choose a dest on another file system"
    )


def test_times_that_are_ignored(dest: Path, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "utime", lambda *_arguments, **_more: None)
    outcome = run(dest, src=src, ownership="ignore")
    assert outcome["warnings"].count(NO_TIMES) == 1
    assert not run(dest, src=src, ownership="ignore")["changed"]


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000_000, 2_000_000_000])
def test_times_that_are_rounded(dest: Path, src: str, monkeypatch: pytest.MonkeyPatch, unit: int) -> None:
    """FAT has two seconds."""
    real = os.utime

    def rounded(*arguments: t.Any, ns: tuple[int, int], **more: t.Any) -> None:
        real(*arguments, ns=(ns[0] // unit * unit, ns[1] // unit * unit), **more)

    monkeypatch.setattr(os, "utime", rounded)
    assert NO_TIMES not in run(dest, src=src, ownership="ignore")["warnings"]


def test_times_that_are_refused(dest: Path, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: t.Any, **_more: t.Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "utime", refuse)
    assert refused(dest, src=src, ownership="ignore") == (
        "the file system of dest does not let the owner of a file set its times (function not implemented);"
        " choose a dest on another file system"
    )


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV])
@pytest.mark.parametrize("target", ["f", ".wh..wh.plnk/1"])
def test_no_hard_links(dest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, target: str) -> None:
    """An image without them can be unpacked there; for another, the error says that the image is not the reason."""

    def refuse(*_arguments: t.Any, **_more: t.Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    linked = write_oci_archive(tmp_path / "l.tar", Image([Layer(file(target, b"x"), hardlink("l", target))]))
    message = refused(dest, src=linked, ownership="ignore")
    assert "the file system of dest cannot make this hard link (" in message
    assert message.endswith("; choose a dest on another file system")
    plain = write_oci_archive(tmp_path / "p.tar", Image([Layer(file("f", b"x"))]))
    assert run(dest, src=plain, ownership="ignore")["changed"]


@needs_root
def test_a_real_file_system_without_xattrs(tmp_path: Path) -> None:
    """ramfs has owners, modes, times and hard links, but neither xattrs nor ACLs."""
    (tmp_path / "ram").mkdir(0o700)
    with mounted(tmp_path / "ram", "-t", "ramfs", "ramfs"):
        (tmp_path / "ram/above").mkdir(0o700)
        dest = tmp_path / "ram/above/x"
        entries = [
            file("f", b"x", 0o4755, uid=1000, gid=1000, xattrs={"user.a": "1"}),
            file("g", b"y", 0o640, acl_access="user::rw-,user:app:r--:1000,group::r--,mask::r--,other::---"),
            hardlink("l", "f"),
        ]
        archive = write_oci_archive(tmp_path / "i.tar", Image([Layer(*entries)]))
        assert refused(dest, src=archive).endswith(
            "choose a file system with POSIX ACLs, or set acl: drop in oci_rootfs"
        )
        outcome = run(dest, src=archive, acl="drop")
        assert outcome["report"]["counts"] == {"acls_dropped": 1, "setid_files": 1, "xattrs_unsupported": 1}
        assert NO_TIMES not in outcome["warnings"]
        status = (dest / "f").stat()
        assert (status.st_uid, status.st_nlink, stat.S_IMODE(status.st_mode)) == (1000, 2, 0o4755)
        for changed in (True, False):
            other = write_oci_archive(tmp_path / "j.tar", Image([Layer(file("f", b"z"))]))
            assert run(dest, src=other)["changed"] is changed
        assert contents(dest) == {"f": b"z"}


@needs_root
def test_root_that_is_squashed(dest: Path, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run works, not only the first one, which makes the private folder."""
    squash_root(monkeypatch)
    assert refused(dest, src=src) == (
        "the file system of dest does not let root set owners (operation not permitted), and files of root belong to user"
        f" {NOBODY} there, as on a server that squashes root; {ADVICE}"
    )
    for changed in (True, False):
        assert run(dest, src=src, ownership="ignore", check_mode=True)["changed"] is changed
        assert run(dest, src=src, ownership="ignore")["changed"] is changed
    assert contents(dest) == {"f": b"x"}
    assert run(dest, state="absent", ownership="ignore")["changed"]
    assert os.listdir(dest.parent) == []


@needs_root
@pytest.mark.parametrize("nameless", [True, False])
def test_a_folder_of_another_user_stays_refused(
    tmp_path: Path, dest: Path, src: str, monkeypatch: pytest.MonkeyPatch, nameless: bool
) -> None:
    """New files of root do not belong to him."""
    folder = dest.parent / ".x.oci_rootfs"
    folder.mkdir(0o700)
    os.chown(folder, NOBODY, NOBODY)
    if not nameless:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)
    with pytest.raises(OciError, match="belongs to another user or is open to others"):
        run(dest, src=src)
    assert os.listdir(folder) == []


@needs_user
def test_an_ordinary_user(dest: Path, src: str) -> None:
    assert run(dest, src=src)["changed"]


@pytest.mark.parametrize("nameless", [True, False])
def test_a_temporary_file_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool) -> None:
    if not nameless:
        # what a file system without nameless files answers
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        new = directories.open_temporary(fd)
        assert os.write(new, b"x") == 1
        os.close(new)
    finally:
        os.close(fd)
    assert os.listdir(tmp_path) == []


def test_a_token_that_is_not_kept(dest: Path, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree is recognised without it."""
    real = os.getxattr

    def getxattr(path: t.Any, name: t.Any, **options: t.Any) -> bytes:
        if str(name).startswith("trusted."):
            raise OSError(errno.ENODATA, "No data available")
        return real(path, name, **options)

    monkeypatch.setattr(os, "getxattr", getxattr)
    assert run(dest, src=src)["changed"] is True
    assert run(dest, src=src)["changed"] is False
