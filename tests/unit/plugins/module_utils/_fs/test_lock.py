# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Locks that other runs have (docs/behaviour.md, section 7: ``lock_timeout``)."""

from __future__ import annotations

import fcntl
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.lock import await_lock


@pytest.fixture(name="files")
def fixture_files(tmp_path: Path) -> t.Iterator[tuple[int, int]]:
    """One file, opened by two runs."""
    path = tmp_path / "lock"
    path.touch()
    with open(path, "rb") as one, open(path, "rb") as other:
        yield one.fileno(), other.fileno()


def test_a_free_lock(files: tuple[int, int]) -> None:
    await_lock(files[0], 0, "waits")
    with pytest.raises(RootfsError) as caught:
        await_lock(files[1], 0.05, "works on x")
    assert caught.value.message == (
        "another run works on x and was not done after 0.05 seconds; wait for it or raise lock_timeout"
    )


def test_readers_do_not_wait_for_each_other(files: tuple[int, int]) -> None:
    for fd in files:
        await_lock(fd, 0, "reads", shared=True)
    with pytest.raises(RootfsError, match="not done after 0 seconds"):
        await_lock(files[0], 0, "reads")


def test_it_is_waited_for(files: tuple[int, int]) -> None:
    await_lock(files[0], 0, "works")
    timer = threading.Timer(0.2, fcntl.flock, (files[0], fcntl.LOCK_UN))
    timer.start()
    await_lock(files[1], 60, "works")
    timer.join()


def test_time_that_has_passed_counts(files: tuple[int, int]) -> None:
    await_lock(files[0], 0, "works")
    began = time.monotonic()
    with pytest.raises(RootfsError, match="not done after 60 seconds"):
        await_lock(files[1], 60, "works", since=began - 60)
    assert time.monotonic() - began < 30
