# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Others at work in the same place, for a moment (docs/behaviour.md, sections 4 and 7); ``tests/crash/races.py`` plays longer."""

from __future__ import annotations

import os
import signal
import time
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs import root
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import dest as locking
from ansible_collections.hypervisor.oci.plugins.module_utils._fs import removal
from ansible_collections.hypervisor.oci.tests.crash.laboratory import Broken, Laboratory
from ansible_collections.hypervisor.oci.tests.crash.races import (
    Outside,
    meet,
    play_attack,
    race_images,
    start_and_stop,
    wait_in_line,
)
from ansible_collections.hypervisor.oci.tests.crash.scenarios import Scenario
from ansible_collections.hypervisor.oci.tests.tools.removal import make_folder, remove_below, remove_folder

_PATIENCE = 60.0
_BELOW_MISSING = Scenario("waiting", {}, ("none",), "none", missing_parents=True)


@pytest.fixture(name="folder", scope="module")
def fixture_folder() -> t.Iterator[str]:
    """Where making durable costs nothing, if there is such a place; others may pass it."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = make_folder("oci_rootfs_unit.", shm)
    os.chmod(path, 0o755)
    yield path
    remove_folder(path)


@pytest.fixture(name="lab", scope="module")
def fixture_lab(folder: str) -> t.Iterator[Laboratory]:
    """Without mounts, which few may make: a dest inside is a plain directory that is treated as one."""
    lab = Laboratory(os.path.join(folder, "lab"), mounts=False, images=race_images())
    yield lab
    lab.close()


@pytest.fixture(name="outside")
def fixture_outside(folder: str) -> t.Iterator[Outside]:
    """A new one for each test."""
    outside = Outside(os.path.join(folder, "outside"))
    yield outside
    remove_below(folder, outside.path)


@pytest.mark.parametrize("name", ["staging", "mount", "old-tree", "parents"])
def test_nothing_outside_changes(lab: Laboratory, outside: Outside, name: str) -> None:
    """Directories are swapped for links that lead outside while a run works on them."""
    if name == "parents" and os.geteuid():
        pytest.skip("only root can let somebody else attack")
    figures = play_attack(lab, outside, name, _PATIENCE, 3)
    assert figures.startswith(f"{name}: 3 runs under ")
    assert "under 0 swaps" not in figures


def _following_links_while_unpacking() -> None:
    vars(root)["_DIRECTORY"] &= ~os.O_NOFOLLOW


def _following_links_while_removing() -> None:
    vars(removal)["_DIRECTORY"] &= ~os.O_NOFOLLOW
    vars(removal)["mount_id"] = lambda fd: 0
    vars(removal)["_unlink"] = _unlink_but_links


def _unlink_but_links(parent: int, name: bytes, _ours: bool) -> bool:
    try:
        if os.path.isdir(f"/proc/self/fd/{parent}/{os.fsdecode(name)}"):
            return False
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    return True


@pytest.mark.parametrize(
    "name, fault", [("staging", _following_links_while_unpacking), ("old-tree", _following_links_while_removing)]
)
def test_it_bites(lab: Laboratory, outside: Outside, name: str, fault: t.Callable[[], None]) -> None:
    """A product that follows links is found soon."""
    lab.fault = fault
    try:
        with pytest.raises(Broken, match="outside: "):
            play_attack(lab, outside, name, _PATIENCE, 50)
    finally:
        lab.fault = None


def test_runs_that_meet(lab: Laboratory) -> None:
    """Three at once on one dest: each does its work, and what is there in the end is one state."""
    assert meet(lab, _PATIENCE, 6).startswith("meet: 6 times")


def test_the_second_waits(lab: Laboratory) -> None:
    """So does a run in check mode; lock_timeout ends it."""
    wait_in_line(lab)


def test_what_is_waited_for_takes_the_folders_above_away(lab: Laboratory) -> None:
    """A run that fails removes the directories that it made above dest: the one that waited makes them anew."""
    lab.prepare(_BELOW_MISSING)
    try:
        failing = start_and_stop(lab, {"src": "bad"})
        waiting = lab.start({"src": "a", "lock_timeout": _PATIENCE})
        time.sleep(0.3)
        os.kill(failing.pid, signal.SIGCONT)
        errors = [outcome.error for run in (failing, waiting) for outcome in run.wait()]
        assert "has the diff_id" in errors[0]
        assert errors[1:] == [""]
        assert lab.found() == "a"
    finally:
        lab.clean()


def test_directories_that_another_makes_meanwhile(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs that make the same directories above dest do not stand in each other's way."""
    wanted = os.path.join(folder, "both", "make", "this")
    look = locking.open_existing
    answers: list[list[bytes]] = []

    def late(path: bytes) -> tuple[int, list[bytes]]:
        answer = look(path)
        if not answers:
            os.makedirs(wanted)
        answers.append(answer[1])
        return answer

    monkeypatch.setattr(locking, "open_existing", late)
    fd, made = locking._open_or_make(wanted, locking.Access(0o700), False)
    os.close(fd)
    assert made == []
    assert answers == [[b"both", b"make", b"this"], []]
