# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What happens to a container of software while nobody changes anything of its image."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import threading
import typing as t
from dataclasses import dataclass, field

from ansible_collections.hypervisor.oci.tests.tools.removal import remove_below, remove_content

from .containers import Container
from .places import Rootfs
from .software import Software

_DAY = 86_400 * 10**9
_PATIENCE = 900
# An image of a distribution has more files and directories.
_LEAST = 1_000
_TAR = ("tar", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner")


@dataclass
class Subject:
    """A container that runs; ``folder`` is for files beside it. ``loads`` are threads that give it work."""

    software: Software
    rootfs: Rootfs
    container: Container
    folder: str
    loads: list[threading.Thread] = field(default_factory=list)

    def settle(self) -> None:
        """Wait for the end of the work."""
        while self.loads:
            self.loads.pop().join()

    def touch(self, action: t.Callable[[str, os.stat_result], None]) -> None:
        """Do something to what is in the container's root, but to nothing that is mounted there, and to no links.

        Raises ``RuntimeError`` if that is less than an image has.
        """
        count = 0
        for path, status in self._objects():
            try:
                action(path, status)
                count += 1
            except OSError as error:
                # a program that runs, and a file that has gone
                if error.errno not in (errno.ETXTBSY, errno.ENOENT):
                    raise
        if count < _LEAST:
            raise RuntimeError(f"only {count} files and directories were touched")

    def _objects(self) -> t.Iterator[tuple[str, os.stat_result]]:
        # "/proc/N/root" without a slash would be looked at as the link that it is
        root = self.container.root + "/"
        device = os.stat(root).st_dev
        for folder, folders, names in os.walk(root):
            below = []
            for name in (*folders, *names):
                path = os.path.join(folder, name)
                try:
                    status = os.lstat(path)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield path, status
                elif stat.S_ISDIR(status.st_mode) and self._is_of_the_image(path, status, root, device):
                    below.append(name)
                    yield path, status
            folders[:] = below

    def _is_of_the_image(self, path: str, status: os.stat_result, root: str, device: int) -> bool:
        return status.st_dev == device and f"/{path[len(root):]}" not in self.software.volumes


def _start(subject: Subject) -> None:
    subject.container.start()


def _work(subject: Subject) -> None:
    subject.container.run(subject.software.work)


def _be_at_work(subject: Subject) -> None:
    load = threading.Thread(target=_work, args=(subject,))
    load.start()
    subject.loads.append(load)


def _reload(subject: Subject) -> None:
    subject.container.run(subject.software.reload)


def _restart(subject: Subject) -> None:
    subject.container.stop()
    subject.container.start()
    _work(subject)


def _rotate(subject: Subject) -> None:
    for _round in range(2):
        subject.container.run(subject.software.rotate)
        _work(subject)


def _open(subject: Subject) -> None:
    def action(path: str, status: os.stat_result) -> None:
        if stat.S_ISREG(status.st_mode):
            os.close(os.open(path, os.O_RDWR | os.O_NOFOLLOW))

    subject.touch(action)


def _chmod(subject: Subject) -> None:
    subject.touch(lambda path, status: os.chmod(path, stat.S_IMODE(status.st_mode)))


def _touch_a_day_before(subject: Subject) -> None:
    subject.touch(lambda path, status: os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - _DAY)))


def _set_clock_back(subject: Subject) -> None:
    subject.rootfs.as_unpacked_by_a_clock_ahead()


def _restore_by_tar(subject: Subject) -> None:
    path, backup = subject.rootfs.path, os.path.join(subject.folder, "backup.tar")
    subject.container.stop()
    _run(*_TAR, "--one-file-system", "-C", path, "-cf", backup, ".")
    remove_content(path)
    _run(*_TAR, "-C", path, "-xpf", backup)
    remove_below(subject.folder, backup)
    subject.container.start()


def _restore_by_cp(subject: Subject) -> None:
    path, backup = subject.rootfs.path, os.path.join(subject.folder, "backup")
    subject.container.stop()
    _run("cp", "-a", path, backup)
    remove_content(path)
    _run("cp", "-a", f"{backup}/.", path)
    remove_below(subject.folder, backup)
    subject.container.start()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_PATIENCE)


# In this order, each from where the one before has left it.
STEPS: dict[str, t.Callable[[Subject], None]] = {
    "start": _start,
    "work": _work,
    "at work": _be_at_work,
    "reload": _reload,
    "restart": _restart,
    "log rotation": _rotate,
    "open(O_RDWR)": _open,
    "chmod to the same mode": _chmod,
    "touched by a clock set back": _touch_a_day_before,
    "backup restored by cp": _restore_by_cp,
    "backup restored by tar": _restore_by_tar,
    "clock set back": _set_clock_back,
}
