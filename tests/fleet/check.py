# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Starts a fleet on this machine, lets Ansible provision its nodes, and tells whether the promises were kept.

    check.py [--only NAME] [--list]

It needs root and ansible-core in the Python that runs it. Nothing is left of the fleet, however the program ends.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import typing as t

if __name__ == "__main__" and not __package__:
    # run as a script: be the member of a package that relative imports need
    sys.path[0] = os.path.abspath(__file__).rsplit(os.sep, 3)[0]
    __package__ = "tests.fleet"

from . import faults, packages, rolling, sending
from .fleet import FleetError
from .lab import Broken, Lab
from .namespaces import CannotEnter, enter

CHECKS: dict[str, t.Callable[[Lab], str]] = {
    check.__name__: check
    for check in (*sending.CHECKS, *faults.CHECKS, *rolling.CHECKS)
}


def main(arguments: t.Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 kept, 1 broken, 3 not possible here."""
    parser = argparse.ArgumentParser(description="Check the promises of a fleet.")
    parser.add_argument("--only", action="append", choices=CHECKS, metavar="NAME")
    parser.add_argument("--list", action="store_true", help="the names of the checks")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(CHECKS))
        return 0
    reason = _prevented()
    if reason:
        print(f"SKIPPED: {reason}")
        return 3
    try:
        folder = enter()
    except CannotEnter as error:
        print(f"SKIPPED: {error}")
        return 3
    return _run(folder, options.only or list(CHECKS))


def _prevented() -> str:
    if os.geteuid() != 0:
        return "a fleet needs root"
    missing = packages.install()
    return f"missing programs of {', '.join(missing)}" if missing else ""


def _run(folder: str, names: t.Sequence[str]) -> int:
    lab = Lab(folder)
    for remark in lab.remarks:
        print(remark, flush=True)
    broken = 0
    for name in names:
        began = time.monotonic()
        try:
            said = f"kept: {CHECKS[name](lab)}"
        except (Broken, FleetError) as error:
            said = f"BROKEN: {error}"
            broken += 1
        print(f"{name}, {time.monotonic() - began:.1f} s, {said}", flush=True)
    print(f"{len(names) - broken} kept\n{broken} broken", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
