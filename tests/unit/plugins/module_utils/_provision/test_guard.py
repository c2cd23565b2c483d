# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose tree is at dest, who uses it, and how much room there is (docs/behaviour.md, section 7)."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import in_use
from ansible_collections.hypervisor.oci.tests.images.builder import write_oci_archive
from ansible_collections.hypervisor.oci.tests.unit.support import command, contents, loop_mounted, needs_root, run, tree
from ansible_collections.hypervisor.oci.tests.tools.removal import remove_below
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import ONE, refused, names_beside

pytestmark = pytest.mark.usefixtures("alone")


def _copied(dest: Path) -> None:
    shutil.copytree(dest, dest.parent / "copy", symlinks=True)
    remove_below(dest.parent, dest)
    os.rename(dest.parent / "copy", dest)


def _swapped(dest: Path) -> None:
    remove_below(dest.parent, dest)
    dest.mkdir()
    (dest / "f").touch()


def _rolled_back(dest: Path) -> None:
    """As a backup that keeps all xattrs gives it back."""
    _copied(dest)
    with contextlib.suppress(OSError):
        os.setxattr(dest, "trusted.hypervisor_oci", b"0" * 32)


@pytest.mark.parametrize("change", [_copied, _swapped, _rolled_back])
def test_a_tree_that_was_changed_as_a_whole(dest: Path, one: str, change: t.Callable[[Path], None]) -> None:
    """Section 7: never touched without force; what force replaces is kept."""
    run(dest, src=one)
    change(dest)
    before = contents(dest)
    for check_mode in (True, False):
        for state in ("present", "staged"):
            assert refused(dest, src=one, state=state, check_mode=check_mode) == (
                f"'{dest}' is not empty and was not made by this module (or was changed as a whole since);"
                " choose another dest, or set force: true to replace it"
            )
    for state in ("absent", "previous"):
        assert "is not empty and was not made by" in refused(dest, state=state)
    assert contents(dest) == before
    result = run(dest, src=one, force=True)
    assert result["changed"] is True
    (warning,) = result["warnings"]
    kept = warning.partition(" is kept in ")[2].partition(";")[0]
    assert contents(Path(kept)) == before
    assert run(dest, src=one)["changed"] is False


def test_an_empty_dest_is_nobodys(dest: Path, one: str) -> None:
    dest.mkdir(0o777)
    os.chmod(dest, 0o777)
    result = run(dest, src=one)
    assert (result["changed"], result["warnings"]) == (True, [])
    assert names_beside(dest) == ["record.json"]
    assert tree(dest)["."].mode == 0o755


