# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real software at work, and what a comparison with its image finds (docs/behaviour.md, section 17).

    run.py                              all of it
    run.py --only nginx --way tree      some of it (both may be repeated)
    run.py --archives FOLDER            keeps the images there, and uses those that are there

Images are built of Debian's packages, provisioned as trees, overlays and snapshots, and run. After each of the things that happen to
an untouched container, metadata and contents are compared. What is found where the software keeps its data is counted apart:
it has changed. Anything else is a false finding, and makes exit status 1. As root, with debootstrap, buildah, runc and systemd-nspawn.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
import typing as t
from dataclasses import dataclass

# an installed collection needs no PYTHONPATH
sys.path.insert(0, os.path.abspath(__file__).partition("/ansible_collections/")[0])

from ansible_collections.hypervisor.oci.plugins.module_utils._inventory.patterns import parse_pattern  # noqa: E402
from ansible_collections.hypervisor.oci.tests.drift.containers import container_of  # noqa: E402
from ansible_collections.hypervisor.oci.tests.drift.images import Builder  # noqa: E402
from ansible_collections.hypervisor.oci.tests.drift.places import WAYS, provisioned  # noqa: E402
from ansible_collections.hypervisor.oci.tests.drift.software import ALL, Software  # noqa: E402
from ansible_collections.hypervisor.oci.tests.drift.steps import STEPS, Subject  # noqa: E402
from ansible_collections.hypervisor.oci.tests.tools.confinement import require  # noqa: E402
from ansible_collections.hypervisor.oci.tests.tools.removal import made_folder  # noqa: E402

_NAMES = [software.name for software in ALL]
_LEVELS = ("metadata", "content")
_KINDS = ("missing", "extra", "changed")
_ROW = "{:<26}{:<9}{:<29}{:<10}{:>7}{:>7}{:>10}{:>6}{:>9}  {}"


@dataclass(frozen=True)
class Verified:
    """What one comparison found; ``false`` and ``data`` are lines."""

    software: str
    way: str
    step: str
    level: str
    verdict: str
    false: tuple[str, ...]
    data: tuple[str, ...]
    suspects: int
    busy: int
    seconds: float

    def row(self) -> str:
        """Return a row of the table."""
        return _ROW.format(
            self.software,
            self.way,
            self.step,
            self.level,
            len(self.false),
            len(self.data),
            self.suspects,
            self.busy,
            f"{self.seconds:.1f}",
            self.verdict,
        )


def verify(subject: Subject, way: str, step: str, level: str) -> Verified:
    """Compare, and tell data from what is false. Raises ``RuntimeError``."""
    began = time.monotonic()
    drift = subject.rootfs.verify(level)
    return judge(drift, subject.software, (way, step, level), time.monotonic() - began)


def judge(drift: t.Mapping[str, t.Any], software: Software, place: tuple[str, str, str], seconds: float) -> Verified:
    """Tell data from what is false; ``place`` is the way, the step and the level. Raises ``RuntimeError``."""
    if drift["reason"]:
        raise RuntimeError(drift["reason"])
    patterns = [parse_pattern(text) for text in software.data]
    data: list[str] = []
    false: list[str] = []
    for kind in _KINDS:
        files = drift[kind]["files"]
        if len(files) != drift[kind]["count"]:
            raise RuntimeError(f"{drift[kind]['count']} are {kind}, and not all are told")
        for found in files:
            is_data = any(pattern.matches(found["path"]) for pattern in patterns)
            line = f"{kind} {found['path']} {' '.join(found.get('differs', ()))}".rstrip()
            (data if is_data else false).append(line)
    counts = (drift["suspects"]["count"], drift["busy"]["count"])
    return Verified(software.name, *place, drift["verdict"], tuple(false), tuple(data), *counts, seconds)


def observe(folder: str, software: Software, src: str, way: str) -> t.Iterator[Verified]:
    """Provision and run an image, and compare after each step. Raises ``RuntimeError``."""
    with contextlib.ExitStack() as stack:
        rootfs = stack.enter_context(provisioned(folder, src, way))
        beside = stack.enter_context(made_folder("beside-", folder))
        container = container_of(software, beside, rootfs.path)
        stack.callback(container.stop)
        subject = Subject(software, rootfs, container, beside)
        stack.callback(subject.settle)
        for name, step in STEPS.items():
            step(subject)
            for level in _LEVELS:
                yield verify(subject, way, name, level)
            subject.settle()


class Told:
    """The table, and what is told below it."""

    def __init__(self) -> None:
        self._data: dict[str, None] = {}
        self._false: dict[str, None] = {}
        self._failures: list[str] = []
        head = ("software", "root", "after", "verify", "false", "data", "suspects", "busy", "seconds", "verdict")
        print(_ROW.format(*head), flush=True)

    def tell(self, found: Verified) -> None:
        """Print a row, and false findings that are new."""
        print(found.row(), flush=True)
        self._data.update(dict.fromkeys(f"{found.software}: {line}" for line in found.data))
        for line in found.false:
            told = f"false: {found.software}, {found.way}: {line}"
            if told not in self._false:
                print(told, flush=True)
                self._false[told] = None

    def fail(self, software: Software, way: str, error: Exception) -> None:
        """Print what could not be tried."""
        self._failures.append(f"FAILED: {software.name}, {way}: {error}")
        print(self._failures[-1], flush=True)

    def end(self) -> int:
        """Print the rest; returns the exit status."""
        for line in [*(f"data: {line}" for line in self._data), *self._false, *self._failures]:
            print(line)
        print(f"{len(self._false)} false findings, {len(self._failures)} that could not be tried")
        return 1 if self._false or self._failures else 0


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=_NAMES)
    parser.add_argument("--way", action="append", choices=WAYS)
    parser.add_argument("--archives")
    options = parser.parse_args()
    require()
    told = Told()
    with made_folder("oci-drift-", "/var/tmp") as folder:
        archives = options.archives or os.path.join(folder, "archives")
        os.makedirs(archives, exist_ok=True)
        with made_folder("build-", folder) as build:
            builder = Builder(build, archives)
            chosen = [software for software in ALL if software.name in (options.only or _NAMES)]
            sources = {software.name: builder.archive(software) for software in chosen}
        for software in chosen:
            for way in options.way or WAYS:
                try:
                    for found in observe(folder, software, sources[software.name], way):
                        told.tell(found)
                except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                    told.fail(software, way, error)
    return told.end()


if __name__ == "__main__":
    sys.exit(main())
