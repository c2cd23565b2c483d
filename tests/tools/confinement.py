# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether this process may run tests: root only in a sandbox, as ``sandbox.py`` makes it."""

from __future__ import annotations

import os
import sys

# Present in a sandbox only, where /run is a new file system.
MARK = "/run/hypervisor.oci-tests"
# Why there is none, for what runs without it all the same.
REFUSED = "OCI_TESTS_NO_SANDBOX"
CANNOT = 3


def is_inside() -> bool:
    """Return whether this process runs in a sandbox."""
    return os.path.isfile(MARK)


def why_not_here() -> str:
    """Return why tests must not run in this process, empty if they may."""
    if os.geteuid() or is_inside():
        return ""
    return os.environ.get(REFUSED) or "root runs tests in a sandbox only: use make"


def require() -> None:
    """Start the program again in a sandbox if it must not run in this process, or end it where there is none."""
    reason = why_not_here()
    if not reason:
        return
    if REFUSED in os.environ:
        print(f"SKIPPED: {reason}", flush=True)
        sys.exit(CANNOT)
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sandbox.py")
    words = [sys.executable, program, sys.executable, *sys.orig_argv[1:]]
    os.execv(sys.executable, words)