def test_not_enough_room(dest: Path, one: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 7, free space: what is known to be needed, before anything is written."""
    needed = max(layer.size for layer in ONE.layers)

    def statvfs(free: int) -> t.Any:
        return os.statvfs_result((512, 1, 9, 9, free, 9, 9, 9, 0, 255))

    for free in (0, needed - 1):
        monkeypatch.setattr(os, "fstatvfs", lambda _fd, it=free: statvfs(it))
        for check_mode in (True, False):
            assert refused(dest, src=one, check_mode=check_mode) == (
                f"the image needs at least {needed} bytes, and the file system of '{dest}' has {free} free;"
                " make room there and run again"
            )
        assert os.listdir(dest.parent) == []
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: statvfs(needed))
    assert run(dest, src=one)["changed"] is True
    # a run that changes nothing needs none
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: statvfs(0))
    assert run(dest, src=one)["changed"] is False


def test_room_for_an_archive_that_must_be_spooled(tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 7: and the archive's decompressed size."""
    src = write_oci_archive(tmp_path / "a.gz", ONE, compression="gzip")
    plain = os.stat(write_oci_archive(tmp_path / "a", ONE)).st_size
    result = os.statvfs_result((512, 1, 9, 9, plain, 9, 9, 9, 0, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: result)
    needed = plain + max(layer.size for layer in ONE.layers)
    assert f"the image needs at least {needed} bytes" in refused(dest, src=src)


def test_a_tree_in_use(dest: Path, one: str, two: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 7, in use: before anything is exchanged or removed, and in check mode too."""
    run(dest, src=one)

    def used(_fd: int, path: str) -> None:
        raise RootfsError(f"{path} in use")

    monkeypatch.setattr(in_use, "require_unused", used)
    for check_mode in (True, False):
        for changes in ({"src": two}, {"state": "absent"}):
            assert "in use" in refused(dest, check_mode=check_mode, **changes)
    assert contents(dest)["bin/app"] == b"one"
    # what changes nothing, or only stages, may go on
    assert run(dest, src=one)["changed"] is False
    assert run(dest, src=two, state="staged")["changed"] is True
    assert run(dest, src=two, in_use="ignore")["changed"] is True
    assert run(dest, state="absent", in_use="ignore")["changed"] is True
    assert os.listdir(dest.parent) == []


def test_a_process_in_the_tree(dest: Path, one: str, two: str) -> None:
    """Section 7, in use: an error that lists it; ``in_use: ignore`` goes on."""
    run(dest, src=one)
    script = "print('ready', flush=True); import sys; sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=dest / "data"
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for changes in ({"src": two}, {"state": "absent"}):
            message = refused(dest, **changes)
            assert message.startswith(f"'{dest}' is in use by process {process.pid} (")
            assert message.endswith(") with its working directory; stop what uses it, or set in_use: ignore")
        assert contents(dest)["bin/app"] == b"one"
        assert run(dest, src=two, in_use="ignore", keep=0)["changed"] is True
    finally:
        process.communicate("")
    assert contents(dest)["bin/app"] == b"two"
    assert names_beside(dest) == ["record.json"]


PREPARED = {
    "subvolume": "is a btrfs subvolume, which a plain directory without its quota and properties would replace; mount it",
    "C": "has file attributes that a new directory would not have (lsattr: C); set them on",
    "dA": "has file attributes that a new directory would not have (lsattr: dA); set them on",
}


@needs_root
@pytest.mark.parametrize("kind", list(PREPARED))
def test_a_prepared_dest(tmp_path: Path, one: str, kind: str) -> None:
    """Section 7: its properties are never lost in silence."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with loop_mounted(disk, tmp_path / "image", "btrfs"):
        disk.chmod(0o700)
        dest = disk / "x"
        if kind == "subvolume":
            command("btrfs", "subvolume", "create", str(dest))
        else:
            dest.mkdir()
            command("chattr", f"+{kind}", str(dest))
        inode = dest.stat().st_ino
        for state in ("present", "staged"):
            for check_mode in (True, False):
                message = refused(dest, src=one, state=state, check_mode=check_mode)
                assert message.startswith(f"'{dest}' {PREPARED[kind]}")
        assert (dest.stat().st_ino, os.listdir(dest), os.listdir(disk)) == (inode, [], ["x"])
        if kind == "subvolume":
            command("mount", "--bind", str(dest), str(dest))
            try:
                assert run(dest, src=one)["changed"]
                assert not run(dest, src=one)["changed"]
            finally:
                command("umount", str(dest))
            assert (dest.stat().st_ino, os.path.exists(dest / "bin/app")) == (inode, True)
        else:
            # on btrfs new directories inherit C alone
            command("chattr", *([f"+{kind}", str(disk)] if kind == "C" else [f"-{kind}", str(dest)]))
            assert run(dest, src=one)["changed"]
            assert not run(dest, src=one)["changed"]


@needs_root
def test_force_replaces_a_prepared_dest(tmp_path: Path, one: str, two: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with loop_mounted(disk, tmp_path / "image", "btrfs"):
        disk.chmod(0o700)
        command("btrfs", "subvolume", "create", str(disk / "x"))
        assert run(disk / "x", src=one, force=True)["changed"]
        assert run(disk / "x", src=two)["changed"]
