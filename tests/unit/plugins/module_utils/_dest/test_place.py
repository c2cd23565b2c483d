# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where dest lies, its private folder and its lock (docs/behaviour.md, section 7)."""

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
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import place
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.place import DestPath, Dest, resolve_dest, lock_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.record import Binding, Record, Tree
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors
from ansible_collections.hypervisor.oci.tests.unit.support import IS_ROOT, mounted, needs_root, needs_user

SOMETHING = Record(tree=Tree(Binding(None, 1, None)))


def opened(dest: Path, timeout: float = 5.0, mode: int = 0o700, dry_run: bool = False) -> t.ContextManager[Dest]:
    """A site of this dest."""
    return lock_dest(resolve_dest(os.fspath(dest)), timeout, mode, dry_run)


def refused(dest: str) -> str:
    """Why this is no dest."""
    with pytest.raises(RootfsError) as caught:
        resolve_dest(dest)
    return caught.value.message


# -- what must never be a dest


@pytest.mark.parametrize("dest", ["", "relative", "./x", "~/x", "\0", "/srv/a\0b"])
def test_no_absolute_path(dest: str) -> None:
    assert refused(dest) == f"dest {dest!r} is not an absolute path; give one"


@pytest.mark.parametrize(
    "dest",
    [
        "/", "//", "/.", "/..", "/srv/.", "/srv/..", "/srv/../", "/etc", "/etc/", "//etc", "/./etc",
        "/srv/../etc", "/bin", "/boot", "/dev", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt",
        "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/usr/bin",
        "/usr/lib", "/usr/local", "/usr/sbin", "/usr/share", "/var/lib", "/var/log", "/var/tmp",
        "/var/lib/lxc", "/var/lib/machines",
    ],
)  # fmt: skip
def test_directories_of_the_system(dest: str) -> None:
    """Section 7: ``/`` and the system's own directories are errors, however they are written."""
    assert refused(dest) == (
        f"dest {dest!r} is a directory of the system itself;" " choose one that belongs to the container alone"
    )


@pytest.mark.parametrize("name", ["etc", "usr", "srv"])
def test_directories_of_the_system_behind_a_link(tmp_path: Path, name: str) -> None:
    os.symlink("/", tmp_path / "link")
    assert "is a directory of the system itself" in refused(f"{tmp_path}/link/{name}")


@pytest.mark.parametrize("dest", ["/srv/x", "/var/lib/lxc/web", "/var/lib/machines/web", "/etcetera", "/opt/x"])
def test_what_may_be_a_dest(dest: str) -> None:
    if os.path.realpath(os.path.dirname(dest)) != os.path.dirname(dest):
        pytest.skip("this machine has a link there")
    assert resolve_dest(dest).path == dest


# -- resolving


def test_links_above_dest_are_the_administrators(tmp_path: Path) -> None:
    """Section 7: directories above dest may be links; it is one dest, by whatever path."""
    (tmp_path / "real" / "x").mkdir(parents=True)
    os.symlink("real", tmp_path / "link")
    places = [
        resolve_dest(f"{tmp_path}/{path}") for path in ("real/x", "link/x", "real/x/", "link//x///", "real/../link/./x")
    ]
    assert set(places) == {DestPath(f"{tmp_path}/real", "x", False)}


def test_parents_that_are_missing(tmp_path: Path) -> None:
    assert resolve_dest(f"{tmp_path}/a/b/c") == DestPath(f"{tmp_path}/a/b", "c", False)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_dest_as_something_else(tmp_path: Path, kind: str) -> None:
    """Section 7: dest itself as a link or file is an error."""
    if kind == "file":
        (tmp_path / "x").touch()
    else:
        if kind == "link":
            (tmp_path / "real").mkdir()
        os.symlink("real", tmp_path / "x")
    assert refused(f"{tmp_path}/x") == ("'x' is a link or a file, not a directory; remove it or choose another dest")


