# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The private folder of dest, its records and its lock (docs/behaviour.md, section 7)."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import dest as locking
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest import Dest, lock_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest_path import resolve_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.record import Binding, Record, Tree
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors
from ansible_collections.hypervisor.oci.tests.unit.support import IS_ROOT, mounted, needs_root

SOMETHING = Record(tree=Tree(Binding(None, 1, None)))


def opened(dest: Path, timeout: float = 5.0, mode: int = 0o700, dry_run: bool = False) -> t.ContextManager[Dest]:
    """Lock this dest."""
    return lock_dest(resolve_dest(os.fspath(dest)), timeout, mode, dry_run)


# -- the private folder


@pytest.mark.parametrize("name", ["x", "a b", ".hidden", "größe", "n" * 230, "n" * 231, "n" * 255])
def test_the_private_folder_lies_beside(tmp_path: Path, name: str) -> None:
    """Section 7: ``.NAME.oci_rootfs``, closed to others; gone again where nothing is in it."""
    with opened(tmp_path / name) as locked:
        (folder,) = os.listdir(tmp_path)
        if len(os.fsencode(name)) <= 230:
            assert folder == f".{name}.oci_rootfs"
        assert len(os.fsencode(folder)) <= 255
        assert stat.S_IMODE(os.stat(tmp_path / folder).st_mode) == 0o700
        assert locked.load() == Record()
    assert os.listdir(tmp_path) == []


# -- the record on disk


def test_a_record_is_saved_and_forgotten(tmp_path: Path) -> None:
    with opened(tmp_path / "x") as locked:
        locked.save(SOMETHING)
        assert locked.load() == SOMETHING
        assert os.listdir(tmp_path / ".x.oci_rootfs") == ["record.json"]
    with opened(tmp_path / "x") as locked:
        assert locked.load() == SOMETHING
        locked.forget()
        locked.forget()
        assert locked.load() == Record()
    assert os.listdir(tmp_path) == []


