# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether this process may run tests: root only in a sandbox, as ``sandbox.py`` makes it.

python3 confinement.py        exit status 0 if it may, else 3 and the reason
"""

from __future__ import annotations

import os
import re
import sys

# Present in a sandbox only, where /run is a new file system.
MARK = "/run/hypervisor.oci-tests"
# The variable with the reason, if commands run without a sandbox nevertheless.
REFUSED = "OCI_TESTS_NO_SANDBOX"
CANNOT = 3
# Where sandbox_root.py keeps what is changed below /.
_UPPER = re.compile(r"^upperdir=.*/\.nox/sandbox/layers-0/upper\Z")


def is_inside(mounts: str = "/proc/self/mountinfo") -> bool:
    """Return whether this process runs in a sandbox.

    The mark alone does not tell: whoever makes one by hand would let every test of this machine loose on it.
    """
    return os.path.isfile(MARK) and _root_is_a_view(mounts)


def _root_is_a_view(mounts: str) -> bool:
    """Return whether changes of the root file system go to a sandbox's folder."""
    root: list[str] = []
    with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            words = line.split()
            # the last one lies on top of the others
            if words[4] == "/":
                root = words
    kind, _device, options = root[-3:] if root else ("", "", "")
    return kind == "overlay" and any(_UPPER.search(option) for option in options.split(","))


def why_not_here() -> str:
    """Return why tests must not run in this process, empty if they may."""
    if os.geteuid() or is_inside():
        return ""
    return os.environ.get(REFUSED) or "root runs tests in a sandbox only: use make"


def require() -> None:
    """Start the program again in a sandbox if it must not run in this process, or end it if no sandbox can be made."""
    reason = why_not_here()
    if not reason:
        return
    if REFUSED in os.environ:
        print(f"SKIPPED: {reason}", flush=True)
        sys.exit(CANNOT)
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sandbox.py")
    words = [sys.executable, program, sys.executable, *sys.orig_argv[1:]]
    os.execv(sys.executable, words)


if __name__ == "__main__":
    _reason = why_not_here()
    print(_reason, end="\n" if _reason else "")
    sys.exit(CANNOT if _reason else 0)
