# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is written is made durable meanwhile (docs/behaviour.md, section 7)."""

from __future__ import annotations

import errno
import threading
import time
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._fs import early_sync
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.early_sync import EarlySync


class Disk:
    """A file system that notes its syncs, each of which may take a while or fail."""

    def __init__(self) -> None:
        self.synced: list[int] = []
        self.busy = threading.Event()
        self.busy.set()
        self.error: OSError | None = None

    def sync(self, fd: int) -> None:
        """As syncfs."""
        self.busy.wait(10)
        self.synced.append(fd)
        if self.error is not None:
            raise self.error

    def wait(self, number: int) -> None:
        """Until so many syncs are done."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if len(self.synced) >= number:
                return
            time.sleep(0.005)
        pytest.fail("no sync came")


@pytest.fixture(name="disk")
def fixture_disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """One that is synced after every 10 bytes."""
    disk = Disk()
    monkeypatch.setattr(early_sync, "syncfs", disk.sync)
    monkeypatch.setattr(early_sync, "_STEP", 10)
    return disk


def _threads() -> int:
    return sum(thread.name == "early-sync" for thread in threading.enumerate())


def test_little_is_left_to_the_last_sync(disk: Disk) -> None:
    with EarlySync(7) as early:
        assert list(early.following([b"12345", b"1234"])) == [b"12345", b"1234"]
        assert _threads() == 0
    assert disk.synced == []


def test_every_so_many_bytes_over_all_layers(disk: Disk) -> None:
    with EarlySync(7) as early:
        for number in range(1, 4):
            chunks = early.following([b"12345", b"12345"])
            next(chunks)
            next(chunks)
            # the last chunk is not written before somebody wants another one
            time.sleep(0.02)
            assert len(disk.synced) == number - 1
            assert not list(chunks)
            disk.wait(number)
    assert disk.synced == [7, 7, 7]
    assert _threads() == 0


def test_a_slow_disk_holds_nobody_up(disk: Disk) -> None:
    disk.busy.clear()
    with EarlySync(7) as early:
        assert len(list(early.following([bytes(10)] * 50))) == 50
        assert disk.synced == []
        disk.busy.set()
        disk.wait(1)
    # what came meanwhile is one more
    assert len(disk.synced) <= 2
    assert _threads() == 0


def test_an_error_is_told_at_the_end(disk: Disk) -> None:
    """The last sync would not: the kernel tells it only once."""
    disk.error = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"), EarlySync(7) as early:
        list(early.following([bytes(10)] * 3))
        disk.wait(1)
    assert _threads() == 0


def test_another_error_goes_first(disk: Disk) -> None:
    disk.error = OSError(errno.EIO, "Input/output error")
    with pytest.raises(ValueError, match="first"), EarlySync(7) as early:
        list(early.following([bytes(10)] * 3))
        disk.wait(1)
        raise ValueError("first")
    assert _threads() == 0


def test_never_all_file_systems(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A C library without syncfs would sync them all."""
    monkeypatch.setattr(early_sync, "has_syncfs", lambda: False)
    with EarlySync(7) as early:
        chunks: list[t.Any] = list(early.following([bytes(10)] * 3))
    assert len(chunks) == 3
    assert disk.synced == []
