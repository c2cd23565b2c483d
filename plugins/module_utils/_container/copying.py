# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copy a tree that a container may be changing, without following links or entering other mounts.

Each file is opened with ``O_PATH`` by its name in an open directory, inspected, and read through the same descriptor.
So nothing outside of the tree is ever read, whatever a container replaces meanwhile (docs/behaviour.md, section 9).
"""

from __future__ import annotations

import errno
import os
import stat

from .._errors import EntryError, RootfsError, os_advice, os_phrase, show
from .._report import Report
from .._rootfs import acl, capability
from .._rootfs.attributes import Attributes, CreationDefaults, Policy, Writer
from .._rootfs.devices import SAFE_CHARACTER_DEVICES
from .._fs.descriptors import opened
from .._fs.directories import DIRECTORY
from .._unpack_options import UnpackOptions
from .._fs.syscalls import mount_id

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Each level takes three descriptors, and processes usually may have 1,024.
_DEEPEST = 200
_MOST_AT_ONCE = 1 << 30
_XATTRS = (acl.ACCESS, acl.DEFAULT, capability.NAME)


def copy_tree(source: int, target: int, links: int) -> Report:
    """Copy the content of the directory ``source`` to the empty directory ``target``, and then its metadata.

    ``links`` is another empty directory on the file system of ``target``, for one name of each file with hard links.
    Both must be private to the caller. Raises ``RootfsError``.
    """
    report = Report()
    _Copy(source, links, report).run(source, target)
    return report


def copy_metadata(source: int, target: int) -> None:
    """Copy owner, mode, times and extended attributes from one open directory to another. Raises ``RootfsError``."""
    _Copy(source, -1, Report()).run(source, target, False)


class _Copy:
    def __init__(self, source: int, links: int, report: Report) -> None:
        self._links = links
        self._mount = mount_id(source)
        self._report = report
        # nothing here reads the limits
        options = UnpackOptions(max_size=0, max_entries=0, preserve=os.geteuid() == 0)
        policy = Policy(report, options)
        self._writer = Writer(policy, CreationDefaults(os.geteuid(), os.getegid(), False))
        # the path of the current file, for messages
        self._names: list[bytes] = []

    def run(self, source: int, target: int, content: bool = True) -> None:
        """Copy a directory, or its metadata alone. Raises ``RootfsError``."""
        try:
            if content:
                self._directory(source, target)
            else:
                self._writer.to_fd(target, _attributes(source, os.fstat(source)))
        except EntryError as error:
            raise RootfsError(f"{self._shown} cannot be copied: {error.what}; {error.advice}") from error
        except OSError as error:
            advice = os_advice(error) or "look at the file systems of the volume and the root"
            raise RootfsError(f"{self._shown} cannot be copied: {os_phrase(error)}; {advice}") from error

    @property
    def _shown(self) -> str:
        return show(b"/".join(self._names) or b".")

    def _directory(self, source: int, target: int) -> None:
        """Copy a directory: its content first, because that changes its times."""
        before = os.fstat(source)
        if len(self._names) > _DEEPEST:
            raise RootfsError(f"{self._shown} is more than {_DEEPEST} levels deep and cannot be copied")
        with os.scandir(source) as entries:
            for entry in entries:
                self._names.append(os.fsencode(entry.name))
                self._entry(source, target, entry)
                self._names.pop()
        self._writer.to_fd(target, _attributes(source, before))

    def _entry(self, source: int, target: int, entry: os.DirEntry[str]) -> None:
        name = self._names[-1]
        try:
            fd = os.open(name, _PATH, dir_fd=source)
        except FileNotFoundError as error:
            raise self._changed() from error
        with opened(fd):
            status = os.fstat(fd)
            if (entry.is_symlink(), entry.is_dir(follow_symlinks=False)) != (
                stat.S_ISLNK(status.st_mode),
                stat.S_ISDIR(status.st_mode),
            ):
                raise self._changed()
            if mount_id(fd) != self._mount:
                raise RootfsError(
                    f"{self._shown} is a mount point inside of the tree to copy; unmount it and run again"
                )
            if stat.S_ISDIR(status.st_mode):
                self._below(fd, target, name)
                self._require_same(source, name, status)
            elif status.st_nlink > 1:
                self._linked(fd, status, target, name)
            else:
                self._other(fd, status, target, name)

    def _below(self, path: int, target: int, name: bytes) -> None:
        os.mkdir(name, 0o700, dir_fd=target)
        with opened(os.open(b".", DIRECTORY, dir_fd=path)) as source, opened(
            os.open(name, DIRECTORY, dir_fd=target)
        ) as copied:
            self._directory(source, copied)

    def _linked(self, fd: int, status: os.stat_result, target: int, name: bytes) -> None:
        """Copy a file with several names. Its copy is found by the inode number, so no names have to be kept in memory."""
        kept = b"%d-%d" % (status.st_dev, status.st_ino)
        try:
            os.link(kept, name, src_dir_fd=self._links, dst_dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            if self._other(fd, status, target, name):
                os.link(name, kept, src_dir_fd=target, dst_dir_fd=self._links, follow_symlinks=False)

    def _other(self, fd: int, status: os.stat_result, target: int, name: bytes) -> bool:
        """Copy anything but a directory; return false if it is left out."""
        mode = status.st_mode
        if stat.S_ISREG(mode):
            self._file(fd, status, target, name)
        elif stat.S_ISLNK(mode):
            os.symlink(os.readlink(b"", dir_fd=fd), name, dir_fd=target)
            self._writer.to_symlink(target, name, _attributes(fd, status))
        elif stat.S_ISFIFO(mode) or _is_safe_device(status):
            os.mknod(name, stat.S_IFMT(mode) | 0o600, status.st_rdev, dir_fd=target)
            self._writer.to_node(target, name, _attributes(fd, status))
        else:
            kind = "sockets_skipped" if stat.S_ISSOCK(mode) else "devices_skipped"
            self._report.count(kind)
            return False
        return True

    def _file(self, path: int, status: os.stat_result, target: int, name: bytes) -> None:
        # by descriptor, because the name may lead to another file by now
        before = (status.st_size, status.st_mtime_ns)
        with opened(os.open(f"/proc/self/fd/{path}", os.O_RDONLY | os.O_CLOEXEC)) as source, opened(
            os.open(name, _NEW_FILE, 0o600, dir_fd=target)
        ) as copied:
            _copy_data(source, copied, status.st_size)
            now = os.fstat(source)
            if (now.st_size, now.st_mtime_ns) != before:
                raise self._changed()
            self._writer.to_fd(copied, _attributes(source, status))

    def _require_same(self, above: int, name: bytes, before: os.stat_result) -> None:
        try:
            now = os.stat(name, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError as error:
            raise self._changed() from error
        if not os.path.samestat(now, before):
            raise self._changed()

    def _changed(self) -> RootfsError:
        return RootfsError(
            f"{self._shown} was changed while it was being copied; stop the processes that use the root and run again"
        )


def _is_safe_device(status: os.stat_result) -> bool:
    device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return stat.S_ISCHR(status.st_mode) and device in SAFE_CHARACTER_DEVICES


def _attributes(fd: int, status: os.stat_result) -> Attributes:
    """Return the metadata to keep; ``fd`` may be an ``O_PATH`` descriptor."""
    xattrs = {}
    if not stat.S_ISLNK(status.st_mode):
        path = f"/proc/self/fd/{fd}"
        for name in _xattr_names(path):
            if name in _XATTRS or _is_user_xattr(name):
                xattrs[name] = os.getxattr(path, name)
    return Attributes(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, xattrs)


def _xattr_names(path: str) -> list[str]:
    try:
        return os.listxattr(path)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


def _is_user_xattr(name: str) -> bool:
    return name.startswith("user.") and not name.startswith("user.overlay.")


def _copy_data(source: int, target: int, size: int) -> None:
    """Copy the first ``size`` bytes, even if the file grows, and keep its holes."""
    position = 0
    while position < size:
        start = _next_data(source, position, size)
        if start is None:
            break
        end = min(_next_hole(source, start, size), size)
        os.lseek(source, start, os.SEEK_SET)
        os.lseek(target, start, os.SEEK_SET)
        while start < end:
            sent = os.sendfile(target, source, start, min(end - start, _MOST_AT_ONCE))
            if not sent:
                # truncated meanwhile; the caller compares the size
                break
            start += sent
        position = end
    os.ftruncate(target, size)


def _next_data(fd: int, position: int, size: int) -> int | None:
    try:
        return os.lseek(fd, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        if error.errno == errno.EINVAL:
            return position
        raise


def _next_hole(fd: int, position: int, size: int) -> int:
    try:
        return os.lseek(fd, position, os.SEEK_HOLE)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EINVAL):
            return size
        raise
