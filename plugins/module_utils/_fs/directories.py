# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Open, make and move directories of the host without following links."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import typing as t

from .._errors import RootfsError, os_phrase, show
from .descriptors import closed_on_error, opened
from .protection import unprotected
from .syscalls import rename_new

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Errors of kernels and file systems that do not support the flags of renameat2.
NO_RENAMEAT2 = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_THROUGH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_existing(path: bytes) -> tuple[int, list[bytes]]:
    """Open the deepest existing directory of an absolute, resolved path; return it and the missing components.

    Raises ``RootfsError`` if a component is not a directory.
    """
    parts = [part for part in path.split(b"/") if part]
    fd = os.open(b"/", _THROUGH)
    for index, part in enumerate(parts):
        with opened(fd):
            try:
                fd = os.open(part, _THROUGH, dir_fd=fd)
            except FileNotFoundError:
                return _readable(fd), parts[index:]
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise RootfsError(
                        f"{show(b'/' + b'/'.join(parts[: index + 1]))} is not a directory; remove it or choose another path"
                    ) from error
                raise
    with opened(fd):
        return _readable(fd), []


def make_directories(fd: int, parts: list[bytes], last_mode: int, group: int = -1) -> int:
    """Make the directories ``parts`` below ``fd`` and return a descriptor of the last one.

    The last one gets ``last_mode`` and ``group``, the others 0755. If one cannot be made, those made before are removed.
    """
    made: list[tuple[int, bytes]] = []
    with contextlib.ExitStack() as stack:
        current = stack.enter_context(opened(os.dup(fd)))
        try:
            for index, part in enumerate(parts):
                mode = last_mode if index == len(parts) - 1 else 0o755
                # with its final mode at once, so that a crash never leaves a directory that users of the tree cannot pass
                os.mkdir(part, mode, dir_fd=current)
                made.append((current, part))
                current = stack.enter_context(opened(open_made(current, part, mode)))
                if index == len(parts) - 1:
                    # an inherited ACL would let others pass
                    drop_inherited_acl(current)
                    os.fchown(current, -1, group)
                os.fchmod(current, mode)
            return os.dup(current)
        except (OSError, RootfsError):
            for above, part in reversed(made):
                # the first error is the one to report
                with contextlib.suppress(OSError):
                    remove_if_empty(above, part)
            raise


def make_private(parent: int, name: bytes) -> int:
    """Open the directory ``name``, made with 0700 if it is missing.

    Raises ``RootfsError`` if it belongs to another user or is open to others.
    """
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        pass
    else:
        return _open_made_private(parent, name)
    found = open_private(parent, name)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return found


def _open_made_private(parent: int, name: bytes) -> int:
    try:
        with closed_on_error(open_made(parent, name, 0o700)) as fd:
            # an inherited setgid bit would spread into the tree
            os.fchmod(fd, 0o700)
            drop_inherited_acl(fd)
        return fd
    except (OSError, RootfsError):
        # the first error is the one to report
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=parent)
        raise


