# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disks that fail: file systems in files, which are filled, limited, closed to writing, or lose what lies below.

    disks.py                    every case
    disks.py --only inodes      one of them (may be repeated)

docs/behaviour.md, section 7: an error that leaves the old tree as it was and says what to do; nothing is left over
when the disk works again and the module runs once more. It needs root, loop devices and ``mkfs.ext4``; a case that
cannot be had on this machine is skipped with the reason. Exit status 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import time
import typing as t
from dataclasses import replace

# an installed collection needs no PYTHONPATH
sys.path.insert(0, os.path.abspath(__file__).partition("/ansible_collections/")[0])

from ansible_collections.hypervisor.oci.tests.crash.archives import crash_images  # noqa: E402
from ansible_collections.hypervisor.oci.tests.crash.calls import Calls  # noqa: E402
from ansible_collections.hypervisor.oci.tests.crash.laboratory import Broken, Laboratory, end_cleanly  # noqa: E402
from ansible_collections.hypervisor.oci.tests.crash.scenarios import Scenario, Step, by_name  # noqa: E402
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file  # noqa: E402
from ansible_collections.hypervisor.oci.tests.tools.confinement import require  # noqa: E402
from ansible_collections.hypervisor.oci.tests.tools.loops import let_go_with  # noqa: E402
from ansible_collections.hypervisor.oci.tests.tools.removal import (  # noqa: E402
    make_folder,
    remove_below,
    remove_folder,
)

_PATIENCE = 120.0
_MIB = 1 << 20
# ext4's EXT4_IOC_SHUTDOWN, and what becomes of its journal
_SHUTDOWN = 0x8004587D
_FLUSH_LOG, _NO_FLUSH = 1, 2
# <linux/fs.h>: forget what is known of a device's content
_BLKFLSBUF = 0x1261
_CHUNK = 1 << 20


# What a device that is gone is called, in the middle of a sentence.
_SAID = re.compile("input/output error|read-only file system")


class Skipped(Exception):
    """A case that this machine cannot play; the text says why."""


def disk_images() -> dict[str, Image]:
    """Those that are crashed, one that is large when it is unpacked, and two that are large as they are."""
    noise = random.Random(1)
    files = [file(f"data/{number}", bytes(4 * _MIB)) for number in range(10)]
    content = noise.getrandbits(8 * 12 * _MIB).to_bytes(12 * _MIB, "big")
    return {
        **crash_images(),
        "zeros": Image([Layer(*files)]),
        "plain": Image([Layer(*files, file("plain"), compression="none")]),
        "noise": Image([Layer(file("data/noise", content), compression="none")]),
    }