@pytest.mark.parametrize("kind", ["file", "loop"])
def test_a_parent_that_is_no_directory(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "a").touch()
    else:
        os.symlink("a", tmp_path / "a")
    assert refused(f"{tmp_path}/a/x") == (f"'{tmp_path}/a' is not a directory; choose another dest")


@needs_root
def test_mount_points_are_told_by_the_kernel(tmp_path: Path, states: Path) -> None:
    """Section 7: also a bind mount of the same file system, which has the same device number."""
    for name in ("plain", "tmpfs", "bind"):
        (tmp_path / name).mkdir()
    with mounted(tmp_path / "tmpfs"), mounted(tmp_path / "bind", "--bind", str(tmp_path / "plain")):
        found = {name: resolve_dest(f"{tmp_path}/{name}").inside for name in ("plain", "tmpfs", "bind", "missing")}
        below = resolve_dest(f"{tmp_path}/tmpfs/x")
    assert found == {"plain": False, "tmpfs": True, "bind": True, "missing": False}
    assert not below.inside


# -- the private folder


@pytest.mark.parametrize("name", ["x", "a b", ".hidden", "größe", "n" * 230, "n" * 231, "n" * 255])
def test_the_private_folder_lies_beside(tmp_path: Path, name: str) -> None:
    """Section 7: ``.NAME.oci_rootfs``, closed to others; gone again where nothing is in it."""
    with opened(tmp_path / name) as site:
        (folder,) = os.listdir(tmp_path)
        if len(os.fsencode(name)) <= 230:
            assert folder == f".{name}.oci_rootfs"
        assert len(os.fsencode(folder)) <= 255
        assert stat.S_IMODE(os.stat(tmp_path / folder).st_mode) == 0o700
        assert site.load() == Record()
    assert os.listdir(tmp_path) == []


def test_two_long_names_have_two_folders(tmp_path: Path) -> None:
    one, other = (DestPath("/srv", "n" * 254 + end, False) for end in "ab")
    assert one.state_name != other.state_name


def test_mount_points_have_their_folders_elsewhere() -> None:
    """Section 7: by the resolved path; two of one name do not share."""
    one, other = (DestPath(parent, "data", True) for parent in ("/srv/a", "/srv/b"))
    assert one.state_name != other.state_name
    assert one.state_name.startswith(b"data-")
    long_name = DestPath("/srv", "n" * 255, True).state_name
    assert len(long_name) < 200


@needs_root
def test_the_folder_of_records_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert DestPath("/srv", "x", True).state_parent == "/var/lib/hypervisor.oci"
    assert DestPath("/srv", "x", False).state_parent == "/srv"


@needs_user
def test_the_folder_of_records_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 7: in ``$XDG_STATE_HOME`` or ``~/.local/state``."""
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/state")
    expected = f"{tmp_path}/state/hypervisor.oci"
    assert DestPath("/srv", "x", True).state_parent == expected
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", f"{tmp_path}/home")
    expected = f"{tmp_path}/home/.local/state/hypervisor.oci"
    assert DestPath("/srv", "x", True).state_parent == expected


# -- the record on disk


def test_a_record_is_saved_and_forgotten(tmp_path: Path) -> None:
    with opened(tmp_path / "x") as site:
        site.save(SOMETHING)
        assert site.load() == SOMETHING
        assert os.listdir(tmp_path / ".x.oci_rootfs") == ["record.json"]
    with opened(tmp_path / "x") as site:
        assert site.load() == SOMETHING
        site.forget()
        site.forget()
        assert site.load() == Record()
    assert os.listdir(tmp_path) == []


def test_a_record_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, or a crash while it is written, leaves the old one."""
    with opened(tmp_path / "x") as site:
        site.save(SOMETHING)

        def full(_fd: int) -> None:
            raise OSError(28, os.strerror(28))

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                site.save(Record(phase="other"))
        assert site.load() == SOMETHING
        site.save(Record(phase="other"))
        assert site.load() == Record(phase="other")


