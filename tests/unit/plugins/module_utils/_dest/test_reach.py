# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who can reach a directory (docs/behaviour.md, section 7)."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import reach
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.ids import IdMap, parse_id_map
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.reach import (
    MappedRoot,
    ReachRule,
    Spot,
    Way,
    everyone_passes,
    find_way,
    mapped_root,
)
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors
from ansible_collections.hypervisor.oci.tests.unit.support import needs_root

ROOT = MappedRoot(100000, 100001)


@pytest.fixture(autouse=True)
def fixture_open_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies above the test is as open as it gets."""
    real = os.fstat
    outside = {os.stat(path).st_ino for path in (tmp_path, *tmp_path.parents)}

    def open_above(fd: int) -> os.stat_result:
        status = real(fd)
        if status.st_ino not in outside:
            return status
        return os.stat_result([status.st_mode | 0o001, *status[1:]])

    monkeypatch.setattr(os, "fstat", open_above)


def make(tmp_path: Path, *modes: int) -> Path:
    """A directory of each mode in the one before: a, a/b, a/b/c."""
    path = tmp_path
    for name in "abc"[: len(modes)]:
        path = path / name
        path.mkdir()
    for mode, made in zip(reversed(modes), (path, *path.parents)):
        os.chmod(made, mode)
    return path


@contextlib.contextmanager
def opened(path: Path) -> t.Iterator[int]:
    fd = os.open(path, os.O_PATH)
    try:
        yield fd
    finally:
        os.close(fd)


def way_to(path: Path, root: MappedRoot | None = None) -> Way | None:
    before = open_descriptors()
    with opened(path) as fd:
        found = find_way(fd, str(path), root)
    assert open_descriptors() == before
    return found


def acl(path: Path, *entries: str) -> None:
    """Skips the test where there are no ACLs."""
    done = subprocess.run(["setfacl", "-m", ",".join(entries), path], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no ACLs here: {done.stderr.decode().strip()}")


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ((0o711, 0o711, 0o711), True),
        ((0o755, 0o755, 0o700), False),
        ((0o755, 0o700, 0o755), False),
        ((0o700, 0o755, 0o755), False),
        ((0o744, 0o755, 0o755), False),
        ((0o1777, 0o701, 0o755), True),
    ],
)
def test_the_bits_for_others(tmp_path: Path, modes: tuple[int, ...], expected: bool) -> None:
    path = make(tmp_path, *modes)
    try:
        way = Way(str(path), "every user") if expected else None
        assert way_to(path) == way
        with opened(path) as fd:
            assert everyone_passes(fd) is expected
    finally:
        os.chmod(tmp_path / "a", 0o700)


@needs_root
@pytest.mark.parametrize(
    ("mode", "owner", "who"),
    [
        (0o710, (0, 0), None),
        (0o710, (0, 50), "group 50"),
        (0o760, (0, 50), None),
        (0o2770, (0, 50), "group 50"),
        (0o700, (1000, 0), "user 1000, the owner,"),
        # who owns it can open it
        (0o000, (1000, 0), "user 1000, the owner,"),
        (0o711, (1000, 50), "every user"),
        (0o710, (0, ROOT.gid), "group 100001"),
        (0o700, (ROOT.uid, 0), "user 100000, the owner,"),
    ],
)
def test_groups_and_owners(tmp_path: Path, mode: int, owner: tuple[int, int], who: str | None) -> None:
    path = make(tmp_path, 0o755, 0o755, 0o755)
    os.chown(path.parent, *owner)
    os.chmod(path.parent, mode)
    # the nearest one that lets only some pass
    folder = path if who == "every user" else path.parent
    assert way_to(path) == (None if who is None else Way(str(folder), who))
    with opened(path) as fd:
        assert everyone_passes(fd) is bool(mode & 1)


@needs_root
def test_the_root_of_the_map_is_no_stranger(tmp_path: Path) -> None:
    path = make(tmp_path, 0o755, 0o710)
    os.chown(path, ROOT.uid, ROOT.gid)
    assert way_to(path, ROOT) is None
    assert way_to(path, MappedRoot(ROOT.uid, 7)) == Way(str(path), "group 100001")
    assert way_to(path, MappedRoot(7, ROOT.gid)) == Way(str(path), "user 100000, the owner,")
    # others of the same map are
    os.chown(path, 0, ROOT.gid + 1)
    assert way_to(path, ROOT) == Way(str(path), "group 100002")


@needs_root
@pytest.mark.parametrize(
    ("entries", "who"),
    [
        (["u:1000:x"], "user 1000"),
        (["u:1000:rw"], None),
        (["g:50:rx"], "group 50"),
        (["g:0:rx"], None),
        (["u:1000:x", "m::r"], None),
        (["g::x", "m::x"], None),
        (["o::x"], "every user"),
        (["u:100000:x", "g:100001:x"], "user 100000"),
    ],
)
def test_acls(tmp_path: Path, entries: list[str], who: str | None) -> None:
    path = make(tmp_path, 0o700)
    acl(path, *entries)
    assert way_to(path) == (None if who is None else Way(str(path), who))
    if "100000" in (who or ""):
        assert way_to(path, ROOT) is None


@needs_root
def test_the_owning_group_of_an_acl(tmp_path: Path) -> None:
    """The bits of the group are the mask then, and say nothing of the group itself."""
    path = make(tmp_path, 0o700)
    os.chown(path, 0, 50)
    acl(path, "u:0:x")
    assert os.stat(path).st_mode & stat.S_IXGRP
    assert way_to(path) is None
    acl(path, "g::x")
    assert way_to(path) == Way(str(path), "group 50")


def test_an_acl_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file system in user space."""
    path = make(tmp_path, 0o700)
    monkeypatch.setattr(os, "getxattr", lambda *_args: b"\x02")
    assert way_to(path) == Way(str(path), "every user")


