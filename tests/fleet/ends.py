# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starts two fleets at once and ends them in two ways, Ctrl-C and SIGKILL: nothing may be left of either.

Prints what was left, and ends with 1 if anything was; with 3 where there can be no fleet.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import typing as t
from dataclasses import dataclass

_HERE = os.path.dirname(os.path.abspath(__file__))
_PATIENCE = 60


@dataclass(frozen=True)
class Held:
    """A fleet at rest: its process outside, its folder, and the network namespaces of all that runs in it."""

    process: subprocess.Popen[str]
    folder: str
    networks: frozenset[str]


def start() -> Held | None:
    """A fleet that waits for a signal; nothing where there can be none."""
    process = subprocess.Popen(
        [sys.executable, "-B", os.path.join(_HERE, "check.py"), "--hold"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stdout or ():
        print(line, end="")
        if line.startswith("holding "):
            networks = frozenset(map(_network, _descendants(process.pid)))
            own = {_network(os.getpid()), ""}
            return Held(process, line.split()[1], networks - own)
    process.wait(_PATIENCE)
    return None


def _descendants(pid: int) -> t.Iterator[int]:
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
            children = [int(word) for word in file.read().split()]
        for child in children:
            yield child
            yield from _descendants(child)


def _network(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


def _lines(path: str, text: str) -> list[str]:
    with open(path, encoding="utf-8", errors="replace") as file:
        return [line for line in file if text in line]


def remains(fleet: Held) -> list[str]:
    """Processes in its namespaces, mounts, loop devices: what has its mark."""
    found = [f"process {pid}" for pid in os.listdir("/proc") if pid.isdigit() and _network(int(pid)) in fleet.networks]
    found += _lines("/proc/self/mountinfo", fleet.folder)
    for name in os.listdir("/sys/block"):
        backing = f"/sys/block/{name}/loop/backing_file"
        if os.path.exists(backing):
            found += [f"{name}: {line}" for line in _lines(backing, fleet.folder)]
    return found


def _end(fleet: Held, number: signal.Signals) -> list[str]:
    fleet.process.send_signal(number)
    fleet.process.wait(_PATIENCE)
    if fleet.process.stdout is not None:
        fleet.process.stdout.close()
    deadline = time.monotonic() + _PATIENCE
    # the kernel takes namespaces apart in the background
    while remains(fleet) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = remains(fleet)
    if number == signal.SIGKILL:
        # the empty folder is what a process that is killed cannot remove
        os.rmdir(fleet.folder)
    if os.path.exists(fleet.folder):
        left.append(fleet.folder)
    return left


def main() -> int:
    """The command line."""
    fleets = [start(), start()]
    held = [fleet for fleet in fleets if fleet is not None]
    if len(held) < len(fleets):
        return 3
    left: list[str] = []
    if not all(fleet.networks for fleet in held) or not all(map(remains, held)):
        left.append("no way to see what runs in a fleet: this check proves nothing")
    for fleet, number in zip(held, (signal.SIGINT, signal.SIGKILL)):
        left += _end(fleet, number)
    print("\n".join(left) or "nothing is left")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
