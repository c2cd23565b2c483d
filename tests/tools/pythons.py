# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which versions are tested with which, and where this machine has the interpreters."""

from __future__ import annotations

import functools
import glob
import os
import pwd
import shutil
import subprocess
import typing as t

# For each ansible-core: the Pythons of the nodes that units are run with, and those that it runs on itself.
NODES = {"2.19": ["3.8", "3.11"], "2.21": ["3.9", "3.13"]}
CONTROLLERS = {"2.19": ["3.11", "3.12", "3.13"], "2.21": ["3.12", "3.13", "3.14"]}


@functools.lru_cache(maxsize=None)
def interpreter_folders() -> tuple[str, ...]:
    """Folders that hold real interpreters of pyenv.

    Its shims are no use: they fail wherever a version is not selected.
    """
    folders: list[str] = []
    for root in dict.fromkeys(_pyenv_roots()):
        folders += sorted(glob.glob(os.path.join(root, "versions", "3.*", "bin")))
    return tuple(folders)


def _pyenv_roots() -> t.Iterator[str]:
    if os.environ.get("PYENV_ROOT"):
        yield os.environ["PYENV_ROOT"]
    yield os.path.expanduser("~/.pyenv")
    # HOME may be another folder than the user's own
    yield os.path.join(pwd.getpwuid(os.geteuid()).pw_dir, ".pyenv")
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if os.path.basename(folder) == "shims":
            yield os.path.dirname(folder)
    said = _output(["pyenv", "root"])
    if said:
        yield said


def ends(cores: t.Iterable[str]) -> set[str]:
    """Return the oldest and the newest Python that this machine has for nodes of some ansible-cores."""
    there = sorted(
        (version for core in cores for version in NODES[core] if find(version)),
        key=lambda version: [int(number) for number in version.split(".")],
    )
    return {*there[:1], *there[-1:]}


@functools.lru_cache(maxsize=None)
def find(version: str) -> str | None:
    """The path of a Python of this version that really runs, and can make virtual environments."""
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    path = os.environ.get("PATH", "").split(os.pathsep)
    for folder in [*interpreter_folders(), *path]:
        found = shutil.which(f"python{version}", path=folder)
        if found is not None and _output([found, "-c", code]) == version:
            return os.path.abspath(found)
    return None


def _output(command: list[str]) -> str:
    """What a program prints; nothing if it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