def _command(*command: str) -> str:
    done = subprocess.run(
        command, check=False, timeout=_PATIENCE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise Broken(f"{' '.join(command)}: {done.stdout.strip()}")
    return done.stdout


def _require(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise Skipped(f"{', '.join(missing)} is not installed")


def require_btrfs() -> None:
    """Require a kernel and programs that know btrfs. Raises ``Skipped``."""
    _require("mkfs.btrfs", "btrfs")
    if "\tbtrfs\n" not in _text("/proc/filesystems"):
        raise Skipped("this kernel has no btrfs")


_Disk = t.TypeVar("_Disk", bound="Disk")


class Disk:
    """A file system in a file of ``size`` bytes, mounted as long as the context lasts."""

    def __init__(self, folder: str, size: int, *make: str) -> None:
        self.file = os.path.join(folder, "disk")
        self.path = os.path.join(folder, "mounted")
        self._size = size
        self._make = make or ("mkfs.ext4", "-q", "-F", "-m", "0")
        self.device = ""
        self._mounted = False

    def __enter__(self: _Disk) -> _Disk:
        os.mkdir(self.path)
        try:
            # one device as long as it lasts: another would not see what this one still holds
            self._attach()
            _command(*self._make, self.device)
            self.mount()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        try:
            self.unmount()
        finally:
            self._remove()

    def _attach(self) -> None:
        with open(self.file, "wb") as empty:
            empty.truncate(self._size)
        self.device = _command("losetup", "--find", "--show", self.file).strip()
        # it goes with this process, however that ends
        self._fd = os.open(self.device, os.O_RDONLY | os.O_CLOEXEC)
        let_go_with(self._fd)

    def _detach(self) -> None:
        os.close(self._fd)

    def _remove(self) -> None:
        if self.device:
            self._detach()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.file)
        os.rmdir(self.path)

    def mount(self) -> None:
        """Mount it where it belongs."""
        _command("mount", self.device, self.path)
        self._mounted = True

    def unmount(self) -> None:
        """Nothing where it is not mounted."""
        if self._mounted:
            _command("umount", self.path)
            self._mounted = False
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                os.close(os.open(self.device, os.O_RDONLY | os.O_EXCL))
                return
            except OSError as error:
                # a mount namespace that somebody made meanwhile still has it
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def again(self) -> None:
        """As after a repair and a restart."""
        self.unmount()
        done = subprocess.run(
            ["e2fsck", "-f", "-y", self.device],
            check=False,
            timeout=_PATIENCE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        # 1: errors were corrected
        if done.returncode not in (0, 1):
            raise Broken(f"the file system is lost: {done.stdout}")
        self.mount()

    def sync(self) -> None:
        """Make durable what is there."""
        _command("sync", "-f", self.path)

    def remount(self, options: str) -> None:
        """With other options."""
        _command("mount", "-o", f"remount,{options}", self.path)

    def lose_power(self) -> None:
        """What was not made durable is lost."""
        self.shut_down(_NO_FLUSH)

    def shut_down(self, how: int = _FLUSH_LOG) -> None:
        """Let every further access fail, as where the device is gone."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", how))
        finally:
            os.close(fd)


class BtrfsDisk(Disk):
    """The same with btrfs, which cannot be shut down: what it has not given to its device is lost."""

    def __init__(self, folder: str) -> None:
        require_btrfs()
        super().__init__(folder, 128 * _MIB, "mkfs.btrfs", "-q")
        self._lost = f"{self.file}.lost"

    def lose_power(self) -> None:
        """Keep what the device has got until now, for ``again``."""
        with open(self.file, "rb") as file, open(self._lost, "wb") as copy:
            _copy_data(file, copy)

    def again(self) -> None:
        """As after a restart."""
        self.unmount()
        if os.path.exists(self._lost):
            with open(self._lost, "rb") as copy, open(self.file, "r+b") as file:
                file.truncate(0)
                _copy_data(copy, file)
            os.unlink(self._lost)
            fcntl.ioctl(self._fd, _BLKFLSBUF)
        self.mount()


def _copy_data(source: t.BinaryIO, target: t.BinaryIO) -> None:
    """Copy a file into an empty one, holes as holes."""
    size = os.fstat(source.fileno()).st_size
    target.truncate(size)
    end = 0
    while end < size:
        try:
            start = os.lseek(source.fileno(), end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        end = os.lseek(source.fileno(), start, os.SEEK_HOLE)
        for place in range(start, end, _CHUNK):
            os.pwrite(target.fileno(), os.pread(source.fileno(), min(_CHUNK, end - place), place), place)


class MemoryDisk(Disk):
    """The same in a block device in memory, which can be told to refuse what it has no room for yet."""

    _CONTROL = "/sys/class/zram-control"

    def _attach(self) -> None:
        if not os.access(f"{self._CONTROL}/hot_add", os.R_OK):
            raise Skipped("this kernel has no zram, a disk that can be told to fail")
        self.device = f"/dev/zram{_text(f'{self._CONTROL}/hot_add').strip()}"
        if not os.path.exists(self.device):
            # the sandbox has a /dev of its own, in which the kernel makes nothing
            numbers = _text(f"/sys/block/{os.path.basename(self.device)}/dev").split(":")
            os.mknod(self.device, 0o60600, os.makedev(*map(int, numbers)))
        self._tell("disksize", str(self._size))

    def _detach(self) -> None:
        self._tell("reset", "1")
        os.unlink(self.device)
        with open(f"{self._CONTROL}/hot_remove", "w", encoding="utf-8") as control:
            control.write(self.device[len("/dev/zram") :])

    def refuse(self, more: bool) -> None:
        """Whether a write that needs more memory is an I/O error."""
        self._tell("mem_limit", "4096" if more else "0")

    def _tell(self, what: str, value: str) -> None:
        name = os.path.basename(self.device)
        with open(f"/sys/block/{name}/{what}", "w", encoding="utf-8") as control:
            control.write(value)


@contextlib.contextmanager
def _prepared(lab: Laboratory, scenario: Scenario, folder: str) -> t.Iterator[None]:
    """The scenario's dest in that folder, removed afterwards."""
    try:
        with lab.on(folder):
            lab.prepare(scenario)
            yield
            lab.clean()
    finally:
        # where it failed, what is on the disk goes with the disk
        remove_below(lab.work, lab.var)


def _fails(lab: Laboratory, step: Step, *words: str) -> str:
    """A run that fails with these words, and leaves all as it was."""
    before = lab.leftovers()
    error = _error_of(lab, step, *words)
    lab.check_untouched(before, error)
    return error


def _error_of(lab: Laboratory, step: Step, *words: str) -> str:
    error = lab.run(step)[0].error
    if not error or error.startswith("Traceback"):
        raise Broken(f"{step} gave no clean error: {error}")
    missing = [word for word in words if word not in error]
    if missing:
        raise Broken(f"{missing} not in {error!r}")
    return error


def _succeeds(lab: Laboratory, step: Step) -> None:
    """What the scenario wants in the end, by one run, and a quiet one."""
    found = lab.found()
    lab.must(step)
    lab.check_final(found)
    again = lab.run(step)[0]
    if again.changed or again.error:
        raise Broken(f"not quiet: {again}")


@contextlib.contextmanager
def _full(folder: str, spare: int = 0) -> t.Iterator[None]:
    """Fill a file system with a file, but for some bytes; gone afterwards."""
    name = os.path.join(folder, "filler")
    fd = os.open(name, os.O_WRONLY | os.O_CREAT)
    size = _MIB
    try:
        while size >= 512:
            try:
                os.write(fd, bytes(size))
            except OSError:
                size //= 2
        if spare:
            os.ftruncate(fd, os.fstat(fd).st_size - spare)
        yield
    finally:
        os.close(fd)
        os.unlink(name)


# -- cases; each returns what it saw

_REPLACE = by_name("replace")
_FIRST = by_name("first")


def blocks(lab: Laboratory, work: str) -> str:
    """The layer is small, and what is in it is larger than the disk."""
    with Disk(work, 24 * _MIB) as disk:
        with _prepared(lab, _REPLACE, disk.path):
            error = _fails(lab, {"src": "zeros"}, "no room left", "layer sha256:", "'data/")
            _succeeds(lab, {"src": "b"})
        with _prepared(lab, _FIRST, disk.path):
            _fails(lab, {"src": "zeros"}, "no room left")
            _succeeds(lab, {"src": "b"})
    return error


def room(lab: Laboratory, work: str) -> str:
    """The layer itself is larger than the disk, which is known before anything is written."""
    with Disk(work, 24 * _MIB) as disk, _prepared(lab, _REPLACE, disk.path):
        error = _fails(lab, {"src": "plain"}, "needs at least", "free")
        numbers = [int(number) for number in re.findall(r"(\d+) (?:bytes|free)", error)]
        if len(numbers) != 2 or not 40 * _MIB < numbers[0] < 41 * _MIB:
            raise Broken(f"numbers {numbers} in {error!r}")
        if not 0 < numbers[1] < 24 * _MIB:
            raise Broken(f"numbers {numbers} in {error!r}")
        _succeeds(lab, {"src": "b"})
    return error


def full(lab: Laboratory, work: str) -> str:
    """Not one block is left, then one more each time, until a small image fits."""
    errors: list[str] = []
    with Disk(work, 16 * _MIB) as disk, _prepared(lab, _REPLACE, disk.path):
        for spare in range(0, _MIB, 4096):
            with _full(disk.path, spare):
                before = lab.leftovers()
                outcome = lab.run({"src": "b"})[0]
                if not outcome.error:
                    break
                lab.check_untouched(before, outcome.error)
                errors.append(outcome.error)
        _succeeds(lab, {"src": "b"})
    kinds = [sum(words in error for error in errors) for words in ("free; make room there", "no room left")]
    if not all(kinds) or sum(kinds) != len(errors):
        raise Broken(f"{kinds} of {errors}")
    return f"{kinds[0]} runs knew before, {kinds[1]} later, of {len(errors)} that failed, one block more each"


def absent_on_full(lab: Laboratory, work: str) -> str:
    """Not one block is left to note what is removed: an error that changes nothing, and then a few suffice."""
    with Disk(work, 16 * _MIB) as disk, _prepared(lab, by_name("absent"), disk.path):
        with _full(disk.path):
            error = _fails(lab, {"state": "absent"}, "no room left", "make room")
        with _full(disk.path, 32 * 1024):
            _succeeds(lab, {"state": "absent"})
    return error


def inodes(lab: Laboratory, work: str) -> str:
    """More files than inodes, with room for their content."""
    make = ("mkfs.ext4", "-q", "-F", "-m", "0", "-N", "256")
    with Disk(work, 32 * _MIB, *make) as disk, _prepared(lab, _REPLACE, disk.path):
        error = _fails(lab, {"src": "large"}, "inodes", "layer sha256:", "entry 'data/")
        _succeeds(lab, {"src": "b"})
    return error


def quota(lab: Laboratory, work: str) -> str:
    """A limit on a part of a file system with more room; on btrfs, since root is above others' quotas."""
    # its quotas are the ones that bind root
    require_btrfs()
    with Disk(work, 256 * _MIB, "mkfs.btrfs", "-q") as disk:
        part = os.path.join(disk.path, "part")
        _command("btrfs", "subvolume", "create", part)
        _command("btrfs", "quota", "enable", disk.path)
        _command("btrfs", "qgroup", "limit", str(20 * _MIB), part)
        with _prepared(lab, _REPLACE, part):
            error = _fails(lab, {"src": "zeros"}, "quota", "layer sha256:")
            _succeeds(lab, {"src": "b"})
    return error


def attributes(lab: Laboratory, work: str) -> str:
    """A container made all of its tree immutable, or append-only: the next run replaces it, and nothing is left."""
    _require("chattr", "lsattr")
    with Disk(work, 16 * _MIB) as disk, _prepared(lab, _REPLACE, disk.path):
        try:
            for attribute, step in (
                ("+i", {"src": "b", "keep": 0}),
                ("+a", {"src": "a", "keep": 0}),
                ("+i", {"state": "absent"}),
            ):
                # links and devices have none, which it complains of
                subprocess.run(["chattr", "-R", "-f", attribute, lab.dest], check=False, timeout=_PATIENCE)
                if attribute[1] not in _command("lsattr", "-d", lab.dest).split()[0]:
                    raise Broken(f"chattr {attribute} has no effect")
                _leaves_nothing(lab, step)
        finally:
            subprocess.run(["chattr", "-R", "-f", "-ia", disk.path], check=False)
        lab.must({"src": "a"})
    return "removed"


def subvolumes(lab: Laboratory, work: str) -> str:
    """A container made subvolumes of btrfs, which any user can, and set them read-only."""
    require_btrfs()
    with Disk(work, 256 * _MIB, "mkfs.btrfs", "-q") as disk, _prepared(lab, _REPLACE, disk.path):
        for step in ({"src": "b", "keep": 0}, {"state": "absent"}):
            one = os.path.join(lab.dest, "one")
            inner = os.path.join(one, "folder", "inner")
            _command("btrfs", "subvolume", "create", one)
            os.mkdir(os.path.dirname(inner))
            _command("btrfs", "subvolume", "create", inner)
            for folder in (one, inner):
                with open(os.path.join(folder, "file"), "wb") as file_:
                    file_.write(b"x" * 10_000)
            _command("btrfs", "subvolume", "snapshot", "-r", one, f"{one}.copy")
            for folder in (inner, one):
                _command("btrfs", "property", "set", "-ts", folder, "ro", "true")
            _leaves_nothing(lab, step)
        lab.must({"src": "a"})
    return "removed"


def _leaves_nothing(lab: Laboratory, step: Step) -> None:
    """A run that succeeds, and leaves nothing but the record."""
    lab.must(step)
    expected = ("record.json",) if "src" in step else ()
    if lab.leftovers() != expected or lab.found() != step.get("src", "none"):
        raise Broken(f"{lab.found()} and {lab.leftovers()} are left by {step}")


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file_:
        return file_.read()


def read_only(lab: Laboratory, work: str) -> str:
    """The file system is mounted read-only: an update is an error, a run that changes nothing is not."""
    with Disk(work, 16 * _MIB) as disk, _prepared(lab, _REPLACE, disk.path):
        disk.remount("ro")
        try:
            error = _fails(lab, {"src": "b"}, "read-only", "writable")
            for step in ({"src": "a", "check_mode": True}, {"src": "a"}):
                outcome = lab.run(step)[0]
                if outcome.changed or outcome.error:
                    raise Broken(f"{step} on a read-only disk: {outcome}")
            _fails(lab, {"state": "absent"}, "read-only")
            _fails(lab, {"state": "previous"}, "read-only")
        finally:
            disk.remount("rw")
        _succeeds(lab, {"src": "b"})
    return error


def write_back(lab: Laboratory, work: str) -> str:
    """What is written cannot reach the disk: from the start, and only when the tree is made durable."""
    step = {"src": "noise"}
    calls = lab.count(replace(_REPLACE, action=step, final="noise"))
    errors = []
    with MemoryDisk(work, 40 * _MIB) as disk:
        for at in (1, calls.index("syncfs") + 1):
            with _prepared(lab, _REPLACE, disk.path):
                disk.sync()
                event = Calls(at, event=lambda: disk.refuse(True))
                try:
                    error = lab.stop(step, event).error
                finally:
                    disk.refuse(False)
                disk.again()
                if "input/output error" not in error or lab.found() != "a":
                    raise Broken(f"{lab.found()} is at dest after: {error}")
                _succeeds(lab, {"src": "b"})
                errors.append(error)
    return errors[-1]


def gone(lab: Laboratory, work: str) -> str:
    """The device goes away at some call, and every access fails from there on."""
    errors: dict[str, int] = {}
    runs = 0
    with Disk(work, 16 * _MIB) as disk:
        for name in ("first", "replace", "two-renames", "previous", "absent"):
            scenario = by_name(name)
            calls = lab.count(scenario)
            turning = scenario.turning(calls)
            # all around the turn, and some before it
            chosen = {*range(1, turning, 12), *range(turning - 12, len(calls) + 1)}
            for at in sorted(chosen):
                if at < 1:
                    continue
                with _prepared(lab, scenario, disk.path):
                    event = Calls(at, event=disk.shut_down)
                    outcome = lab.stop(scenario.action, event)
                    disk.again()
                    words = f"{name}, gone at call {at} of {len(calls)}"
                    if not outcome.error and at < turning:
                        raise Broken(f"{words}: no error")
                    try:
                        lab.check(outcome)
                    except Broken as error:
                        raise Broken(f"{words}: {error}") from error
                    said = _SAID.findall(outcome.error) or [outcome.error]
                    errors[said[0]] = errors.get(said[0], 0) + 1
                    runs += 1
    if {*errors} - {"input/output error", "read-only file system", ""}:
        raise Broken(f"not only I/O errors:  {errors}")
    return f"{runs} runs; what they said: {errors}"


def source(lab: Laboratory, work: str) -> str:
    """The archive lies on a disk that cannot be read any more."""
    with Disk(work, 40 * _MIB) as disk:
        path = os.path.join(disk.path, "noise.oci.tar")
        shutil.copy(lab.sources["noise"], path)
        with open(path, "rb") as file_:
            os.fsync(file_.fileno())
        disk.again()
        lab.sources["lost"] = path
        try:
            lab.prepare(_REPLACE)
            # the end of the device is gone, and the archive's middle with it
            os.truncate(disk.file, 14 * _MIB)
            error = _fails(lab, {"src": "lost"}, "input/output error", "noise.oci.tar")
            _succeeds(lab, {"src": "b"})
        finally:
            del lab.sources["lost"]
            lab.clean()
            os.truncate(disk.file, 40 * _MIB)
    return error


CASES: dict[str, t.Callable[[Laboratory, str], str]] = {
    "blocks": blocks,
    "room": room,
    "full": full,
    "absent-on-full": absent_on_full,
    "inodes": inodes,
    "quota": quota,
    "read-only": read_only,
    "write-back": write_back,
    "gone": gone,
    "source": source,
    "attributes": attributes,
    "subvolumes": subvolumes,
}


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Let disks fail under oci_rootfs.")
    parser.add_argument("--only", action="append", choices=CASES)
    parser.add_argument("--work", metavar="DIR", help="where the disks' files lie")
    options = parser.parse_args()
    require()
    if os.geteuid():
        parser.error("only root can mount disks")
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    above = make_folder("oci_rootfs_disks.", options.work or shm)
    failures = 0
    end_cleanly()
    try:
        lab = Laboratory(os.path.join(above, "work"), True, disk_images())
        try:
            for name in options.only or CASES:
                try:
                    print(f"{name}: {CASES[name](lab, above)}", flush=True)
                except Skipped as reason:
                    print(f"{name}: skipped, {reason}", flush=True)
                except Broken as error:
                    failures += 1
                    print(f"{name}: BROKEN: {error}", flush=True)
        finally:
            lab.close()
    finally:
        remove_folder(above)
    print(f"{failures} broken")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
