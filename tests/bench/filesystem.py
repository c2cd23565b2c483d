# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""File systems that are new for each run: old ones remember what was deleted from them, and get slower."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
import typing as t

from ..tools.removal import make_folder, remove_folder

# Both are upper bounds: the backing file has holes, and tmpfs takes what is used.
SIZE = 24 * 1024**3
_INODES = 4_000_000

# Of data and metadata: how they are stored, and how much of them there is.
_USED = re.compile(r"^(?:Data|System|Metadata), (\w+): total=\d+, used=(\d+)$", re.MULTILINE)

_MKFS = ["mkfs.ext4", "-q", "-F", "-E", "nodiscard", "-N", str(_INODES)]


class Ext4:
    """A loop-mounted ext4, made anew for each run. Needs root."""

    name = "a new loop-mounted ext4"

    def __init__(self, folder: str) -> None:
        self._image = os.path.join(folder, "ext4.img")
        self._target = os.path.join(folder, "mounted")

    @contextlib.contextmanager
    def fresh(self) -> t.Iterator[str]:
        """An empty folder to work in, for as long as the context lasts."""
        with open(self._image, "wb") as file:
            file.truncate(SIZE)
        try:
            _run(*_MKFS, self._image)
            # or a kernel thread would zero inode tables while we measure
            with _mounted(self._target, "-o", "loop,noinit_itable", self._image) as path:
                yield path
        finally:
            os.unlink(self._image)

    def used(self) -> int:
        """The bytes that are used."""
        _run("sync", "-f", self._target)
        status = os.statvfs(self._target)
        return (status.f_blocks - status.f_bfree) * status.f_frsize


class Btrfs:
    """A loop-mounted btrfs, made anew for each run. Needs root."""

    name = "a new loop-mounted btrfs"

    def __init__(self, folder: str) -> None:
        self._image = os.path.join(folder, "btrfs.img")
        self._target = os.path.join(folder, "mounted")

    @contextlib.contextmanager
    def fresh(self) -> t.Iterator[str]:
        """An empty folder to work in, for as long as the context lasts."""
        with open(self._image, "wb") as file:
            file.truncate(SIZE)
        try:
            subprocess.run(
                ["mkfs.btrfs", "-q", self._image],
                check=True,
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=300,
            )
            with _mounted(self._target, "-o", "loop", self._image) as path:
                yield path
        finally:
            os.unlink(self._image)

    def used(self) -> int:
        """The bytes that are used, with all copies of metadata, once what was removed is free."""
        for command in (["filesystem", "sync"], ["subvolume", "sync"], ["filesystem", "sync"]):
            self._btrfs(*command)
        return used_in(self._btrfs("filesystem", "df", "--raw"))

    def _btrfs(self, *command: str) -> str:
        words = ["btrfs", *command, self._target]
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=300).stdout


def used_in(told: str) -> int:
    """The bytes that ``btrfs filesystem df --raw`` tells as used."""
    return sum((2 if copies == "DUP" else 1) * int(used) for copies, used in _USED.findall(told))


class Tmpfs:
    """A tmpfs, mounted anew for each run. Needs root."""

    name = "a new tmpfs"

    def __init__(self, folder: str) -> None:
        self._target = os.path.join(folder, "mounted")

    @contextlib.contextmanager
    def fresh(self) -> t.Iterator[str]:
        """An empty folder to work in, for as long as the context lasts."""
        options = f"size={SIZE},nr_inodes={_INODES},mode=0755"
        with _mounted(self._target, "-t", "tmpfs", "-o", options, "bench") as path:
            yield path


class Folder:
    """A folder for each run on whatever is there, for those who may not mount."""

    name = "a new folder on the file system that was there (no root: nothing could be mounted)"

    def __init__(self, folder: str) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def fresh(self) -> t.Iterator[str]:
        """An empty folder to work in, for as long as the context lasts."""
        path = make_folder("fresh-", self._folder)
        try:
            yield path
        finally:
            _remove(path)


FileSystem = t.Union[Ext4, Tmpfs, Folder]


def mounts_below(path: str, table: str) -> list[str]:
    """What is mounted at ``path`` or below it by the text of ``/proc/self/mounts``, the last mounted first."""
    found = []
    for line in table.splitlines():
        # spaces and the like are octal there
        target = line.split(" ")[1].encode().decode("unicode_escape")
        if target == path or target.startswith(path + "/"):
            found.append(target)
    return found[::-1]


def unmount(path: str) -> None:
    """Unmount what is there and below, also what a tool has left mounted."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        targets = mounts_below(path, file.read())
    for target in targets:
        for wait in (0.5, 1, 2, 4, 0):
            try:
                _run("umount", target)
                break
            except subprocess.CalledProcessError:
                # whoever was killed may need a moment to let go
                if not wait:
                    raise
                time.sleep(wait)


@contextlib.contextmanager
def _mounted(target: str, *arguments: str) -> t.Iterator[str]:
    os.makedirs(target, exist_ok=True)
    _run("mount", *arguments, target)
    try:
        yield target
    finally:
        unmount(target)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=300)


def _remove(path: str) -> None:
    """Remove a tree whose directories may be closed to their own owner."""
    for root, folders, _files in os.walk(path):
        for folder in folders:
            below = os.path.join(root, folder)
            if not os.path.islink(below):
                os.chmod(below, 0o700)
    remove_folder(path)
