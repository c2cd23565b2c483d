# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Paths that are opened below a root and nowhere else, with and without openat2."""

from __future__ import annotations

import errno
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._fs import beneath
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.beneath import ELSEWHERE, Beneath
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.syscalls import open_beneath
from ansible_collections.hypervisor.oci.tests.unit.support import mounted, needs_root


def has_openat2(top: Path) -> bool:
    fd = os.open(top, os.O_RDONLY)
    try:
        os.close(open_beneath(fd, b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


@pytest.fixture(name="tree", params=["openat2", "without"])
def fixture_tree(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[tuple[Path, Beneath]]:
    if request.param == "without":

        def refused(*_arguments: t.Any) -> int:
            raise OSError(errno.ENOSYS, "")

        monkeypatch.setattr(beneath, "open_beneath", refused)
    elif not has_openat2(tmp_path):
        pytest.skip("the kernel has no openat2")
    top = tmp_path / "top"
    (top / "a/b").mkdir(parents=True)
    (top / "a/b/file").write_bytes(b"content")
    (tmp_path / "outside").mkdir()
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    yield top, Beneath(fd)
    os.close(fd)


def opens(opener: Beneath, path: str) -> bool:
    try:
        os.close(opener.directory(path))
    except OSError as error:
        assert error.errno in ELSEWHERE
        return False
    return True


def test_directories(tree: tuple[Path, Beneath]) -> None:
    top, opener = tree
    for path in ("", "/a", "/a/b"):
        fd = opener.directory(path)
        assert os.fstat(fd).st_ino == os.stat(f"{top}{path}").st_ino
        os.close(fd)
    for path in ("/none", "/a/b/file", "/a/b/file/x"):
        assert not opens(opener, path)


def test_no_link_is_followed(tree: tuple[Path, Beneath], tmp_path: Path) -> None:
    """Neither the last component nor one above, whether it leads out or not."""
    top, opener = tree
    (top / "out").symlink_to(tmp_path / "outside")
    (top / "within").symlink_to("a")
    for path in ("/out", "/within", "/within/b"):
        assert not opens(opener, path)


@needs_root
def test_no_mount_is_crossed(tree: tuple[Path, Beneath]) -> None:
    top, opener = tree
    with mounted(top / "a"):
        assert not opens(opener, "/a")
    with mounted(top / "a", "--bind", str(top)):
        assert not opens(opener, "/a/a")
    assert opens(opener, "/a/b")


def test_regular_files_only(tree: tuple[Path, Beneath]) -> None:
    top, opener = tree
    os.mkfifo(top / "a/fifo")
    (top / "a/link").symlink_to("b/file")
    parent = opener.directory("/a/b")
    fd = opener.file(parent, "file")
    assert os.read(fd, 10) == b"content"
    os.close(fd)
    above = opener.directory("/a")
    for name in ("fifo", "link", "b", "none"):
        with pytest.raises(OSError) as caught:
            opener.file(above, name)
        assert caught.value.errno in ELSEWHERE
    os.close(above)
    os.close(parent)


def test_paths_that_are_too_long_for_the_kernel(tree: tuple[Path, Beneath]) -> None:
    top, opener = tree
    fd = os.open(top, os.O_RDONLY)
    for _level in range(40):
        os.mkdir("n" * 250, dir_fd=fd)
        below = os.open("n" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    found = opener.directory(("/" + "n" * 250) * 40)
    assert os.path.samestat(os.fstat(found), os.fstat(fd))
    os.close(found)
    os.close(fd)
