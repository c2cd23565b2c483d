# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Directories that the root of one id map may pass, and no other user (docs/behaviour.md, section 9)."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._container.passage import can_pass, let_pass
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.reach import MappedRoot
from ansible_collections.hypervisor.oci.tests.unit.support import needs_root, set_xattr_or_skip

pytestmark = needs_root

ROOT = MappedRoot(100000, 100001)
OTHER = MappedRoot(200000, 200001)


@pytest.fixture(name="folder")
def fixture_folder(tmp_path: Path) -> t.Iterator[int]:
    """An open directory, where there are ACLs."""
    path = tmp_path / "folder"
    path.mkdir(mode=0o700)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture(name="without_acls")
def fixture_without_acls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without ACLs."""

    def refuse(*_args: t.Any) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(os, "setxattr", refuse)


def setfacl(fd: int, *entries: str) -> None:
    path = os.readlink(f"/proc/self/fd/{fd}")
    done = subprocess.run(["setfacl", "-m", ",".join(entries), path], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no ACLs here: {done.stderr.decode().strip()}")


def kernel_lets(fd: int, root: MappedRoot) -> bool:
    """Whether the kernel lets that root pass."""
    child = os.fork()
    if child == 0:
        try:
            os.fchdir(fd)
            os.setgroups([])
            os.setgid(root.gid)
            os.setuid(root.uid)
            os.stat(b"./.")
            os._exit(0)
        except OSError:
            os._exit(1)
    _pid, status = os.waitpid(child, 0)
    return status == 0


@pytest.mark.parametrize("mode", [0o700, 0o710, 0o701, 0o770, 0o755, 0o000, 0o100])
@pytest.mark.parametrize("owner", [(0, 0), ROOT, (0, ROOT.gid), (ROOT.uid, 0)])
@pytest.mark.parametrize(
    "entries",
    [
        [], ["u:100000:x"], ["u:100000:-"], ["g:100001:x"], ["g:100001:-"], ["u:7:x"],
        ["g:100001:x", "m::-"], ["g:100001:-", "g:0:x"],
    ],
)  # fmt: skip
def test_it_judges_as_the_kernel_does(folder: int, mode: int, owner: tuple[int, int], entries: list[str]) -> None:
    os.fchown(folder, *owner)
    os.fchmod(folder, mode)
    if entries:
        setfacl(folder, *entries)
    assert can_pass(folder, ROOT) is kernel_lets(folder, ROOT)


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o2700])
def test_an_entry_for_each_map(folder: int, mode: int) -> None:
    set_xattr_or_skip(f"/proc/self/fd/{folder}", "user.test", b"")
    os.fchmod(folder, mode)
    for root in (ROOT, OTHER):
        assert not kernel_lets(folder, root)
        let_pass(folder, root, "/folder")
        assert kernel_lets(folder, root)
    assert kernel_lets(folder, ROOT)
    # nobody else
    assert not kernel_lets(folder, MappedRoot(ROOT.gid, ROOT.uid))
    assert not kernel_lets(folder, MappedRoot(12345, 12345))
    status = os.fstat(folder)
    assert (status.st_uid, status.st_gid) == (0, 0)
    assert status.st_mode & 0o7707 == mode & 0o7707


def test_many_runs_at_once_lose_no_entry(folder: int) -> None:
    """Each for a container with another map."""
    set_xattr_or_skip(f"/proc/self/fd/{folder}", "user.test", b"")
    path = os.readlink(f"/proc/self/fd/{folder}")
    roots = [MappedRoot(base, base) for base in range(100000, 100030)]
    children = []
    for root in roots:
        child = os.fork()
        if not child:
            try:
                let_pass(os.open(path, os.O_RDONLY), root, path)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert [root for root in roots if not can_pass(folder, root)] == []


def test_what_a_mask_hides_stays_hidden(folder: int) -> None:
    setfacl(folder, "u:12345:x", "g::x", "m::-")
    os.fchown(folder, 0, 777)
    let_pass(folder, ROOT, "/folder")
    assert kernel_lets(folder, ROOT)
    assert not kernel_lets(folder, MappedRoot(12345, 12345))
    assert not kernel_lets(folder, MappedRoot(1, 777))


def test_an_entry_that_forbids_is_replaced(folder: int) -> None:
    setfacl(folder, "u:100000:-", "g:7:x", "o::x")
    assert not kernel_lets(folder, ROOT)
    let_pass(folder, ROOT, "/folder")
    assert kernel_lets(folder, ROOT)


@pytest.mark.usefixtures("without_acls")
def test_the_group_where_there_are_no_acls(folder: int) -> None:
    let_pass(folder, ROOT, "/folder")
    status = os.fstat(folder)
    assert (status.st_uid, status.st_gid) == (0, ROOT.gid)
    assert stat.S_IMODE(status.st_mode) == 0o710
    # its group is the one of the first now
    with pytest.raises(RootfsError) as caught:
        let_pass(folder, OTHER, "/folder")
    assert caught.value.message == (
        "the container's root (user 200000 of the node) cannot pass '/folder', which is open to another group;"
        " run chown root:200001 and chmod 0710 on it, or choose another path"
    )
