# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starts a fleet on this machine, lets Ansible provision its nodes, and tells whether the promises were kept.

    check.py [--only NAME] [--large] [--list] [--hold]

``--large`` interrupts transfers of 200 MB instead, which takes minutes.

It needs root and ansible-core in the Python that runs it. Nothing is left of the fleet, however the program ends.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import sys
import threading
import time
import typing as t

if __name__ == "__main__" and not __package__:
    # run as a script: be the member of a package that relative imports need
    sys.path[0] = os.path.abspath(__file__).rsplit(os.sep, 3)[0]
    __package__ = "tests.fleet"

from ..tools import confinement
from . import attacks, faults, fetching, packages, pulling, rolling, sending
from .fleet import FleetError
from .lab import Broken, Lab
from .namespaces import CannotEnter, enter

Check = t.Callable[[Lab], str]
# One group after the other; in a group one line beside the other, each with nodes of its own.
GROUPS: t.Sequence[t.Sequence[t.Sequence[Check]]] = (
    [sending.CHECKS],
    [fetching.CHECKS, pulling.CHECKS],
    [*faults.CHECKS[:-1], (*faults.CHECKS[-1], *attacks.CHECKS)],
    [rolling.CHECKS],
)
LARGE: t.Sequence[t.Sequence[t.Sequence[Check]]] = ([pulling.LARGE_CHECKS],)
# Of the links for these: a blob of 200 MB is to come in seconds.
_LARGE_RATE = "400mbit"
CHECKS = {check.__name__: check for group in GROUPS for line in group for check in line}


def main(arguments: t.Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 kept, 1 broken, 3 not possible here."""
    parser = argparse.ArgumentParser(description="Check the promises of a fleet.")
    parser.add_argument("--only", action="append", choices=CHECKS, metavar="NAME")
    parser.add_argument("--large", action="store_true", help="interrupt transfers of 200 MB, and check nothing else")
    parser.add_argument("--list", action="store_true", help="the names of the checks")
    parser.add_argument("--hold", action="store_true", help="start the fleet, and wait for a signal")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(CHECKS))
        return 0
    confinement.require()
    reason = _prevented()
    if reason:
        print(f"SKIPPED: {reason}")
        return 3
    try:
        folder = enter()
    except CannotEnter as error:
        print(f"SKIPPED: {error}")
        return 3
    try:
        lab = Lab(folder, _LARGE_RATE, _LARGE_RATE) if options.large else Lab(folder)
        if options.hold:
            print(f"holding {folder}", flush=True)
            threading.Event().wait()
        if options.large:
            return _run(lab, LARGE, [check.__name__ for line in LARGE[0] for check in line])
        return _run(lab, GROUPS, options.only or list(CHECKS))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _prevented() -> str:
    if os.geteuid() != 0:
        return "a fleet needs root"
    missing = packages.missing()
    return f"missing programs of {', '.join(missing)}" if missing else ""


def _run(lab: Lab, groups: t.Sequence[t.Sequence[t.Sequence[Check]]], names: t.Container[str]) -> int:
    for remark in lab.remarks:
        print(remark, flush=True)
    kept: list[bool] = []
    for group in groups:
        with concurrent.futures.ThreadPoolExecutor(len(group)) as pool:
            lines = [pool.submit(_line, lab, line, names) for line in group]
            kept += [one for line in lines for one in line.result()]
    print(f"{kept.count(True)} kept\n{kept.count(False)} broken", flush=True)
    return 0 if all(kept) else 1


def _line(lab: Lab, checks: t.Sequence[Check], names: t.Container[str]) -> list[bool]:
    return [_kept(lab, check) for check in checks if check.__name__ in names]


def _kept(lab: Lab, check: Check) -> bool:
    began = time.monotonic()
    broken = ""
    try:
        said = f"kept: {check(lab)}"
    except (Broken, FleetError) as error:
        broken = said = f"BROKEN: {error}"
    print(f"{check.__name__}, {time.monotonic() - began:.1f} s, {said}", flush=True)
    return not broken


if __name__ == "__main__":
    sys.exit(main())
