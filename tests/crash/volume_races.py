# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container that swaps directories of its root for links into the host while a volume is filled from it.

docs/behaviour.md, section 9: whatever is swapped, nothing outside of the root arrives in the volume.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import typing as t

from ansible_collections.hypervisor.oci.plugins.module_utils._fs.syscalls import exchange
from ansible_collections.hypervisor.oci.plugins.modules import oci_volume
from ansible_collections.hypervisor.oci.tests.tools.removal import remove_below

CANARY = "canary"
CHANGED = "changed meanwhile"
_FOLDERS = 40
_PATIENCE = 60


def make_root(root: str, outside: str) -> None:
    """A root with a folder ``data``, whose directories are to change places with links to ``outside``."""
    os.makedirs(outside, 0o700)
    with open(os.path.join(outside, CANARY), "w", encoding="utf-8") as file:
        file.write("the host's\n")
    os.chmod(file.name, 0o600)
    for number in range(_FOLDERS):
        folder = os.path.join(root, "data", f"d{number}")
        os.makedirs(folder)
        with open(os.path.join(folder, "file"), "w", encoding="utf-8") as file:
            file.write("the container's\n")
        os.symlink(outside, os.path.join(root, "data", f"l{number}"))


def start_swapping(root: str) -> int:
    """Swap directories and links until the process, whose number comes back, is killed; see ``stop``."""
    pid = os.fork()
    if pid:
        return pid
    parent = os.getppid()
    folder = os.open(os.path.join(root, "data"), os.O_RDONLY)
    while os.getppid() == parent:
        for number in range(_FOLDERS):
            exchange(folder, b"d%d" % number, folder, b"l%d" % number)
    os._exit(0)


def stop(pid: int) -> None:
    """End what ``start_swapping`` began."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def run_module(**params: t.Any) -> dict[str, t.Any]:
    """The module's result, from a process of its own."""
    known = {key: item for key, item in params.items() if key in _spec()}
    done = subprocess.run(
        [sys.executable, "-m", oci_volume.__name__],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": known}),
        capture_output=True,
        check=False,
        text=True,
        timeout=_PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    lines = done.stdout.splitlines() or [json.dumps({"msg": done.stderr})]
    result: dict[str, t.Any] = json.loads(lines[-1])
    return result


def _spec() -> t.Collection[str]:
    return oci_volume.ARGUMENT_SPEC


def canaries(volume: str) -> list[str]:
    """Where something of the host's lies in a volume; what is swapped meanwhile is not followed."""
    if not os.path.isdir(volume):
        return []
    return [folder for folder, _names, files, _fd in os.fwalk(volume) if CANARY in files]


def attack(folder: str, rounds: int) -> tuple[list[str], dict[str, int]]:
    """Fill a volume again and again; returns what arrived of the host's, and how often each message came.

    On a machine that has much to do, that goes on until a change was noticed, for ten times as many rounds at most.
    """
    root, outside = os.path.join(folder, "root"), os.path.join(folder, "outside")
    make_root(root, outside)
    pid = start_swapping(root)
    arrived: list[str] = []
    ends: dict[str, int] = {}
    try:
        for number in range(rounds * 10):
            if number >= rounds and CHANGED in ends:
                break
            volume = os.path.join(folder, f"volume{number}")
            result = run_module(path=volume, rootfs=root, target="/data", in_use="ignore")
            end = "filled" if result.get("changed") else result.get("msg", "")
            end = CHANGED if "while it was being copied" in end else end
            ends[end] = ends.get(end, 0) + 1
            arrived += canaries(volume)
            remove_below(folder, volume)
    finally:
        stop(pid)
    return arrived, ends
