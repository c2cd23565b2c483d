# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""System calls that Python has no function for."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._fs import syscalls


@pytest.fixture
def above(tmp_path: Path) -> t.Iterator[int]:
    """The directory of the test, open."""
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def exchange_or_skip(*arguments: t.Any) -> None:
    """Skip where the file system of the tests cannot exchange."""
    try:
        syscalls.exchange(*arguments)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EXDEV):
            raise
        pytest.skip(f"names cannot be exchanged here: {error}")


class _NoWrappers:
    """A C library without the functions of recent ones."""

    def __init__(self, real: t.Any) -> None:
        self.syscall = real.syscall


@pytest.mark.parametrize("library", ["recent", "old"])
def test_exchange(tmp_path: Path, above: int, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """Section 7, replacing: both names swap at once; also where the C library has no wrapper."""
    if library == "old":
        monkeypatch.setattr(syscalls, "_libc", _NoWrappers(syscalls._libc))
    (tmp_path / "a/in a").mkdir(parents=True)
    (tmp_path / "b/in b").mkdir(parents=True)
    exchange_or_skip(above, b"a", above, b"b")
    assert os.listdir(tmp_path / "a") == ["in b"]
    assert os.listdir(tmp_path / "b") == ["in a"]
    with pytest.raises(FileNotFoundError):
        syscalls.exchange(above, b"a", above, b"missing")


def test_rename_never_replaces(tmp_path: Path, above: int) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    try:
        with pytest.raises(FileExistsError):
            syscalls.rename_new(above, b"a", above, b"b")
    except OSError as error:
        pytest.skip(f"renameat2 cannot be had here: {error}")
    syscalls.rename_new(above, b"a", above, b"c")
    assert sorted(os.listdir(tmp_path)) == ["b", "c"]


def test_a_machine_whose_number_is_not_known(above: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_libc", _NoWrappers(syscalls._libc))
    monkeypatch.setattr(syscalls.platform, "machine", lambda: "abacus")
    with pytest.raises(OSError, match="not implemented") as caught:
        syscalls.exchange(above, b"a", above, b"b")
    assert caught.value.errno == errno.ENOSYS


def test_a_birth_time_lies_in_the_past(tmp_path: Path) -> None:
    before = time.time_ns() - 2 * 10**9
    (tmp_path / "a").mkdir()
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    try:
        born = syscalls.birth_time(fd)
        if born is None:
            pytest.skip("this file system does not tell birth times")
        seconds, _dot, nanoseconds = born.partition(".")
        assert len(nanoseconds) == 9
        assert before <= int(seconds + nanoseconds) <= time.time_ns() + 2 * 10**9
        os.utime(fd, ns=(0, 0))
        os.fchmod(fd, 0o500)
        assert syscalls.birth_time(fd) == born
    finally:
        os.close(fd)


def test_a_birth_time_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    assert syscalls.birth_time(-1) is None
    monkeypatch.setattr(syscalls, "_libc", _NoWrappers(syscalls._libc))
    assert syscalls.birth_time(0) is None


def test_mounts_have_numbers(tmp_path: Path, above: int) -> None:
    (tmp_path / "a").mkdir()
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    proc = os.open("/proc", os.O_RDONLY)
    try:
        assert syscalls.mount_id(fd) == syscalls.mount_id(above)
        assert syscalls.mount_id(proc) != syscalls.mount_id(above)
    finally:
        os.close(fd)
        os.close(proc)


def test_syncfs(above: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of it is lost data, and so must be raised."""
    with pytest.raises(OSError, match="descriptor") as caught:
        syscalls.syncfs(-1)
    assert caught.value.errno == errno.EBADF
    called: list[str] = []
    monkeypatch.setattr(syscalls, "_libc", _NoWrappers(syscalls._libc))
    monkeypatch.setattr(os, "sync", lambda: called.append("sync"))
    syscalls.syncfs(above)
    assert called == ["sync"]


_FREES = """
import resource, sys, threading
{before}
def work():
    for _turn in range(64):
        pieces = [bytearray(256 * 1024) for _piece in range(16)]
        del pieces
thread = threading.Thread(target=work)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept() -> None:
    """What a thread frees and takes again costs page faults once, not each time."""

    def faults(before: str) -> int:
        ran = subprocess.run(
            [sys.executable, "-c", _FREES.format(before=before)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
        )
        return int(ran.stdout)

    kept = faults(f"from {syscalls.__name__} import keep_freed_memory; keep_freed_memory()")
    # 4 MiB in pages, and what the interpreter itself takes
    assert kept < 3 * 1024
    assert faults("") > 4 * kept


def test_memory_cannot_be_kept_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_libc", object())
    syscalls.keep_freed_memory()
