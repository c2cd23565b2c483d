# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads a file again and again until a sign is there; prints each content that it saw, once.

    watch.py FILE SIGN

It makes SIGN.begun when it has read the file once. A moment in which the file is missing ends it with an error.
"""

from __future__ import annotations

import os
import sys
import time


def main() -> int:
    """Watch; returns the exit status."""
    path, sign = sys.argv[1:]
    seen: set[str] = set()
    deadline = time.monotonic() + 60
    while not os.path.exists(sign):
        if time.monotonic() > deadline:
            sys.exit("no sign within a minute")
        with open(path, encoding="utf-8") as file:
            is_first = not seen
            seen.add(file.read().strip())
        if is_first:
            with open(f"{sign}.begun", "x", encoding="utf-8"):
                pass
    print("\n".join(sorted(seen)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
