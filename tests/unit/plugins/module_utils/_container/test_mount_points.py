# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mount points in a root on disk (docs/behaviour.md, section 9)."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._container.mount_points import (
    provide_directories,
    provide_mount_points,
)
from ansible_collections.hypervisor.oci.tests.unit.support import needs_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "root"
    (top / "run").mkdir(parents=True)
    (top / "var").mkdir()
    (top / "var/run").symlink_to("/run")
    (top / "etc").mkdir()
    (top / "etc/hosts").write_text("")
    (tmp_path / "volume").mkdir()
    (tmp_path / "file").write_text("")
    return top


def mount(root: Path, target: str, source: str = "volume", **more: t.Any) -> t.Any:
    return {"source": str(root.parent / source), "target": target, "type": "bind", **more}


def places(root: Path, *mounts: t.Any, check_mode: bool = False) -> tuple[t.Any, bool]:
    """The targets, and whether something was made."""
    found = provide_mount_points(str(root), list(mounts), check_mode)
    return [item["target"] for item in found.mounts], found.changed


def test_targets_are_found_and_made(root: Path) -> None:
    mounts = [
        mount(root, "/var/run/app"),
        mount(root, "/etc/hosts", "file"),
        mount(root, "/etc/new", "file", read_only=True),
        {"target": "/tmp", "type": "tmpfs", "source": None},
    ]
    wanted = ["/etc/hosts", "/etc/new", "/run/app", "/tmp"]
    assert places(root, *mounts, check_mode=True) == (wanted, True)
    assert not (root / "tmp").exists()
    assert places(root, *mounts) == (wanted, True)
    assert (root / "run/app").is_dir()
    assert (root / "tmp").is_dir()
    assert (root / "etc/new").is_file()
    assert places(root, *mounts) == (wanted, False)


def test_one_inside_of_another_is_made_in_that_ones_source(root: Path) -> None:
    mounts = [
        mount(root, "/run/data/etc/motd", "file"),
        mount(root, "/var/run/data"),
        {"target": "/var/run/data/tmp", "type": "tmpfs"},
        {"target": "/cache", "type": "tmpfs"},
        mount(root, "/cache/below"),
    ]
    targets, changed = places(root, *mounts)
    assert targets == ["/cache", "/cache/below", "/run/data", "/run/data/etc/motd", "/run/data/tmp"]
    assert changed
    assert (root.parent / "volume/etc/motd").is_file()
    assert (root.parent / "volume/tmp").is_dir()
    assert not list((root / "run/data").iterdir())
    assert not list((root / "cache").iterdir())
    assert places(root, *mounts) == (targets, False)


@pytest.mark.parametrize(
    ("target", "source", "says"),
    [
        ("/", "volume", "nothing can be mounted on /"),
        ("/var/..", "volume", "nothing can be mounted on /"),
        ("/etc/hosts", "volume", "is not a directory"),
        ("/etc", "file", "is not a file"),
        ("/etc/hosts/below", "volume", "file"),
        ("/run", "missing", "create it first"),
    ],
)
def test_what_cannot_be_mounted(root: Path, target: str, source: str, says: str) -> None:
    with pytest.raises(RootfsError, match=says):
        places(root, mount(root, target, source))


@pytest.mark.parametrize("is_file", [True, False])
def test_a_source_that_is_not_there_yet(root: Path, is_file: bool) -> None:
    found = provide_mount_points(str(root), [mount(root, "/new", "later", is_file=is_file)], False)
    assert found.mounts == [mount(root, "/new", "later")]
    assert (root / "new").is_file() is is_file


def test_two_on_one_place(root: Path) -> None:
    with pytest.raises(RootfsError, match="two mounts have the target '/run/app'"):
        places(root, mount(root, "/var/run/app"), mount(root, "/run/app"))


