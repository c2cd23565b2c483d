# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which versions are tested with which, and where this machine has the interpreters."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys

# For each ansible-core: the Pythons of the nodes that units are run with, and those that it runs on itself.
NODES = {"2.19": ["3.8", "3.11"], "2.21": ["3.9", "3.13"]}
CONTROLLERS = {"2.19": ["3.13", "3.12", "3.11"], "2.21": ["3.14", "3.13", "3.12"]}


def interpreter_folders() -> list[str]:
    """Folders that hold real interpreters of pyenv.

    Its shims are no use: they fail wherever a version is not selected.
    """
    roots = [os.environ.get("PYENV_ROOT", ""), os.path.expanduser("~/.pyenv")]
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if os.path.basename(folder) == "shims":
            roots.append(os.path.dirname(folder))
        elif os.path.basename(os.path.dirname(os.path.dirname(folder))) == "versions":
            roots.append(os.path.dirname(os.path.dirname(os.path.dirname(folder))))
    folders: list[str] = []
    for root in dict.fromkeys(filter(None, roots)):
        folders += sorted(glob.glob(os.path.join(root, "versions", "3.*", "bin")))
    return folders


def find(version: str) -> str | None:
    """The path of a Python of this version that really runs."""
    path = os.environ.get("PATH", "").split(os.pathsep)
    for folder in [*interpreter_folders(), *path]:
        found = shutil.which(f"python{version}", path=folder)
        if found is not None and _runs(found, version):
            return found
    return None


def _runs(path: str, version: str) -> bool:
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run(
            [path, "-c", code], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() == version


def available(versions: list[str]) -> list[str]:
    """Those of the versions that this machine has."""
    return [version for version in versions if find(version) is not None]


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        print(wanted, find(wanted))
