# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a command and says what it changed on the machine: nothing, if all is well.

    untouched.py [--except PATH]... COMMAND [ARGUMENT...]

As root, on a machine where nobody else works meanwhile. Compared are the content, owner, mode, and time of every file
in the folders of the system and of root, the names in temporary folders, mounts, loop devices, control groups, and
processes. Package managers' own files and this checkout may change.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import os
import stat
import subprocess
import sys
import typing as t
import uuid

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_FILES = ("/boot", "/etc", "/opt", "/root", "/srv", "/usr", "/var/lib", "/var/log")
_NAMES = ("/", "/dev", "/dev/shm", "/run", "/tmp", "/var", "/var/tmp")
# Written by package managers, and by whoever logs in or logs.
_PACKAGES = (
    *("/var/lib/apt", "/var/lib/dpkg", "/var/lib/dnf", "/var/lib/rpm"),
    *("/var/log/apt", "/var/log/dpkg.log", "/var/log/journal", "/etc/ld.so.cache"),
    *("/var/log/lastlog", "/var/log/wtmp", "/var/log/btmp"),
)
_MARK = "OCI_TESTS_MARK"
_MOST = 50

State = t.Dict[str, str]


def look(skipped: t.Container[str], mark: str) -> State:
    """Return all that must not change, each with a text that does if it does."""
    found: State = {}
    for folder in _FILES:
        found.update(_files(folder, skipped))
    for folder in _NAMES:
        found.update(
            (os.path.join(folder, name), "is there")
            for name in _listed(folder)
            if os.path.join(folder, name) not in skipped
        )
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        found.update((f"mount {line.split()[4]}", line) for line in file)
    for path in glob.glob("/sys/block/*/loop/backing_file"):
        with open(path, encoding="utf-8", errors="replace") as file:
            found[f"loop device {path.split('/')[3]}"] = file.read()
    for folder, _names, _entries in os.walk("/sys/fs/cgroup"):
        found[f"control group {folder}"] = "is there"
    found.update(_processes(mark))
    return found


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _files(top: str, skipped: t.Container[str]) -> t.Iterator[tuple[str, str]]:
    pending = [top]
    while pending:
        path = pending.pop()
        if path in skipped:
            continue
        try:
            yield path, _described(path)
        except OSError:
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            pending += [os.path.join(path, name) for name in _listed(path)]


def _described(path: str) -> str:
    status = os.lstat(path)
    words = [oct(status.st_mode), f"{status.st_uid}:{status.st_gid}", str(status.st_rdev)]
    if stat.S_ISDIR(status.st_mode):
        # a file that comes and goes changes the time alone
        return " ".join(words)
    words.append(str(status.st_mtime_ns))
    if stat.S_ISLNK(status.st_mode):
        words.append(os.readlink(path))
    elif stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            words.append(hashlib.file_digest(file, "sha256").hexdigest())
    return " ".join(words)


def _processes(mark: str) -> t.Iterator[tuple[str, str]]:
    """The namespaces of processes, and processes that the command started."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                marked = f"{_MARK}={mark}".encode() in file.read().split(b"\0")
            with open(f"/proc/{pid}/comm", encoding="utf-8") as comm:
                name = comm.read().strip()
            spaces = [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("mnt", "pid")]
        except OSError:
            continue
        if marked:
            yield f"process {pid} ({name})", "runs"
        for space in spaces:
            yield f"namespace {space}", "is there"


def differences(before: State, after: State) -> list[str]:
    """Return what changed, a line each."""
    lines = [f"new: {name}" for name in after if name not in before]
    lines += [
        f"gone: {name}"
        for name in before
        # namespaces and processes of others may end
        if name not in after and not name.startswith(("namespace", "process"))
    ]
    lines += [
        f"changed: {name}: {before[name]} -> {after[name]}"
        for name in before
        if name in after and before[name] != after[name]
    ]
    return sorted(lines)


def main() -> int:
    """The command line; returns the exit status: 1 if something changed, else the command's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--except", action="append", default=[], dest="skipped")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    skipped = {CHECKOUT, *_PACKAGES, *map(os.path.abspath, options.skipped)}
    mark = uuid.uuid4().hex
    before = look(skipped, mark)
    status = subprocess.run(options.command, check=False, env={**os.environ, _MARK: mark}).returncode
    found = differences(before, look(skipped, mark))
    for line in found[:_MOST]:
        print(line)
    print(f"{len(before)} things looked at, {len(found)} changed")
    return 1 if found else status


if __name__ == "__main__":
    sys.exit(main())
