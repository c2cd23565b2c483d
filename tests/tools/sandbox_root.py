# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The root directory of a sandbox: a throw-away view of the machine's, on a file system of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import subprocess
import tempfile
import typing as t
from dataclasses import dataclass

# Folders of the tests' own, on a real file system: an overlay cannot exchange directories of its lower layer.
_EMPTY = {
    "/tmp": 0o1777,
    "/var/tmp": 0o1777,
    "/var/lib/containers": 0o700,
    "/var/lib/hypervisor.oci": 0o755,
    "/var/lib/lxc": 0o711,
    "/var/lib/machines": 0o700,
    "/var/log/hypervisor.oci": 0o755,
}
# File systems that hold files of the machine, and are not seen through a view of what they are mounted on.
_REAL = {
    *("9p", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay"),
    *("squashfs", "virtiofs", "xfs", "zfs"),
}
# No disks: nothing in the sandbox can write below the machine's file systems.
_DEVICES = (
    *("btrfs-control", "full", "fuse", "loop-control", "net/tun", "null"),
    *("random", "tty", "urandom", "zero"),
)
_LOOPS = 64
_LOOP_MAJOR = 7
_LINKS = {"fd": "/proc/self/fd", "stderr": "/proc/self/fd/2", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1"}
_PATIENCE = 60


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=_PATIENCE)


def mount(*words: str) -> None:
    """Call mount; raises ``CalledProcessError``."""
    _run("mount", *words)


def mount_scratch(place: str, most: int) -> None:
    """Mount an empty file system that holds all that is written in a sandbox, up to ``most`` bytes.

    It lies in a file without a name, or in memory where there are no loop devices.
    """
    free = os.statvfs(place)
    size = min(most, free.f_bavail * free.f_frsize * 3 // 4)
    fd, image = tempfile.mkstemp(prefix="sandbox-", dir=os.path.dirname(place))
    try:
        os.truncate(fd, size)
        # nothing in it shall survive anything
        make = ["-q", "-F", "-O", "^has_journal", "-E", "nodiscard", "-m", "0"]
        _run("mkfs.ext4", *make, image)
        mount("-o", "loop,noatime,barrier=0", image, place)
    except (OSError, subprocess.CalledProcessError):
        mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", place)
    finally:
        os.close(fd)
        os.unlink(image)


@dataclass(frozen=True)
class Mount:
    """A line of /proc/self/mountinfo."""

    path: str
    kind: str
    root: str
    options: str
    device: int


def mounts() -> list[Mount]:
    """Return what is mounted, in order."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        lines = [line.split(" ") for line in f]
    found = []
    for words in lines:
        kind, _source, options = words[words.index("-") + 1 :]
        path, root = (_unescaped(word) for word in (words[4], words[3]))
        major, minor = map(int, words[2].split(":"))
        device = os.makedev(major, minor)
        found.append(Mount(path, kind, root, options.strip(), device))
    return found


def _unescaped(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), word)


class Root:
    """The root directory of a sandbox, below the folder that its scratch file system is mounted on."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._path = os.path.join(scratch, "root")
        self._numbers = itertools.count()
        os.mkdir(self._path)

    def inside(self, path: str) -> str:
        """Return where an absolute path of the sandbox is before it is entered."""
        return self._path + os.path.realpath(path)

    def view(self, needed: t.Iterable[str]) -> None:
        """Show the machine's files, and those folders if they are not among them."""
        self._overlay("/", self._path)
        for item in mounts():
            hidden = any(_is_below(item.path, folder) for folder in (self._scratch, "/run", *_EMPTY))
            if item.path != "/" and item.kind in _REAL and not hidden:
                self._show(item.path)
        for folder, mode in _EMPTY.items():
            self._empty(folder, mode)
        for folder in needed:
            if not os.path.lexists(self.inside(folder)) and os.path.isdir(folder):
                self._show(folder)

    def _show(self, path: str) -> None:
        """Show a file or folder as it is, changes being thrown away or refused."""
        target = self.inside(path)
        if os.path.isdir(path):
            os.makedirs(target, exist_ok=True)
            with contextlib.suppress(subprocess.CalledProcessError):
                self._overlay(path, target)
                return
        elif not os.path.exists(target):
            return
        mount("--bind", path, target)
        mount("-o", "remount,bind,ro", target)

    def _overlay(self, lower: str, target: str) -> None:
        layers = os.path.join(self._scratch, f"layers-{next(self._numbers)}")
        upper, work = f"{layers}/upper", f"{layers}/work"
        os.makedirs(upper)
        os.mkdir(work)
        status = os.stat(lower)
        os.chown(upper, status.st_uid, status.st_gid)
        os.chmod(upper, stat.S_IMODE(status.st_mode))
        words = re.sub(r"([\\,:])", r"\\\1", lower)
        options = f"lowerdir={words},upperdir={upper},workdir={work}"
        mount("-t", "overlay", "-o", options, "overlay", target)

    def _empty(self, path: str, mode: int) -> None:
        own = self._scratch + "/empty" + path
        os.makedirs(own)
        os.chmod(own, mode)
        self.bind(own, path)

    def bind(self, folder: str, path: str) -> None:
        """Let a path of the sandbox be that folder."""
        target = self.inside(path)
        os.makedirs(target, exist_ok=True)
        mount("--bind", folder, target)

    def mount_kernel(self) -> None:
        """Mount what the kernel has to tell, and make the devices."""
        mount("-t", "proc", "proc", self.inside("/proc"))
        mount("-t", "sysfs", "sysfs", self.inside("/sys"))
        names = self._servers()
        for path, options in (("/run", "mode=0755"), ("/dev", "mode=0755,size=1m")):
            mount("-t", "tmpfs", "-o", options, "tmpfs", self._path + path)
        os.mkdir(f"{self._path}/run/lock")
        os.chmod(f"{self._path}/run/lock", 0o1777)
        if names is not None:
            path, text = names
            os.makedirs(self._path + os.path.dirname(path), exist_ok=True)
            with open(self._path + path, "w", encoding="utf-8") as file:
                file.write(text)
        self._make_devices()

    @staticmethod
    def _servers() -> tuple[str, str] | None:
        """Return the path and text of resolv.conf if it is a link to a file below /run."""
        path = os.path.realpath("/etc/resolv.conf")
        if not _is_below(path, "/run"):
            return None
        try:
            with open(path, encoding="utf-8") as file:
                return path, file.read()
        except OSError:
            return None

    def _make_devices(self) -> None:
        old = os.umask(0)
        dev = f"{self._path}/dev"
        for name in ("net", "pts", "shm", "mqueue"):
            os.mkdir(f"{dev}/{name}", 0o755)
        for name in _DEVICES:
            with contextlib.suppress(OSError):
                status = os.stat(f"/dev/{name}")
                os.mknod(f"{dev}/{name}", status.st_mode, status.st_rdev)
        for number in range(_LOOPS):
            kind = stat.S_IFBLK | 0o660
            os.mknod(f"{dev}/loop{number}", kind, os.makedev(_LOOP_MAJOR, number))
        for name, target in _LINKS.items():
            os.symlink(target, f"{dev}/{name}")
        os.umask(old)
        os.symlink("pts/ptmx", f"{dev}/ptmx")
        options = "newinstance,ptmxmode=0666,mode=0620"
        mount("-t", "devpts", "-o", options, "devpts", f"{dev}/pts")
        mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", f"{dev}/shm")
        mount("-t", "mqueue", "mqueue", f"{dev}/mqueue")

    def enter(self) -> None:
        """Let it be the root directory of this process, and give up the other one."""
        os.chdir(self._path)
        os.makedirs("mnt", exist_ok=True)
        _run("pivot_root", ".", "mnt")
        os.chroot(".")
        os.chdir("/")
        _run("umount", "-l", "/mnt")


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
