# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What gives rights away in a tree that is on disk (docs/behaviour.md, sections 7 and 9)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.removal import empty_directory
from ansible_collections.hypervisor.oci.plugins.module_utils._container.rights import count_rights
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors
from ansible_collections.hypervisor.oci.tests.unit.support import needs_root, set_xattr_or_skip


def counted(top: Path) -> dict[str, int]:
    before = open_descriptors()
    fd = os.open(top, os.O_RDONLY)
    try:
        found = count_rights(fd)
    finally:
        os.close(fd)
    assert open_descriptors() == before
    return {kind: number for kind, number in found.items() if number}


def test_set_id_bits_at_every_level(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "d").mkdir()
    for name, mode in (
        ("su", 0o4755), ("a/wall", 0o2755), ("a/b/c/both", 0o6700), ("d/none", 0o755),
    ):  # fmt: skip
        (tmp_path / name).touch()
        os.chmod(tmp_path / name, mode)
    # on directories they mean something else
    os.chmod(tmp_path / "d", 0o3777)
    assert counted(tmp_path) == {"setid_files": 3}
    assert counted(tmp_path / "d") == {}


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/su").touch()
    os.chmod(tmp_path / "outside/su", 0o4755)
    (tmp_path / "top").mkdir()
    (tmp_path / "top/file").symlink_to("../outside/su")
    (tmp_path / "top/folder").symlink_to("../outside")
    assert counted(tmp_path / "top") == {}


@needs_root
def test_capabilities_and_devices(tmp_path: Path) -> None:
    (tmp_path / "ping").touch()
    value = b"\x01\0\0\2" + b"\x80\0\0\0" + bytes(12)
    set_xattr_or_skip(tmp_path / "ping", "security.capability", value)
    for kind, name in ((stat.S_IFCHR, "null"), (stat.S_IFBLK, "disk")):
        try:
            os.mknod(tmp_path / name, kind | 0o600, os.makedev(1, 3))
        except OSError as error:
            pytest.skip(f"no device nodes here: {error}")
    os.mkfifo(tmp_path / "fifo")
    assert counted(tmp_path) == {"capabilities": 1, "devices_created": 2}


def test_depth_costs_no_descriptors(tmp_path: Path) -> None:
    """More levels than a process may have files open, and than a path may be long."""
    top = os.open(tmp_path, os.O_RDONLY)
    fd = os.dup(top)
    try:
        for _level in range(2500):
            os.mkdir("deep", dir_fd=fd)
            below = os.open("deep", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(os.open("su", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.chmod("su", 0o4755, dir_fd=fd)
        assert counted(tmp_path) == {"setid_files": 1}
    finally:
        # pytest cannot remove so deep a tree
        empty_directory(top)
        os.close(fd)
        os.close(top)