@needs_root
def test_the_nearest_folder_for_some_is_named(tmp_path: Path) -> None:
    path = make(tmp_path, 0o710, 0o710, 0o755)
    os.chown(tmp_path / "a", 0, 50)
    os.chown(tmp_path / "a/b", 0, 60)
    assert way_to(path) == Way(str(tmp_path / "a/b"), "group 60")


def test_an_ordinary_user_may_reach_his_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, 0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(path).st_uid)
    assert way_to(path) is None


@pytest.mark.parametrize(
    ("uids", "gids", "expected"),
    [
        (["0:100000:10"], ["0:200000:10"], MappedRoot(100000, 200000)),
        (["0:100000:1", "1:5:9"], ["5:7:1", "0:8:5"], MappedRoot(100000, 8)),
        (["1:100000:10"], ["0:200000:10"], None),
        ([], [], None),
    ],
)
def test_the_root_of_a_map(uids: list[str], gids: list[str], expected: MappedRoot | None) -> None:
    maps: list[IdMap] = [parse_id_map("uid", uids), parse_id_map("gid", gids)]
    assert mapped_root(*maps) == expected


# -- the rule


@pytest.fixture(name="spot")
def fixture_spot(tmp_path: Path) -> t.Iterator[Spot]:
    """A place that every user can reach."""
    path = make(tmp_path, 0o755)
    with opened(path) as fd:
        yield Spot("dest", f"{path}/web", fd, str(path))


def test_choices(spot: Spot) -> None:
    rights = {"setid_files": 2, "devices_created": 1, "capabilities": 0, "else": 9}
    seen = f"every user can reach '{spot.path}' through '{spot.folder}'"
    advice = (
        f"close '{spot.folder}' to all but root (chown root:root, chmod 0700), choose another dest,"
        " or set reachable: warn or allow"
    )
    sentence = f"{seen}, and the image has 2 setuid or setgid files, 1 device nodes; {advice}"  # fmt: skip
    with pytest.raises(RootfsError) as caught:
        ReachRule().judge(spot, rights, True)
    assert caught.value.message == sentence
    assert ReachRule().judge(spot, rights, False) == [sentence]
    assert ReachRule("warn").judge(spot, rights, True) == [sentence]
    assert ReachRule("allow").judge(spot, rights, True) == []
    for choice, word in (("fail", "be refused"), ("warn", "cause a warning")):
        assert ReachRule(choice).judge(spot, None, True) == [
            f"{seen}; an image with setuid or setgid files, capabilities or device nodes would"
            f" {word} there: {advice}"
        ]
    assert ReachRule("allow").judge(spot, None, True) == []


@pytest.mark.parametrize("rights", [{}, {"setid_files": 0}, {"whiteouts": 1}])
def test_nothing_to_keep_away(spot: Spot, rights: dict[str, int]) -> None:
    assert ReachRule().judge(spot, rights, True) == []


def test_a_folder_that_is_not_there_yet(spot: Spot) -> None:
    """It is made closed."""
    nowhere = Spot("dest", spot.path, -1, spot.folder)
    assert ReachRule().judge(nowhere, {"setid_files": 1}, True) == []


def test_advice_for_a_map(spot: Spot) -> None:
    (warning,) = ReachRule("warn", ROOT).judge(spot, {"capabilities": 1}, True)
    assert f"close '{spot.folder}' to all but the container's root (chown root:100001, chmod 0710)" in warning
    assert reach.CHOICES == ["fail", "warn", "allow"]
