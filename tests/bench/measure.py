# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs pipelines of commands and writes down what they cost. It imports next to nothing on purpose.

    python3 -I -S measure.py REPORT COMMAND... [PIPE COMMAND...] [THEN COMMAND...]

A process inherits a part of the memory of whoever forks it, and the kernel's peak counts that; so a small
process forks, and what it adds (3 to 5 MiB) is measured by running ``true``. REPORT gets one line: wall
seconds, user seconds, system seconds, peak memory in KiB, and each exit status that is not 0.
"""

from __future__ import annotations

import os
import sys
import time

PIPE = "@pipe@"
THEN = "@then@"


def split(words: list[str], mark: str) -> list[list[str]]:
    """The words between the marks."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word == mark:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def start(commands: list[list[str]]) -> list[int]:
    """Start the commands, each reading what the one before it writes; returns their process ids."""
    pids = []
    source = os.open(os.devnull, os.O_RDONLY)
    for number, command in enumerate(commands):
        last = number == len(commands) - 1
        following, sink = (-1, -1) if last else os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(source, 0)
                if not last:
                    os.dup2(sink, 1)
                # all else was opened with O_CLOEXEC
                os.execvp(command[0], command)
            except OSError as error:
                os.write(2, f"{command[0]}: {error.strerror}\n".encode())
            finally:
                os._exit(127)
        pids.append(pid)
        os.close(source)
        if not last:
            os.close(sink)
        source = following
    return pids


def main(report: str, words: list[str]) -> None:
    """Run everything, one step after the other, failed or not: what a tool gets wrong is a result, too."""
    user = system = 0.0
    peak = 0
    failures = []
    begin = time.monotonic()
    for step in split(words, THEN):
        for pid in start(split(step, PIPE)):
            _pid, status, usage = os.wait4(pid, 0)
            user += usage.ru_utime
            system += usage.ru_stime
            peak = max(peak, usage.ru_maxrss)
            if status:
                # as a shell says it
                failures.append(status >> 8 or 128 + (status & 0x7F))
    wall = time.monotonic() - begin
    with open(report, "w", encoding="ascii") as file:
        print(wall, user, system, peak, *failures, file=file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
