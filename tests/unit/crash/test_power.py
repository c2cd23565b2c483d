# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Losses of power under trees that share layers (docs/behaviour.md, section 16); ``tests/crash/run.py --power`` has all."""

from __future__ import annotations

import os
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import dest
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import layers
from ansible_collections.hypervisor.oci.plugins.module_utils._store import collection, store
from ansible_collections.hypervisor.oci.tests.crash.archives import sharing_images
from ansible_collections.hypervisor.oci.tests.crash.disks import BtrfsDisk, Disk, Skipped
from ansible_collections.hypervisor.oci.tests.crash.laboratory import Laboratory
from ansible_collections.hypervisor.oci.tests.crash.run import lose_power_everywhere
from ansible_collections.hypervisor.oci.tests.crash.scenarios import by_name
from ansible_collections.hypervisor.oci.tests.tools.removal import make_folder, remove_folder
from ansible_collections.hypervisor.oci.tests.unit.support import needs_root

pytestmark = needs_root


@pytest.fixture(name="folder", scope="module")
def fixture_folder() -> t.Iterator[str]:
    """Where making durable costs nothing, if there is such a place."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = make_folder("oci_rootfs_unit.", shm)
    yield path
    remove_folder(path)


@pytest.fixture(name="lab", scope="module")
def fixture_lab(folder: str) -> t.Iterator[Laboratory]:
    lab = Laboratory(os.path.join(folder, "lab"), True, sharing_images())
    yield lab
    lab.close()


@pytest.fixture(name="disk", scope="module", params=["overlay", "btrfs"])
def fixture_disk(folder: str, lab: Laboratory, request: pytest.FixtureRequest) -> t.Iterator[Disk]:
    try:
        disk = BtrfsDisk(folder) if request.param == "btrfs" else Disk(folder, 16 << 20)
    except Skipped as reason:
        pytest.skip(str(reason))
    with disk, lab.on(disk.path):
        lab.learn()
        yield disk


def broken(lab: Laboratory, disk: Disk, name: str, every: int) -> str:
    """What is not as promised."""
    failures: list[str] = []
    lose_power_everywhere(lab, disk, by_name(name), failures, every)
    return "\n".join(failures)


def test_a_few_losses(lab: Laboratory, disk: Disk) -> None:
    assert broken(lab, disk, "shared-update", 64) == ""


def _snapshots_are_not_synced() -> None:
    vars(store)["syncfs"] = lambda _fd: None


def _nobody_refers() -> None:
    vars(layers)["refer"] = lambda _store, _reference: None


def _stacks_are_not_listed() -> None:
    vars(dest)["Dest"]._note_stacks = lambda _locked, _inodes: None


def _drafts_stay() -> None:
    vars(collection)["_leftovers"] = lambda _contents, _referred: ()


@pytest.mark.parametrize(
    "disk, fault, name, every, says",
    [
        # btrfs has written most of it by itself
        ("overlay", _snapshots_are_not_synced, "shared-first", 61, "and of the store: ['the snapshot "),
        ("overlay", _nobody_refers, "shared-update", 1000, "nothing refers to "),
        ("overlay", _stacks_are_not_listed, "shared-update", 1000, "a container that starts in "),
        ("overlay", _drafts_stay, "shared-update", 61, "left over in the end: ['"),
        ("btrfs", _nobody_refers, "shared-update", 1000, "nothing refers to "),
        ("btrfs", _drafts_stay, "shared-update", 61, "left over in the end: ['"),
    ],
    indirect=["disk"],
)
def test_it_bites(lab: Laboratory, disk: Disk, fault: t.Callable[[], None], name: str, every: int, says: str) -> None:
    """Faults put into the product in the crashed processes are found."""
    lab.fault = fault
    try:
        assert says in broken(lab, disk, name, every)
    finally:
        lab.fault = None
