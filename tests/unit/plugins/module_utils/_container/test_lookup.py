# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Paths of a container in a tree on disk, never out of it (docs/behaviour.md, section 9)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._container.lookup import look_up, make_missing, opened_root
from ansible_collections.hypervisor.oci.tests.unit.support import needs_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree whose links would all lead out of it, were they followed by the kernel."""
    top = tmp_path / "root"
    (top / "run/app").mkdir(parents=True)
    (top / "var").mkdir()
    (top / "var/run").symlink_to("/run")
    (top / "var/up").symlink_to("../../../../../../run")
    (top / "etc").mkdir()
    (top / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (top / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (top / "loop").symlink_to("loop")
    (tmp_path / "outside").mkdir()
    (top / "out").symlink_to(tmp_path / "outside")
    return top


@pytest.mark.parametrize(
    ("path", "leads_to", "missing", "is_directory"),
    [
        ("/run/app", "/run/app", 0, True),
        ("//run/./app/", "/run/app", 0, True),
        ("/var/run/app", "/run/app", 0, True),
        ("/var/up/app", "/run/app", 0, True),
        ("/../../run", "/run", 0, True),
        ("/", "/", 0, True),
        ("/etc/passwd", "/etc/passwd", 0, False),
        ("/etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf", 3, False),
        ("/var/run/new/er", "/run/new/er", 2, False),
    ],
)
def test_links_are_followed_inside(root: Path, path: str, leads_to: str, missing: int, is_directory: bool) -> None:
    with opened_root(str(root)) as fd, look_up(fd, path.encode()) as found:
        assert found.path.decode() == leads_to
        assert len(found.missing) == missing
        assert found.is_directory is is_directory


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/loop", "loop"),
        ("/etc/passwd/below", "file"),
        ("/new/../etc", "leads back"),
        ("/" + "x/" * 300, "levels deep"),
        ("/" + "run/../" * 10 + "loop/a", "loop"),
    ],
)
def test_paths_that_lead_nowhere(root: Path, path: str, says: str) -> None:
    with opened_root(str(root)) as fd, pytest.raises(RootfsError, match=says), look_up(fd, path.encode()):
        pass


def test_existing_levels_are_bounded_too(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _level in range(250):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    with opened_root(str(tmp_path)) as top, pytest.raises(RootfsError, match="deep"), look_up(top, b"d/" * 250):
        pass


def test_what_is_missing_is_made_inside(root: Path) -> None:
    with opened_root(str(root)) as fd:
        with look_up(fd, b"/out/made") as found:
            # the link's text is a path of the tree
            assert found.path == os.fsencode(str(root.parent / "outside")) + b"/made"
            make_missing(found, is_directory=True)
        with look_up(fd, b"/etc/resolv.conf") as found:
            make_missing(found, is_directory=False)
    assert not list((root.parent / "outside").iterdir())
    made = root / "run/systemd/resolve/stub-resolv.conf"
    assert made.read_bytes() == b""
    assert stat.S_IMODE(made.stat().st_mode) == 0o644
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o755


@needs_root
def test_what_is_made_belongs_to_the_owner_above(root: Path) -> None:
    os.chown(root / "run", 100000, 100001)
    with opened_root(str(root)) as fd, look_up(fd, b"/run/a/b") as found:
        make_missing(found, is_directory=True)
    for path in ("run/a", "run/a/b"):
        status = os.stat(root / path)
        assert (status.st_uid, status.st_gid) == (100000, 100001)


def test_nothing_is_made_below_a_file(root: Path) -> None:
    (root / "etc/link").symlink_to("passwd")
    with opened_root(str(root)) as fd, pytest.raises(RootfsError, match="file"), look_up(fd, b"/etc/link/new") as found:
        make_missing(found, is_directory=True)


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RootfsError, match="does not exist"), opened_root(str(tmp_path / "no")):
        pass
