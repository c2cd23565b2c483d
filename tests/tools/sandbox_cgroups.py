# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Control groups of a sandbox: one of its own in every hierarchy, removed with all below it at the end."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
from dataclasses import dataclass

from . import sandbox_root

TOP = "/sys/fs/cgroup"
_PATIENCE = 10


@dataclass(frozen=True)
class Groups:
    """The groups of one sandbox, by the mount of their hierarchy."""

    found: t.Mapping[sandbox_root.Mount, str]

    def enter(self) -> None:
        """Put this process into each."""
        for path in self.found.values():
            _write(f"{path}/cgroup.procs", str(os.getpid()))

    def settle(self) -> None:
        """Move on into a leaf, once this process's namespace has their root.

        A group of version 2 that has processes cannot give controllers to those below it, as runtimes want it to.
        """
        for item, path in self.found.items():
            if item.kind == "cgroup2":
                os.mkdir(f"{path}/tests")
                _write(f"{path}/tests/cgroup.procs", str(os.getpid()))

    def mount(self, top: str) -> None:
        """Mount the hierarchies as this process's control group namespace shows them."""
        if not self.found:
            return
        if all(item.path != TOP for item in self.found):
            sandbox_root.mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", top)
        for item in self.found:
            target = top + item.path[len(TOP) :]
            os.makedirs(target, exist_ok=True)
            options = [word for word in item.options.split(",") if item.kind == "cgroup" and word not in ("rw", "ro")]
            words = ["-o", ",".join(options)] if options else []
            sandbox_root.mount("-t", item.kind, *words, item.kind, target)
        with contextlib.suppress(FileNotFoundError):
            # cpu is a link to cpu,cpuacct on some machines
            for entry in os.scandir(TOP):
                if entry.is_symlink():
                    os.symlink(os.readlink(entry.path), f"{top}/{entry.name}")


@contextlib.contextmanager
def created(prefix: str) -> t.Iterator[Groups]:
    """Create a group in every hierarchy that can be written to: below this process's own, in version 2 at the top.

    Those of sandboxes whose process was killed are removed.
    """
    name = f"{prefix}{os.getpid()}"
    found = {}
    own = _own()
    try:
        for item in sandbox_root.mounts():
            if item.kind.startswith("cgroup") and item.path.startswith(TOP):
                above = own.get(_controllers(item), item.root)
                folder = os.path.join(item.path, os.path.relpath(above, item.root))
                _remove_dead(folder, prefix)
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    os.mkdir(path)
                    found[item] = path
                    _inherit(path)
        yield Groups(found)
    finally:
        for path in found.values():
            _remove(path)


def _remove_dead(folder: str, prefix: str) -> None:
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            pid = name[len(prefix) :]
            if name.startswith(prefix) and not os.path.exists(f"/proc/{pid}"):
                _remove(os.path.join(folder, name), 0)


def _own() -> dict[frozenset[str], str]:
    """Return the paths of this process's groups by their controllers."""
    lines = []
    path = "/proc/self/cgroup"
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    return {frozenset(names.split(",")): path for _number, names, path in lines if names}


def _controllers(item: sandbox_root.Mount) -> frozenset[str]:
    return frozenset(word for word in item.options.split(",") if word not in ("rw", "ro", "xattr"))


def _inherit(path: str) -> None:
    """Let a group of cpuset have processors and memory, without which it can have no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        with contextlib.suppress(FileNotFoundError):
            with open(f"{path}/../{name}", encoding="ascii") as file:
                text = file.read()
            if os.path.exists(f"{path}/cgroup.clone_children"):
                _write(f"{path}/{name}", text)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _remove(path: str, patience: float = _PATIENCE) -> None:
    """Remove a group and those below it, whose processes end."""
    deadline = time.monotonic() + patience
    for folder, _names, _files in os.walk(path, topdown=False):
        while True:
            try:
                os.rmdir(folder)
                break
            except OSError:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.05)
