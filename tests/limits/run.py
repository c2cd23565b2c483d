# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the images that ask for too much at full size, and prints what each took.

    python3 tests/limits/run.py [--only WORDS] [--folder DIR] [--fast]

The collection must be importable, as C(make limits) sees to it. As root, on a machine with a few free GiB in C(DIR) (C(/dev/shm) where that is there).
"""

from __future__ import annotations

import argparse
import os
import sys

from ansible_collections.hypervisor.oci.tests.limits.cases import FAST, HEAVY, Case
from ansible_collections.hypervisor.oci.tests.limits.measure import (
    MIB,
    make_apart,
    measure,
)
from ansible_collections.hypervisor.oci.tests.tools.confinement import require
from ansible_collections.hypervisor.oci.tests.tools.removal import (
    make_folder,
    remove_folder,
)


def run(case: Case, folder: str | None) -> list[str]:
    """Run one case, print its figures, and return what is wrong with them."""
    base = make_folder("oci-limits-", folder)
    images = os.path.join(base, "images")
    os.mkdir(images)
    try:
        src = make_apart(case.make, images)
        found = measure(src, base, case.verb, **case.options)
    finally:
        remove_folder(base)
    print(
        f"{case.name}: {found.seconds:.1f} s, {found.memory / MIB:.0f} MiB;"
        f" {found.error or 'a tree'}",
        flush=True,
    )
    return [
        words
        for wrong, words in (
            (case.error not in found.error, f"no error with {case.error!r}"),
            (bool(found.error) != bool(case.error), "another outcome"),
            (bool(found.left), f"leftovers: {found.left}"),
            (found.memory > case.memory * MIB, f"more than {case.memory} MiB"),
            (found.seconds > case.seconds, f"more than {case.seconds} s"),
        )
        if wrong
    ]


def main() -> int:
    """0 where all is bounded."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="WORDS", default="", help="part of a name")
    parser.add_argument("--folder", default=None)
    parser.add_argument("--fast", action="store_true", help="the small ones instead")
    options = parser.parse_args()
    require()
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    failed = 0
    for case in FAST if options.fast else HEAVY:
        if options.only in case.name:
            for words in run(case, options.folder or shm):
                failed += 1
                print(f"  FAILED: {words}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
