# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the images that ask for too much at full size, and prints what each took.

    python3 tests/limits/run.py [--only WORDS] [--folder DIR] [--fast]

The collection must be importable, as ``make limits`` sees to it. As root, on a machine with a few free GiB in ``DIR`` (``/dev/shm`` where that is there).
"""

from __future__ import annotations

import argparse
import os
import sys

from ansible_collections.hypervisor.oci.tests.limits.cases import FAST, HEAVY, START_SECONDS, Case, exceeded
from ansible_collections.hypervisor.oci.tests.limits.measure import MIB, Measured, make_apart, measure
from ansible_collections.hypervisor.oci.tests.tools.confinement import require
from ansible_collections.hypervisor.oci.tests.tools.removal import make_folder, remove_folder


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
    print(line(case, found), flush=True)
    if found.error:
        print(f"    {found.error[:200]}", flush=True)
    return [
        words
        for wrong, words in (
            (case.error not in found.error, f"no error with {case.error!r}"),
            (bool(found.error) != bool(case.error), "another outcome"),
            (bool(found.left), f"leftovers: {found.left}"),
            *exceeded(case, found),
        )
        if wrong
    ]


def line(case: Case, found: Measured) -> str:
    """A row of the table."""
    stored, unpacked = found.stored / MIB, found.unpacked / MIB
    return (
        f"{case.name:<34}{stored:>9.2f}{unpacked:>10.1f}{found.seconds:>8.1f}{case.seconds:>7.0f}"
        f"{_rate(found.seconds, stored)}{_rate(found.seconds, unpacked)}"
        f"{found.memory / MIB:>7.0f}{case.memory:>7.0f}"
    )


def _rate(seconds: float, size: float) -> str:
    """Seconds for each MiB, above those that every image may take."""
    above = max(0.0, seconds - START_SECONDS)
    return f"{above / size:>9.3f}" if size > 0.01 else f"{'-':>9}"


_HEAD = (
    f"{'':<34}{'stored':>9}{'unpacked':>10}{'CPU':>8}{'bound':>7}{'CPU s a':>9}{'CPU s a':>9}{'peak':>7}{'bound':>7}\n"
    f"{'':<34}{'MiB':>9}{'MiB':>10}{'s':>8}{'s':>7}{'MiB st.':>9}{'MiB unp.':>9}{'MiB':>7}{'MiB':>7}"
)


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
    print(_HEAD, flush=True)
    for case in FAST if options.fast else HEAVY:
        if options.only in case.name:
            for words in run(case, options.folder or shm):
                failed += 1
                print(f"  FAILED: {words}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
