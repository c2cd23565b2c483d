# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decompress zstd streams with the program zstd, where Python has no library (docs/behaviour.md, section 3)."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import typing as t

from .members import DecompressError
from .range_reader import CHUNK

# not PATH, which a task may set
_FOLDERS = "/usr/bin:/bin:/usr/local/bin"
# statistics and settings of the program are read from these
_ENVIRONMENT = {"LC_ALL": "C"}


def zstd_program() -> str | None:
    """Return the path of the program, or ``None`` if it is not installed."""
    return shutil.which("zstd", path=_FOLDERS)


def unzstd_by_program(chunks: t.Iterator[bytes], program: str, most_memory: int) -> t.Iterator[bytes]:
    """Yield the content of a zstd stream; frames may need ``most_memory`` bytes. Raises ``DecompressError``.

    The caller checks that ``chunks`` are frames of zstd alone, since the program reads other formats as well.
    """
    command = [program, "-d", "-c", "-q", "--no-sparse", f"--memory={most_memory}"]
    # run_command would hold all of the content in memory
    with subprocess.Popen(  # pylint: disable=ansible-bad-function
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", env=_ENVIRONMENT
    ) as process:
        try:
            yield from _exchange(process, chunks)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise DecompressError(
            "its zstd stream is damaged, ends too early, or needs a window of more than"
            f" {most_memory} bytes, a fixed limit (exit status {process.returncode} of {program})"
        )


def _exchange(process: subprocess.Popen[bytes], chunks: t.Iterator[bytes]) -> t.Iterator[bytes]:
    """Write the chunks to the program, and yield its output. Nothing is read ahead of what it takes."""
    stdin, stdout = t.cast("t.IO[bytes]", process.stdin), t.cast("t.IO[bytes]", process.stdout)
    os.set_blocking(stdin.fileno(), False)
    poll = select.poll()
    poll.register(stdin, select.POLLOUT)
    poll.register(stdout, select.POLLIN)
    rest: memoryview | None = memoryview(b"")
    while True:
        ready = {fd for fd, _events in poll.poll()}
        if rest is not None and stdin.fileno() in ready:
            rest = _write(stdin, rest, chunks)
            if rest is None:
                poll.unregister(stdin)
                stdin.close()
        if stdout.fileno() in ready:
            data = os.read(stdout.fileno(), CHUNK)
            if not data:
                return
            yield data


def _write(stdin: t.IO[bytes], rest: memoryview, chunks: t.Iterator[bytes]) -> memoryview | None:
    """Write as much as the program takes; return the rest, or ``None`` after the last chunk."""
    if not rest:
        chunk = next(chunks, None)
        if chunk is None:
            return None
        rest = memoryview(chunk)
    try:
        return rest[os.write(stdin.fileno(), rest) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        # it has found an error, which its exit status tells
        return None