def test_half_a_record_of_a_run_that_was_killed_goes(tmp_path: Path) -> None:
    state = tmp_path / ".x.oci_rootfs"
    state.mkdir(0o700)
    (state / "record.json.new").write_bytes(b'{"half')
    with opened(tmp_path / "x") as site:
        assert site.load() == Record()
    assert os.listdir(tmp_path) == []


def test_a_damaged_record_names_its_folder(tmp_path: Path) -> None:
    state = tmp_path / ".x.oci_rootfs"
    state.mkdir(0o700)
    (state / "record.json").write_bytes(b"{")
    with opened(tmp_path / "x") as site, pytest.raises(RootfsError) as caught:
        site.load()
    assert caught.value.message.startswith(f"the record in {state} is damaged; ")


def test_a_record_is_never_read_through_a_link(tmp_path: Path) -> None:
    state = tmp_path / ".x.oci_rootfs"
    state.mkdir(0o700)
    (tmp_path / "forged").write_bytes(b"{}")
    os.symlink(tmp_path / "forged", state / "record.json")
    with opened(tmp_path / "x") as site, pytest.raises(OSError, match="symbolic links"):
        site.load()


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
        with opened(tmp_path / name, dry_run=True) as site:
            assert os.listdir(tmp_path) == []
            assert site.state == -1
            assert site.open_dest() is None
            assert site.load() == Record()
    assert os.listdir(tmp_path) == []


def test_a_dry_run_leaves_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / ".x.oci_rootfs").mkdir(0o700)
    with opened(tmp_path / "x", dry_run=True) as site:
        assert site.state >= 0
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
    with opened(tmp_path / "x") as site:
        site.save(SOMETHING)
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
        with opened(tmp_path / "x") as site:
            entered.set()
            time.sleep(0.3)
            if leaves:
                site.save(SOMETHING)

    thread = threading.Thread(target=first)
    thread.start()
    try:
        assert entered.wait(5)
        with opened(tmp_path / "x", 5) as site:
            assert site.load() == (SOMETHING if leaves else Record())
            # it is the folder that is there, and it is locked
            assert os.path.samestat(os.fstat(site.state), os.stat(tmp_path / ".x.oci_rootfs"))
            with pytest.raises(RootfsError), opened(tmp_path / "x", 0):
                pass
    finally:
        thread.join()


def test_a_folder_that_was_made_anew_while_this_run_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of a folder that is gone is worth nothing: a third run may hold that of the new one."""
    real = place._lock
    calls: list[int] = []

    def lock(state: int, *rest: t.Any) -> None:
        calls.append(state)
        if len(calls) == 1:
            os.rename(tmp_path / ".x.oci_rootfs", tmp_path / "removed")
            (tmp_path / ".x.oci_rootfs").mkdir(0o700)
        real(state, *rest)

    monkeypatch.setattr(place, "_lock", lock)
    with opened(tmp_path / "x") as site:
        assert len(calls) == 2
        there = os.stat(tmp_path / ".x.oci_rootfs")
        assert os.path.samestat(os.fstat(site.state), there)


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
        with opened(dest) as site:
            assert os.listdir(dest) == []
            (folder,) = os.listdir(states)
            assert stat.S_IMODE(os.stat(states).st_mode) == 0o755
            site.save(SOMETHING)
        with opened(dest) as site:
            assert site.load() == SOMETHING
    assert refused(str(dest)) == (
        f"'{dest}' was provisioned as a mount point, and nothing is mounted there now;"
        f" mount it and run again, or remove {states}/{folder} to give that record up"
    )


@needs_root
def test_the_folder_of_a_mount_point_goes_too(tmp_path: Path, states: Path) -> None:
    dest = tmp_path / "data"
    dest.mkdir()
    with mounted(dest), opened(dest):
        pass
    assert not states.exists()
    assert IS_ROOT
