# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run every example of the documentation as it stands, twice, with a failure in between if a step can fail.

    check.py [--list] [PAGE...]

Needs root, ansible-core in the Python that runs it, and a sandbox, which it enters by itself. Each page gets namespaces
of its own; when they end, nothing is left. Exit status: 0 all run, 1 broken, 3 not possible here.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t

if __name__ == "__main__" and not __package__:
    # run as a script: be the member of a package that relative imports need
    sys.path[0] = os.path.abspath(__file__).rsplit(os.sep, 3)[0]
    __package__ = "tests.examples"

from ..tools import confinement
from ..tools.removal import remove_below
from .extract import examples
from .node import Node
from .scenarios import Broken, Project, run_page

# Programs of Debian's packages that the examples or their node need.
_PROGRAMS = {"ip": "iproute2", "unshare": "util-linux", "openssl": "openssl", "lxc-start": "lxc"}
_AT_ONCE = 2
_NAMESPACES = ("--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")


def main(arguments: t.Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description="Run the examples of the documentation.")
    parser.add_argument("pages", nargs="*", metavar="PAGE")
    parser.add_argument("--list", action="store_true", help="the pages")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    pages = examples()
    if options.list:
        print("\n".join(pages))
        return 0
    if options.inside:
        return _inside(options.inside, options.pages[0])
    confinement.require()
    missing = [package for name, package in _PROGRAMS.items() if shutil.which(name) is None]
    if os.geteuid() or missing:
        print(f"SKIPPED: examples need root{' and ' if missing else ''}{', '.join(missing)}")
        return 3
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        kept = list(pool.map(_run, options.pages or pages))
    print(f"{kept.count(True)} pages run\n{kept.count(False)} broken", flush=True)
    return 0 if all(kept) else 1


def _run(page: str) -> bool:
    """Run a page in new namespaces."""
    began = time.monotonic()
    folder = tempfile.mkdtemp(prefix="hypervisor_oci_examples.", dir="/var/tmp")
    command = ["unshare", *_NAMESPACES, sys.executable, "-B", os.path.abspath(__file__), "--inside", folder, page]
    try:
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    finally:
        remove_below("/var/tmp", folder)
    print(f"{page}, {time.monotonic() - began:.0f} s: {done.stdout.strip()}", flush=True)
    return done.returncode == 0


def _inside(folder: str, page: str) -> int:
    """Run a page in the namespaces that ``_run`` made."""
    project = os.path.join(folder, "project")
    os.mkdir(project)
    try:
        print(run_page(Project(page, project, _collections(folder), Node(folder)), examples()[page]))
    except Broken as error:
        print(f"BROKEN: {error}")
        return 1
    return 0


def _collections(folder: str) -> str:
    """Return a folder of collections with this checkout."""
    path = os.path.join(folder, "collections", "ansible_collections", "hypervisor")
    os.makedirs(path)
    os.symlink(os.path.abspath(__file__).rsplit(os.sep, 3)[0], os.path.join(path, "oci"))
    return os.path.join(folder, "collections")


if __name__ == "__main__":
    sys.exit(main())
