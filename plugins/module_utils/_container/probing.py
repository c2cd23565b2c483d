# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run one command in a container as a health check, and leave no process of it behind.

The command is a program of the node that joins the container, such as ``runc exec``. What it started inside does not end with
it. So each process gets a word in its environment that only checks of this container have, by which all that the check has
started are found and killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
import typing as t
from dataclasses import dataclass

from .._errors import RootfsError, os_phrase, show
from .._fs.descriptors import closed_on_error, opened

# What is kept of the output, its end.
_MOST_OUTPUT = 4096
# Processes that are started while others are killed: more than so many rounds are somebody's attack.
_ROUNDS = 50
_CHUNK = 65536
# How long the program of the node may take to end after what it started inside was killed.
_GRACE = 5.0


@dataclass(frozen=True)
class Probe:
    """One run of a check: its exit status, ``None`` if it timed out, the end of its output, and how many seconds it took."""

    status: int | None
    output: bytes
    seconds: float

    @property
    def succeeded(self) -> bool:
        """Whether the container said that it is well."""
        return self.status == 0

    def to_result(self) -> dict[str, t.Any]:
        """Return plain data; the output is the container's own."""
        return {
            "exit_status": self.status,
            "output": self.output.decode("utf-8", "replace"),
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True)
class Command:
    """A program of the node with its arguments, and what it reads.

    ``mark`` is the variable, as ``NAME=VALUE``, that the program puts into the environment of the check.
    """

    argv: tuple[str, ...]
    mark: str
    stdin: str = ""


def run_probe(command: Command, timeout: float) -> Probe:
    """Run a check for ``timeout`` seconds at most, and kill all that it has started. Raises ``RootfsError``."""
    begun = time.monotonic()
    with opened(_readable(command.stdin)) as stdin:
        process = _start(command.argv, stdin)
    try:
        output = _read(process, begun + timeout)
        status = process.poll()
    finally:
        _kill(process, command.mark.encode())
    return Probe(status, output, time.monotonic() - begun)


def _start(argv: tuple[str, ...], stdin: int) -> subprocess.Popen[bytes]:
    try:
        # nothing of Ansible's environment is for the container
        return subprocess.Popen(  # pylint: disable=ansible-bad-function,consider-using-with
            argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )
    except OSError as error:
        raise RootfsError(f"the health check cannot be run: {show(argv[0])}: {os_phrase(error)}") from error


def _readable(text: str) -> int:
    """Return a descriptor to read a text from, without a name on disk: it may hold a container's passwords."""
    if not text:
        # not /dev/null, of which crun would make a mapped user the owner
        reading, writing = os.pipe()
        os.close(writing)
        return reading
    with closed_on_error(os.memfd_create("check")) as fd:
        rest = text.encode("utf-8", "surrogateescape")
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _read(process: subprocess.Popen[bytes], end: float) -> bytes:
    """Return the end of the output, until the program has ended or the time is over.

    A process that the check leaves behind may hold the pipe open, so its end is not waited for.
    """
    stdout = t.cast("t.BinaryIO", process.stdout)
    os.set_blocking(stdout.fileno(), False)
    kept = b""
    while True:
        ended = process.poll() is not None
        chunk = _available(stdout.fileno())
        while chunk:
            kept = (kept + chunk)[-_MOST_OUTPUT:]
            if time.monotonic() >= end:
                return kept
            chunk = _available(stdout.fileno())
        if ended or time.monotonic() >= end:
            return kept
        select.select([] if chunk == b"" else [stdout], [], [], min(0.05, max(0.0, end - time.monotonic())))


def _available(fd: int) -> bytes | None:
    """Return what can be read now; nothing at the end, ``None`` if more may come."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return None


def _kill(process: subprocess.Popen[bytes], mark: bytes) -> None:
    """Kill what the check has started, and then the program of the node if that does not end by itself."""
    _kill_all(mark)
    try:
        process.wait(0.1 if process.poll() is None else None)
    except subprocess.TimeoutExpired:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        process.kill()
        process.wait()
        # on a busy node it may have started the check only now
        _kill_all(mark)
    t.cast("t.BinaryIO", process.stdout).close()


def _kill_all(mark: bytes) -> None:
    for _round in range(_ROUNDS):
        found = _marked(mark)
        for pid in found:
            _kill_marked(pid, mark)
        if not found:
            break
        time.sleep(0.01)


def _marked(mark: bytes) -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _has_mark(int(name), mark)]


def _has_mark(pid: int, mark: bytes) -> bool:
    """Return whether the mark is in a process's environment, of which a container decides how large it is."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read(4 * 1024 * 1024).split(b"\0")
    except OSError:
        # it has ended
        return False


def _kill_marked(pid: int, mark: bytes) -> None:
    """Kill a process, and never another one that has got its number meanwhile."""
    with contextlib.suppress(OSError):
        if not hasattr(os, "pidfd_open"):
            # Python 3.8; the number is looked at right before
            if _has_mark(pid, mark):
                os.kill(pid, signal.SIGKILL)
            return
        fd = os.pidfd_open(pid)
        try:
            if _has_mark(pid, mark):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)