def test_a_record_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, or a crash while it is written, leaves the old one."""
    with opened(tmp_path / "x") as locked:
        locked.save(SOMETHING)

        def full(_fd: int) -> None:
            raise OSError(28, os.strerror(28))

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                locked.save(Record(phase="other"))
        assert locked.load() == SOMETHING
        locked.save(Record(phase="other"))
        assert locked.load() == Record(phase="other")


def test_half_a_record_of_a_run_that_was_killed_goes(tmp_path: Path) -> None:
    state = tmp_path / ".x.oci_rootfs"
    state.mkdir(0o700)
    (state / "record.json.new").write_bytes(b'{"half')
    with opened(tmp_path / "x") as locked:
        assert locked.load() == Record()
    assert os.listdir(tmp_path) == []


def test_a_damaged_record_names_its_folder(tmp_path: Path) -> None:
    state = tmp_path / ".x.oci_rootfs"
    state.mkdir(0o700)
    (state / "record.json").write_bytes(b"{")
    with opened(tmp_path / "x") as locked, pytest.raises(RootfsError) as caught:
        locked.load()
    assert caught.value.message.startswith(f"the record in {state} is damaged; ")


def test_a_record_is_never_read_through_a_link(tmp_path: Path) -> None:
    state = tmp_path / ".x.oci_rootfs"
    state.mkdir(0o700)
    (tmp_path / "forged").write_bytes(b"{}")
    os.symlink(tmp_path / "forged", state / "record.json")
    with opened(tmp_path / "x") as locked, pytest.raises(OSError, match="symbolic links"):
        locked.load()


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_folder_that_others_can_enter(tmp_path: Path, mode: int) -> None:
    """Its records cannot be trusted."""
    (tmp_path / ".x.oci_rootfs").mkdir()
    os.chmod(tmp_path / ".x.oci_rootfs", mode)
    for dry_run in (False, True):
        with pytest.raises(RootfsError, match="cannot be trusted"), opened(tmp_path / "x", dry_run=dry_run):
            pass


# -- directories above dest


@pytest.mark.parametrize("mode", [0o700, 0o710])
def test_directories_above_dest_are_made(tmp_path: Path, mode: int) -> None:
    """Section 7: and removed again where the run leaves nothing there."""
    for stays in (False, True):
        with opened(tmp_path / "a/b/x", mode=mode):
            assert stat.S_IMODE(os.stat(tmp_path / "a/b").st_mode) == mode
            assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o755
            if stays:
                (tmp_path / "a/b/x").mkdir()
        assert os.path.exists(tmp_path / "a") is stays
    assert os.listdir(tmp_path / "a/b") == ["x"]


def test_directories_above_dest_that_were_there_stay(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(0o755)
    with opened(tmp_path / "a/b/x"):
        pass
    assert os.listdir(tmp_path) == ["a"]
    assert os.listdir(tmp_path / "a") == []


def test_a_dry_run_makes_nothing(tmp_path: Path) -> None:
    """Section 8, check mode."""
    for name in ("x", "a/b/x"):
        with opened(tmp_path / name, dry_run=True) as locked:
            assert os.listdir(tmp_path) == []
            assert locked.state == -1
            assert locked.open_dest() is None
            assert locked.load() == Record()
    assert os.listdir(tmp_path) == []


def test_a_dry_run_leaves_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / ".x.oci_rootfs").mkdir(0o700)
    with opened(tmp_path / "x", dry_run=True) as locked:
        assert locked.state >= 0
    assert os.listdir(tmp_path) == [".x.oci_rootfs"]


# -- the lock


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_second_run_waits_no_longer_than_it_may(tmp_path: Path, dry_run: bool) -> None:
    """Section 7: ``lock_timeout`` seconds at most; also a check, which would see half a change."""
    with opened(tmp_path / "x"):
        began = time.monotonic()
        with pytest.raises(RootfsError) as caught, opened(tmp_path / "x", 0.2, dry_run=dry_run):
            pass
        assert 0.2 <= time.monotonic() - began < 5
    assert caught.value.message == (
        f"another run works on '{tmp_path}/x' and was not done after 0.2 seconds;" " wait for it or raise lock_timeout"
    )


def test_a_lock_timeout_of_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "x", 0), pytest.raises(RootfsError, match="not done after 0 seconds"), opened(
        tmp_path / "x", 0
    ):
        pass


def test_checks_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with opened(tmp_path / "x") as locked:
        locked.save(SOMETHING)
    with opened(tmp_path / "x", 0, dry_run=True), opened(tmp_path / "x", 0, dry_run=True), pytest.raises(
        RootfsError, match="another run works on"
    ), opened(tmp_path / "x", 0):
        pass


def test_other_dests_do_not_wait(tmp_path: Path) -> None:
    with opened(tmp_path / "x", 0), opened(tmp_path / "y", 0):
        pass


@pytest.mark.parametrize("leaves", [True, False])
def test_the_second_run_goes_on_when_the_first_is_done(tmp_path: Path, leaves: bool) -> None:
    """Also where the first leaves nothing, and so removes the folder that the second waits for."""
    entered = threading.Event()

    def first() -> None:
        with opened(tmp_path / "x") as locked:
            entered.set()
            time.sleep(0.3)
            if leaves:
                locked.save(SOMETHING)

    thread = threading.Thread(target=first)
    thread.start()
    try:
        assert entered.wait(60)
        with opened(tmp_path / "x", 60) as locked:
            assert locked.load() == (SOMETHING if leaves else Record())
            # it is the folder that is there, and it is locked
            assert os.path.samestat(os.fstat(locked.state), os.stat(tmp_path / ".x.oci_rootfs"))
            with pytest.raises(RootfsError), opened(tmp_path / "x", 0):
                pass
    finally:
        thread.join()


def test_a_folder_that_was_made_anew_while_this_run_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of a folder that is gone is worth nothing: a third run may hold that of the new one."""
    real = locking.await_lock
    calls: list[int] = []

    def lock(state: int, *rest: t.Any) -> None:
        calls.append(state)
        if len(calls) == 1:
            os.rename(tmp_path / ".x.oci_rootfs", tmp_path / "removed")
            (tmp_path / ".x.oci_rootfs").mkdir(0o700)
        real(state, *rest)

    monkeypatch.setattr(locking, "await_lock", lock)
    with opened(tmp_path / "x") as locked:
        assert len(calls) == 2
        there = os.stat(tmp_path / ".x.oci_rootfs")
        assert os.path.samestat(os.fstat(locked.state), there)


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    before = open_descriptors()
    for _time in range(3):
        with opened(tmp_path / "a/x"), contextlib.suppress(RootfsError), opened(tmp_path / "a/x", 0):
            pass
        with opened(tmp_path / "a/x", dry_run=True):
            pass
    (tmp_path / "f").touch()
    with contextlib.suppress(RootfsError):
        resolve_dest(f"{tmp_path}/f")
    assert open_descriptors() == before


# -- mount points


@needs_root
def test_a_mount_point_that_is_not_mounted(tmp_path: Path, states: Path) -> None:
    """What filled a mount must not be made anew on the file system below it."""
    dest = tmp_path / "data"
    dest.mkdir()
    with mounted(dest):
        with opened(dest) as locked:
            assert os.listdir(dest) == []
            (folder,) = os.listdir(states)
            assert stat.S_IMODE(os.stat(states).st_mode) == 0o755
            locked.save(SOMETHING)
        with opened(dest) as locked:
            assert locked.load() == SOMETHING
    with pytest.raises(RootfsError) as caught:
        resolve_dest(os.fspath(dest))
    assert caught.value.message == (
        f"'{dest}' was provisioned as a mount point, and nothing is mounted there now;"
        f" mount it and run again, or remove '{states}/{folder}' if it is to be a plain directory"
    )


@needs_root
def test_the_folder_of_a_mount_point_goes_too(tmp_path: Path, states: Path) -> None:
    dest = tmp_path / "data"
    dest.mkdir()
    with mounted(dest), opened(dest):
        pass
    assert not states.exists()
    assert IS_ROOT
