# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Crashes and errors at every call of some runs (docs/behaviour.md, section 7); ``tests/crash/run.py`` does all."""

from __future__ import annotations

import errno
import os
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import exchange as beside
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import dest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.record import PREPARED, Record
from ansible_collections.hypervisor.oci.plugins.module_utils._fs import removal
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.removal import Remains
from ansible_collections.hypervisor.oci.tests.crash.calls import AFTER, BEFORE, Calls
from ansible_collections.hypervisor.oci.tests.crash.laboratory import Laboratory
from ansible_collections.hypervisor.oci.tests.crash.run import Round, crash_at_random, crash_everywhere
from ansible_collections.hypervisor.oci.tests.crash.scenarios import by_name
from ansible_collections.hypervisor.oci.tests.tools.removal import make_folder, remove_folder

_DEATHS = (Round("deaths", BEFORE),)
_ERRORS = (Round("EIO", errno.EIO),)


@pytest.fixture(name="folder", scope="module")
def fixture_folder() -> t.Iterator[str]:
    """Where making durable costs nothing, if there is such a place."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = make_folder("oci_rootfs_unit.", shm)
    yield path
    remove_folder(path)


@pytest.fixture(name="lab", scope="module")
def fixture_lab(folder: str) -> t.Iterator[Laboratory]:
    """Without mounts, which few may make: a dest inside is a plain directory that is treated as one."""
    lab = Laboratory(os.path.join(folder, "lab"), mounts=False)
    yield lab
    lab.close()


def broken(lab: Laboratory, name: str, rounds: t.Iterable[Round], every: int = 1) -> list[str]:
    """What is not as promised."""
    failures: list[str] = []
    crash_everywhere(lab, by_name(name), rounds, failures, every)
    return failures


@pytest.mark.parametrize(
    "name, every",
    [
        ("staged-then-present", 1),
        ("previous", 1),
        ("first", 7),
        ("replace", 7),
        ("two-renames", 11),
        ("absent-with-staged", 5),
        ("inside", 11),
        ("inside-absent", 3),
    ],
)
def test_death_at_calls(lab: Laboratory, name: str, every: int) -> None:
    """The old tree or the new one, whole; never what passes and is not; the next run finishes and cleans up."""
    assert broken(lab, name, _DEATHS, every) == []


@pytest.mark.parametrize(
    "name, every", [("previous-two-renames", 1), ("force-two-renames", 7), ("inside", 11), ("inside-first", 5)]
)
def test_error_at_calls(lab: Laboratory, name: str, every: int) -> None:
    """A clean error, everything as it was, nothing left: private folders that could not be made included."""
    assert broken(lab, name, _ERRORS, every) == []


def test_error_while_private_folders_are_made(lab: Laboratory) -> None:
    """A folder that could be made but not closed to others does not stay."""
    for name in ("first", "inside-first"):
        for number in range(1, 6):
            lab.crash(by_name(name), Calls(number, errno.EIO), untouched=True)


def test_death_while_folders_above_are_made(lab: Laboratory) -> None:
    """They have their modes at once, so that no later run finds one closed that should not be."""
    scenario = by_name("first-below-missing-folders")
    for number in range(1, 6):
        for action in (BEFORE, AFTER):
            assert lab.crash(scenario, Calls(number, action)).killed


def test_random_instants(lab: Laboratory) -> None:
    """A few of them, on the large image."""
    failures: list[str] = []
    scenarios = [by_name("replace"), by_name("two-renames")]
    figures = crash_at_random(lab, scenarios, 6, 1, failures)
    assert failures == []
    assert figures.startswith("random: 6 instants")


# -- the harness finds what is wrong


def _old_trees_stay() -> None:
    vars(removal)["try_remove_tree"] = lambda parent, name: Remains()


def _prepared_is_not_recorded() -> None:
    save = dest.Dest.save

    def faulty(locked: dest.Dest, record: Record) -> None:
        if record.phase != PREPARED:
            save(locked, record)

    vars(beside)["Dest"].save = faulty


def _staged_before_it_is_filled() -> None:
    stage = beside.ExchangedDest.stage

    def faulty(steps: beside.ExchangedDest, record: Record) -> tuple[Record, int]:
        record, fd = stage(steps, record)
        os.close(fd)
        name = (record.next.name if record.next else "").encode()
        locked = vars(steps)["_dest"]
        os.rename(locked.name, name + b".old", src_dir_fd=locked.parent, dst_dir_fd=locked.state)
        os.rename(name, locked.name, src_dir_fd=locked.state, dst_dir_fd=locked.parent)
        return record, os.open(locked.name, os.O_RDONLY, dir_fd=locked.parent)

    vars(beside)["ExchangedDest"].stage = faulty


def _failed_stages_stay() -> None:
    vars(beside)["ExchangedDest"].abandon = lambda steps, record: record


@pytest.mark.parametrize(
    "fault, name, rounds",
    [
        (_old_trees_stay, "replace", _DEATHS),
        (_prepared_is_not_recorded, "replace", _DEATHS),
        (_staged_before_it_is_filled, "replace", _DEATHS),
        (_failed_stages_stay, "first", _ERRORS),
    ],
)
def test_it_bites(folder: str, fault: t.Callable[[], None], name: str, rounds: t.Sequence[Round]) -> None:
    """Faults put into the product in the crashed processes are found."""
    lab = Laboratory(os.path.join(folder, fault.__name__), mounts=False)
    try:
        lab.fault = fault
        assert broken(lab, name, rounds, 4) != []
    finally:
        lab.close()


def test_a_torn_write_is_half_a_write(folder: str) -> None:
    """Death in the midst of a write leaves half of it."""
    path = os.path.join(folder, "torn")
    pid = os.fork()
    if not pid:
        Calls(2, AFTER).install()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(fd, b"12345678")
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    with open(path, "rb") as file:
        assert file.read() == b"1234"


def test_calls_beyond_the_end_are_no_crashes(lab: Laboratory) -> None:
    """They must not pass for crashes that were survived."""
    assert not lab.crash(by_name("first"), Calls(10_000, BEFORE)).killed
