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
from ansible_collections.hypervisor.oci.tests.unit.support import contents, needs_root, needs_user, run, without_waiting

NOBODY = 65534
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


@pytest.mark.parametrize("kept", [0, -(10**9), 10**9, 1_999_999_999])
def test_times_that_are_rounded(dest: Path, src: str, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """By up to two seconds, as FAT does it."""
    real = os.utime

    def utime(path: t.Any, *args: t.Any, ns: tuple[int, int], **options: t.Any) -> None:
        real(path, *args, ns=(ns[0], ns[1] + kept), **options)

    monkeypatch.setattr(os, "utime", utime)
    assert not [text for text in run(dest, src=src)["warnings"] if "times" in text]


def test_times_that_are_ignored(dest: Path, src: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image is unpacked all the same, and the next run does nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", lambda *_args, **_options: None)
        warnings = run(dest, src=src)["warnings"]
    assert "the file system of dest does not store modification times; the image's are lost" in warnings
    assert run(dest, src=src)["changed"] is False


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


def test_hard_links_that_are_refused(dest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_args: t.Any, **_options: t.Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    linked = write_oci_archive(tmp_path / "l.tar", Image([Layer(file("f", b"x"), hardlink("g", "f"))]))
    monkeypatch.setattr(os, "link", link)
    assert refused(dest, src=linked).endswith(
        "entry 'g': the file system of dest cannot store hard links (operation not permitted); choose a dest on another file"
        " system"
    )