def open_made(parent: int, name: bytes, mode: int) -> int:
    """Open the directory ``name`` that this process has just made with ``mode``.

    Whoever may write to ``parent`` can replace it before it is opened, so it must belong to the caller and have no more
    permissions than ``mode``. It need not be empty, because another run of the caller may work in it already.
    Raises ``RootfsError``, and ``FileNotFoundError`` if another run has removed it.
    """
    try:
        fd = os.open(name, DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise _replaced(name) from error
        raise
    with closed_on_error(fd):
        if os.fstat(fd).st_mode & 0o777 & ~mode or not _is_own(fd):
            raise _replaced(name)
    return fd


def _replaced(name: bytes) -> RootfsError:
    return RootfsError(
        f"another user replaced the directory {show(name)} while it was being made; choose a directory that only the"
        " running user can write to"
    )


def open_private(parent: int, name: bytes) -> int | None:
    """Open a folder that ``make_private`` made; return ``None`` if it is missing. Raises ``RootfsError``."""
    try:
        fd = os.open(name, DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise RootfsError(f"{show(name)} is not a directory; remove it and run again") from error
        raise
    with closed_on_error(fd):
        if os.fstat(fd).st_mode & 0o077 or not _is_own(fd):
            raise RootfsError(
                f"the private folder {show(name)} belongs to another user or is open to others, so its content cannot be"
                " trusted; inspect it, remove it and run again"
            )
    return fd


def _is_own(fd: int) -> bool:
    """Return whether a directory belongs to this user, or to whom new files of this user belong there.

    The latter is somebody else if a server squashes root. In a directory of another user, new files belong to this one.
    """
    owner = os.fstat(fd).st_uid
    if owner == os.geteuid():
        return True
    try:
        with opened(open_temporary(fd)) as file:
            return os.fstat(file).st_uid == owner
    except OSError:
        return False


def open_temporary(fd: int) -> int:
    """Open a new, empty file without a name on the file system of the directory ``fd``."""
    try:
        return os.open(b".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=fd)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            # without the name, which tells nothing
            raise OSError(error.errno, error.strerror) from error
    # a file system without such files, as NFS and FUSE
    name = b".probe-" + os.urandom(16).hex().encode()
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd)
    with closed_on_error(file):
        os.unlink(name, dir_fd=fd)
    return file


def drop_inherited_acl(fd: int) -> None:
    """Remove the ACLs that a new directory inherited from its parent's default ACL."""
    for name in ("system.posix_acl_default", "system.posix_acl_access"):
        try:
            os.removexattr(fd, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise


def remove_if_empty(parent: int, name: bytes) -> bool:
    """Remove an empty directory; return false if it is missing or not empty."""
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY):
            return False
        raise
    return True


def move(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
    """Rename, but never replace anything."""
    with movable(old_dir, old):
        _rename(old_dir, old, new_dir, new)


@contextlib.contextmanager
def movable(parent: int, name: bytes) -> t.Iterator[None]:
    """Allow to move ``name`` within the block.

    A directory that its owner may not write to cannot be moved by an ordinary user, an immutable one by nobody.
    """
    if os.geteuid() == 0:
        with unprotected(parent, name):
            yield
        return
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode) or mode & 0o200:
        yield
        return
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    with opened(os.open(name, flags, dir_fd=parent)) as fd:
        path = f"/proc/self/fd/{fd}"
        os.chmod(path, 0o700)
        try:
            yield
        finally:
            os.chmod(path, mode)


def _rename(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
    try:
        rename_new(old_dir, old, new_dir, new)
    except OSError as error:
        if error.errno not in NO_RENAMEAT2:
            raise
        # nobody else can make the name in between: the folders are private, and this run holds the lock
        if exists(new_dir, new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        os.rename(old, new, src_dir_fd=old_dir, dst_dir_fd=new_dir)


def exists(parent: int, name: bytes) -> bool:
    """Return whether a directory holds a name, of whatever type."""
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def names_in(fd: int) -> list[bytes]:
    """Return the names that a directory holds now."""
    _rewind(fd)
    return [os.fsencode(name) for name in os.listdir(fd)]


def some_names_in(fd: int, count: int, but: frozenset[bytes] = frozenset()) -> list[bytes]:
    """Return at most ``count`` of the names that a directory holds now, without those in ``but``."""
    _rewind(fd)
    with os.scandir(fd) as entries:
        names = (os.fsencode(entry.name) for entry in entries)
        return list(itertools.islice((name for name in names if name not in but), count))


def _rewind(fd: int) -> None:
    # btrfs lists what the directory held when the descriptor was opened or rewound
    os.lseek(fd, 0, os.SEEK_SET)


def open_or_none(parent: int, name: bytes) -> int | None:
    """Open a directory; return ``None`` if it is missing. Raises ``RootfsError`` for anything but a directory."""
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise RootfsError(
                f"{show(name)} is a link or a file, not a directory; remove it or choose another path"
            ) from error
        raise RootfsError(f"{show(name)} cannot be opened: {os_phrase(error)}") from error


def _readable(fd: int) -> int:
    return os.open(b".", DIRECTORY, dir_fd=fd)
