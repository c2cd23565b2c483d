# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mount points in a root on disk (docs/behaviour.md, section 9)."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.mount_points import (
    provide_directories,
    provide_mount_points,
)


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
    return {
        "source": str(root.parent / source),
        "target": target,
        "type": "bind",
        **more,
    }


def places(root: Path, *mounts: t.Any, check_mode: bool = False) -> tuple[t.Any, bool]:
    """The targets, and whether something was made."""
    found, changed = provide_mount_points(str(root), list(mounts), check_mode)
    return [item["target"] for item in found], changed


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
    assert targets == [
        "/cache",
        "/cache/below",
        "/run/data",
        "/run/data/etc/motd",
        "/run/data/tmp",
    ]
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
        ("/etc/hosts", "volume", "is no directory"),
        ("/etc", "file", "is no file"),
        ("/etc/hosts/below", "volume", "file"),
        ("/run", "missing", "make it first"),
    ],
)
def test_what_cannot_be_mounted(
    root: Path, target: str, source: str, says: str
) -> None:
    with pytest.raises(RootfsError, match=says):
        places(root, mount(root, target, source))


@pytest.mark.parametrize("is_file", [True, False])
def test_a_source_that_is_not_there_yet(root: Path, is_file: bool) -> None:
    found, _changed = provide_mount_points(
        str(root), [mount(root, "/new", "later", is_file=is_file)], False
    )
    assert found == [mount(root, "/new", "later")]
    assert (root / "new").is_file() is is_file


def test_two_on_one_place(root: Path) -> None:
    with pytest.raises(RootfsError, match="two mounts lead to '/run/app'"):
        places(root, mount(root, "/var/run/app"), mount(root, "/run/app"))


def test_directories_are_made_inside(root: Path) -> None:
    assert provide_directories(str(root), ["/var/run/work", "/run"], True) is True
    assert not (root / "run/work").exists()
    assert provide_directories(str(root), ["/var/run/work", "/run"], False) is True
    assert (root / "run/work").is_dir()
    assert provide_directories(str(root), ["/var/run/work", "/run"], False) is False
    with pytest.raises(RootfsError, match="file"):
        provide_directories(str(root), ["/etc/hosts/below"], False)