def test_directories_are_made_inside(root: Path) -> None:
    assert provide_directories(str(root), ["/var/run/work", "/run"], True) is True
    assert not (root / "run/work").exists()
    assert provide_directories(str(root), ["/var/run/work", "/run"], False) is True
    assert (root / "run/work").is_dir()
    assert provide_directories(str(root), ["/var/run/work", "/run"], False) is False
    with pytest.raises(RootfsError, match="file"):
        provide_directories(str(root), ["/etc/hosts/below"], False)


@pytest.mark.parametrize(
    ("target", "kind", "says"),
    [
        ("/proc", "bind", "is in /proc, which belongs to the runtime"),
        ("/run/../p/sys/", "bind", "which leads to '/proc/sys' in the root"),
        ("/proc/sys", "tmpfs", "is in /proc"),
        ("/sys", "tmpfs", "is in /sys"),
        ("/dev", "tmpfs", "is in /dev"),
        ("/d", "tmpfs", "is in /dev"),
    ],
)
@pytest.mark.parametrize("check_mode", [True, False])
def test_places_of_the_runtime(root: Path, target: str, kind: str, says: str, check_mode: bool) -> None:
    (root / "p").symlink_to("/proc")
    (root / "d").symlink_to("run/../dev")
    wanted = mount(root, target, type=kind)
    with pytest.raises(RootfsError, match=says):
        places(root, wanted, check_mode=check_mode)
    image = {**wanted, "from_image": True}
    found = provide_mount_points(str(root), [image, mount(root, "/run")], check_mode)
    assert [item["target"] for item in found.mounts] == ["/run"]
    assert len(found.ignored) == 1
    assert "is ignored" in found.ignored[0]
    assert not (root / "proc").exists()


def test_what_belongs_into_those_places(root: Path) -> None:
    mounts = [
        {"source": "/dev/null", "target": "/dev/fuse", "type": "bind"},
        {"source": "/sys/fs", "target": "/sys/fs", "type": "bind"},
        {"source": None, "target": "/dev/shm", "type": "tmpfs"},
        mount(root, "/development"),
    ]
    wanted = ["/dev/fuse", "/dev/shm", "/development", "/sys/fs"]
    assert places(root, *mounts) == (wanted, True)


@pytest.mark.parametrize("source", ["volume/below", "volume/below/deeper", "link", "volume/missing"])
def test_a_source_through_what_the_container_writes(root: Path, source: str) -> None:
    """It could put a link to any folder of the node there, before it starts the next time."""
    (root.parent / "etc").mkdir()
    (root.parent / "etc/deeper").mkdir()
    (root.parent / "volume/below").symlink_to(root.parent / "etc")
    (root.parent / "link").symlink_to("volume/below")
    mounts = [mount(root, "/run"), mount(root, "/etc", source)]
    with pytest.raises(RootfsError, match="which a container can write to"):
        places(root, *mounts)
    if source != "volume/missing":
        read_only = [mount(root, "/run", read_only=True), mounts[1]]
        assert places(root, *read_only)[0] == ["/etc", "/run"]


def test_a_source_in_the_root(root: Path) -> None:
    with pytest.raises(RootfsError, match="which a container can write to"):
        places(root, mount(root, "/run", "root/etc"))


@needs_root
def test_a_source_through_the_link_of_another_user(root: Path) -> None:
    theirs = root.parent / "theirs"
    theirs.mkdir()
    os.chown(theirs, 1000, 1000)
    (theirs / "link").symlink_to(root.parent / "volume")
    with pytest.raises(RootfsError, match="which another user can change"):
        places(root, mount(root, "/run", "theirs/link"))


@needs_root
def test_a_directory_that_is_swapped_when_it_is_made(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write to the directory above gets no directory of his own opened as the one that was made."""
    make = os.mkdir

    def swapped(name: bytes, mode: int, *, dir_fd: int) -> None:
        make(name, mode, dir_fd=dir_fd)
        os.rmdir(name, dir_fd=dir_fd)
        make(name, 0o777, dir_fd=dir_fd)
        os.chown(name, 1000, 1000, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", swapped)
    with pytest.raises(RootfsError, match="another user replaced the directory"):
        places(root, mount(root, "/run/new"))
    assert os.stat(root / "run/new").st_uid == 1000
