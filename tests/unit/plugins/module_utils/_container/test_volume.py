# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes: outside of the root, filled once (docs/behaviour.md, section 9)."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._container import copying
from ansible_collections.hypervisor.oci.plugins.module_utils._container.volume import Volume, provide_volume
from ansible_collections.hypervisor.oci.tests.unit.support import needs_root
from ansible_collections.hypervisor.oci.tests.tools.removal import remove_below


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


def volume_of(root: Path, name: str = "volume", **changed: t.Any) -> Volume:
    """Arguments that make something."""
    arguments: dict[str, t.Any] = {"path": str(root.parent / name), "rootfs": str(root), "target": "/data"}
    return Volume(**{**arguments, **changed})


def provide(root: Path, name: str = "volume", check_mode: bool = False, **changed: t.Any) -> bool:
    """One run; returns whether it changed something."""
    return provide_volume(volume_of(root, name, **changed), check_mode).changed


def test_a_new_one_gets_the_content_of_the_image_once(root: Path) -> None:
    assert provide(root) is True
    volume = root.parent / "volume"
    assert (volume / "sub/file").read_text() == "from the image\n"
    assert stat.S_IMODE(volume.stat().st_mode) == 0o750
    remove_below(volume, volume / "sub")
    assert provide(root) is False
    assert list(volume.iterdir()) == []
    assert sorted(path.name for path in root.parent.iterdir()) == ["outside", "root", "volume"]


def test_an_empty_one_is_filled_where_that_is_said(root: Path) -> None:
    (root.parent / "volume").mkdir()
    assert provide(root) is False
    assert provide(root, fill_empty=True, check_mode=True) is True
    assert provide(root, fill_empty=True) is True
    assert (root.parent / "volume/sub/file").exists()
    (root.parent / "volume/own").write_text("")
    remove_below(root.parent, root.parent / "volume/sub")
    assert provide(root, fill_empty=True) is False


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
def test_a_failure_leaves_nothing_that_is_half_filled(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (root.parent / "empty").mkdir()
    (root / "data/first").write_text("")

    def refuse(*_arguments: t.Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copying, "_copy_data", refuse)
    with pytest.raises(RootfsError, match="no room left"):
        provide(root, name, fill_empty=True)
    assert list((root.parent / "empty").iterdir()) == []
    assert sorted(path.name for path in root.parent.glob("*")) in (
        ["empty", "outside", "root"],
        ["empty", "new", "outside", "root"],
    )
    assert list((root.parent / "new").glob("*")) == []


def test_what_a_killed_run_left_is_no_content(root: Path) -> None:
    (root.parent / "volume/.oci_volume/tree").mkdir(parents=True)
    (root.parent / "volume/.oci_volume").chmod(0o700)
    assert provide(root, fill_empty=True) is True
    assert [path.name for path in (root.parent / "volume").iterdir()] == ["sub"]


@pytest.fixture
def user(root: Path) -> t.Iterator[None]:
    """A process that works in the root, as a container does."""
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        cwd=root / "data",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        if process.stdout is not None:
            process.stdout.readline()
        yield
        process.kill()


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("name", ["volume", "empty"])
def test_a_root_that_is_used_is_not_copied_from(root: Path, name: str, check_mode: bool) -> None:
    (root.parent / "empty").mkdir()
    with pytest.raises(RootfsError, match="in use by process"):
        provide(root, name, check_mode, fill_empty=True)
    assert not (root.parent / "volume").exists()
    assert list((root.parent / "empty").iterdir()) == []
    # nothing is copied for these
    assert provide(root, "other", check_mode, target="/new") is True
    assert provide(root, "empty", check_mode) is False
    assert provide(root, name, check_mode, fill_empty=True, ignore_users=True) is True


@pytest.mark.parametrize("path", ["root/inside", "volume/below/new", "link/new"])
def test_a_path_through_what_a_container_writes(root: Path, path: str) -> None:
    """It could put a link there, and a folder of the node's would be filled with what the container has."""
    (root.parent / "volume").mkdir()
    (root.parent / "volume/below").symlink_to(root.parent / "outside")
    (root.parent / "link").symlink_to("volume/below")
    with pytest.raises(RootfsError, match="which a container can write to"):
        provide(root, path, writable=(str(root.parent / "volume"),))
    assert [p.name for p in (root.parent / "outside").iterdir()] == ["secret"]
    assert not (root / "inside").exists()


@needs_root
def test_a_path_through_the_link_of_another_user(root: Path) -> None:
    theirs = root.parent / "theirs"
    theirs.mkdir()
    os.chown(theirs, 1000, 1000)
    (theirs / "link").symlink_to(root.parent / "outside")
    with pytest.raises(RootfsError, match="which another user can change"):
        provide(root, "theirs/link/new")
    (root.parent / "own").symlink_to("outside")
    assert provide(root, "own/new") is True
    assert (root.parent / "outside/new/sub").is_dir()


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("/proc", "'/proc' cannot be a volume: /proc belongs to the runtime"),
        ("//proc/self/../new/", "/proc belongs to the runtime"),
        ("/p", r"'/p' \(which leads to '/proc' in the root\) cannot be a volume"),
        ("/data/p/../devices", "/dev belongs to the runtime"),
        ("/r", "it is the root directory"),
        ("/data/..", "it is the root directory"),
    ],
)
def test_places_of_the_runtime(root: Path, target: str, says: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "p").symlink_to("proc")
    (root / "r").symlink_to("data/..")
    (root / "data/p").symlink_to("/")
    (root / "devices").symlink_to("/data/../../dev/mapper")
    with pytest.raises(RootfsError, match=says):
        provide(root, target=target)
    found = provide_volume(volume_of(root, target=target, from_image=True), False)
    assert found.changed is False
    assert found.ignored.startswith("a volume of the image is ignored: ")
    assert not (root.parent / "volume").exists()


def test_parents_are_closed(root: Path) -> None:
    provide(root, "made/closed/volume")
    closed = root.parent / "made/closed"
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_parents_that_another_run_makes_meanwhile(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = os.mkdir

    def made(path: t.Any, *arguments: t.Any, **more: t.Any) -> None:
        monkeypatch.setattr(os, "mkdir", make)
        (root.parent / "made/closed").mkdir(parents=True)
        make(path, *arguments, **more)

    monkeypatch.setattr(os, "mkdir", made)
    assert provide(root, "made/closed/volume") is True
    assert (root.parent / "made/closed/volume/sub/file").exists()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"target": "/file"}, "is a file"),
        ({"path": "volume"}, "not absolute"),
        ({"rootfs": "/nowhere"}, "does not exist"),
    ],
)
def test_what_cannot_be(root: Path, changed: dict[str, t.Any], says: str) -> None:
    with pytest.raises(RootfsError, match=says):
        provide(root, **changed)
