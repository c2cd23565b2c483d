# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What may be a dest, and where its private folder lies (docs/behaviour.md, section 7)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError, show
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import dest_path
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest_path import DestPath, resolve_dest
from ansible_collections.hypervisor.oci.tests.unit.support import mounted, needs_root, needs_user


def refused(dest: str) -> str:
    """Why this is no dest."""
    with pytest.raises(RootfsError) as caught:
        resolve_dest(dest)
    return caught.value.message


# -- what must never be a dest


@pytest.mark.parametrize("dest", ["", "relative", "./x", "~/x", "\0", "/srv/a\0b"])
def test_no_absolute_path(dest: str) -> None:
    assert refused(dest) == f"dest {show(dest)} is not an absolute path; give one"


@pytest.mark.parametrize(
    "dest",
    [
        "/", "//", "/.", "/..", "/srv/.", "/srv/..", "/srv/../", "/etc", "/etc/", "//etc", "/./etc",
        "/srv/../etc", "/bin", "/boot", "/dev", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt",
        "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/usr/bin",
        "/usr/lib", "/usr/local", "/usr/sbin", "/usr/share", "/var/lib", "/var/log", "/var/tmp",
        "/var/lib/lxc", "/var/lib/machines",
        # and whatever lies below the first ones
        "/etc/ssh", "/etc/ssh/", "/usr/local/bin", "/usr/share/a/b", "/boot/grub", "/bin/x", "/lib64/x", "/dev/x",
        "/dev/shm", "/proc/1", "/proc/self/root", "/sys/fs", "/var/lib/dpkg", "/var/lib/dpkg/info", "/var/lib/apt/lists",
        "/var/lib/rpm", "/var/lib/systemd/timers", "/var/lib/hypervisor.oci", "/var/lib/hypervisor.oci/containers/web", "/var/lib/hypervisor.oci/bundles",
        "/var/lib/hypervisor.oci/containers/probe/rootfs", "/var/lib/hypervisor.oci/containers/web/probe/rootfs/x",
    ],
)  # fmt: skip
def test_directories_of_the_system(dest: str) -> None:
    """Section 7: ``/`` and the system's own directories are errors, however they are written."""
    assert refused(dest) == f"dest '{dest}' is a directory of the system; choose one for the container alone"


@pytest.mark.parametrize("name", ["etc", "usr", "srv", "etc/new", "var/lib/dpkg/x"])
def test_directories_of_the_system_behind_a_link(tmp_path: Path, name: str) -> None:
    os.symlink("/", tmp_path / "link")
    assert "is a directory of the system;" in refused(f"{tmp_path}/link/{name}")


@pytest.mark.parametrize(
    "dest",
    [
        "/srv/x",
        "/var/lib/lxc/web",
        "/var/lib/machines/web",
        "/etcetera",
        "/opt/x",
        "/var/lib/aptly",
        "/dev/shm/x",
        "/var/lib/hypervisor.oci/bundles/web/rootfs",
        "/var/lib/hypervisor.oci/containers/web/probe/rootfs",
    ],
)
def test_what_may_be_a_dest(dest: str) -> None:
    if os.path.realpath(os.path.dirname(dest)) != os.path.dirname(dest):
        pytest.skip("this machine has a link there")
    assert resolve_dest(dest).path == dest


def test_a_directory_that_contains_what_runs_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 7: on a controller, for example, the folder with the collections."""
    (tmp_path / "ansible/collections").mkdir(parents=True)
    os.symlink("ansible", tmp_path / "link")
    module = tmp_path / "ansible/collections/module.py"
    for owner, name in ((dest_path, "__file__"), (sys, "prefix")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, str(tmp_path / "link/collections/module.py"))
            for dest in ("ansible", "ansible/collections", "link/collections"):
                assert refused(f"{tmp_path}/{dest}") == (
                    f"dest '{tmp_path}/{dest}' contains '{module}', which runs this module;"
                    " choose one for the container alone"
                )
            assert resolve_dest(f"{tmp_path}/ansible/coll").name == "coll"


# -- resolving


def test_links_above_dest_are_the_administrators(tmp_path: Path) -> None:
    """Section 7: directories above dest may be links; it is one dest, by whatever path."""
    (tmp_path / "real" / "x").mkdir(parents=True)
    os.symlink("real", tmp_path / "link")
    found = [
        resolve_dest(f"{tmp_path}/{path}") for path in ("real/x", "link/x", "real/x/", "link//x///", "real/../link/./x")
    ]
    assert set(found) == {DestPath(f"{tmp_path}/real", "x", False)}


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
    assert refused(f"{tmp_path}/x") == ("'x' is a link or a file, not a directory; remove it or choose another path")


@pytest.mark.parametrize("kind", ["file", "loop"])
def test_a_parent_that_is_no_directory(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "a").touch()
    else:
        os.symlink("a", tmp_path / "a")
    assert refused(f"{tmp_path}/a/x") == (f"'{tmp_path}/a' is not a directory; remove it or choose another path")


@needs_root
def test_mount_points_are_told_by_the_kernel(tmp_path: Path, states: Path) -> None:
    """Section 7: also a bind mount of the same file system, which has the same device number."""
    for name in ("plain", "tmpfs", "bind"):
        (tmp_path / name).mkdir()
    with mounted(tmp_path / "tmpfs"), mounted(tmp_path / "bind", "--bind", str(tmp_path / "plain")):
        found = {name: resolve_dest(f"{tmp_path}/{name}").is_mount for name in ("plain", "tmpfs", "bind", "missing")}
        below = resolve_dest(f"{tmp_path}/tmpfs/x")
    assert found == {"plain": False, "tmpfs": True, "bind": True, "missing": False}
    assert not below.is_mount


# -- the private folder


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
