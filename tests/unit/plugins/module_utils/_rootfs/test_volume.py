# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes: outside of the root, filled once (docs/behaviour.md, section 9)."""

from __future__ import annotations

import os
import shutil
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.volume import (
    provide_volume,
)
from ansible_collections.hypervisor.oci.tests.unit.support import needs_root
from ansible_collections.hypervisor.oci.tests.tools.removal import remove_below


def copy_by_descriptor(source: int, target: int) -> None:
    """As C(cp) does it, but for what these tests do not look at."""
    shutil.copytree(
        f"/proc/self/fd/{source}/.",
        f"/proc/self/fd/{target}/.",
        symlinks=True,
        dirs_exist_ok=True,
    )


def refuse(_source: int, target: int) -> None:
    """Half of the content, and then the disk is full."""
    os.close(os.open("half", os.O_WRONLY | os.O_CREAT, dir_fd=target))
    raise OSError(28, "No space left on device")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "root"
    (top / "data/sub").mkdir(parents=True)
    (top / "data/sub/file").write_text("from the image\n")
    (top / "data").chmod(0o750)
    (top / "file").write_text("")
    (top / "secrets").symlink_to("/outside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("the host's")
    return top


def provide(root: Path, name: str = "volume", **changed: t.Any) -> bool:
    """One run over arguments that make something."""
    arguments: dict[str, t.Any] = {
        "path": str(root.parent / name),
        "rootfs": str(root),
        "target": "/data",
        "also_empty": False,
        "check_mode": False,
        "copy": copy_by_descriptor,
    }
    return provide_volume(**{**arguments, **changed})


def test_a_new_one_gets_the_content_of_the_image_once(root: Path) -> None:
    assert provide(root) is True
    volume = root.parent / "volume"
    assert (volume / "sub/file").read_text() == "from the image\n"
    assert stat.S_IMODE(volume.stat().st_mode) == 0o750
    remove_below(volume, volume / "sub")
    assert provide(root) is False
    assert list(volume.iterdir()) == []
    assert sorted(path.name for path in root.parent.iterdir()) == [
        "outside",
        "root",
        "volume",
    ]


def test_an_empty_one_is_filled_where_that_is_said(root: Path) -> None:
    (root.parent / "volume").mkdir()
    assert provide(root) is False
    assert provide(root, also_empty=True, check_mode=True) is True
    assert provide(root, also_empty=True) is True
    assert (root.parent / "volume/sub/file").exists()
    (root.parent / "volume/own").write_text("")
    remove_below(root.parent, root.parent / "volume/sub")
    assert provide(root, also_empty=True) is False


def test_what_the_image_has_not_is_an_empty_directory(root: Path) -> None:
    assert provide(root, target="/new/one") is True
    volume = root.parent / "volume"
    assert list(volume.iterdir()) == []
    assert stat.S_IMODE(volume.stat().st_mode) == 0o755
    assert not (root / "new").exists()


@needs_root
def test_it_belongs_to_the_root_s_owner(root: Path) -> None:
    os.chown(root, 100000, 100001)
    provide(root, target="/new/one")
    status = os.stat(root.parent / "volume")
    assert (status.st_uid, status.st_gid) == (100000, 100001)


def test_links_of_the_image_lead_to_nothing_of_the_host(root: Path) -> None:
    (root / "secrets").unlink()
    (root / "secrets").symlink_to(root.parent / "outside")
    assert provide(root, target="/secrets") is True
    assert list((root.parent / "volume").iterdir()) == []


def test_check_mode_makes_nothing(root: Path) -> None:
    assert provide(root, check_mode=True) is True
    assert not (root.parent / "volume").exists()


@pytest.mark.parametrize("name", ["volume", "new/volume", "empty"])
def test_a_failure_leaves_nothing_that_is_half_filled(root: Path, name: str) -> None:
    (root.parent / "empty").mkdir()
    with pytest.raises(RootfsError, match="no room left"):
        provide(root, name, copy=refuse, also_empty=True)
    assert list((root.parent / "empty").iterdir()) == []
    assert not list(root.parent.rglob("half"))
    assert not (root.parent / "volume").exists()


def test_parents_are_closed(root: Path) -> None:
    provide(root, "made/closed/volume")
    closed = root.parent / "made/closed"
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"target": "/file"}, "is a file"),
        ({"path": "volume"}, "not absolute"),
        ({"rootfs": "/nowhere"}, "nothing at"),
    ],
)
def test_what_cannot_be(root: Path, changed: dict[str, str], says: str) -> None:
    with pytest.raises(RootfsError, match=says):
        provide(root, **changed)
