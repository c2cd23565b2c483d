# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Opening and making directories on the host, no component followed through a link."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import typing as t

from .._errors import RootfsError, os_phrase, show
from .protection import unprotected
from .syscalls import rename_new

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What kernels and file systems answer that cannot exchange or refuse to replace.
NO_RENAMEAT2 = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_THROUGH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_existing(path: bytes) -> tuple[int, list[bytes]]:
    """A descriptor of the deepest directory of an absolute, resolved path that is there, and the rest.

    Raises ``RootfsError`` where a component is no directory (any more).
    """
    parts = [part for part in path.split(b"/") if part]
    fd = os.open(b"/", _THROUGH)
    try:
        for index, part in enumerate(parts):
            try:
                below = os.open(part, _THROUGH, dir_fd=fd)
            except FileNotFoundError:
                return _readable(fd), parts[index:]
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise RootfsError(
                        f"{show(b'/' + b'/'.join(parts[: index + 1]))} is not a directory; choose another dest"
                    ) from error
                raise
            os.close(fd)
            fd = below
        return _readable(fd), []
    finally:
        os.close(fd)


def make_directories(
    fd: int, parts: list[bytes], last_mode: int, group: int = -1
) -> int:
    """Make the directories ``parts`` below ``fd``, 0755 but for the last; returns a descriptor of that one.

    The last belongs to ``group``, where one is given. What was made is removed again where a later one cannot
    be made.
    """
    current = os.dup(fd)
    made: list[tuple[int, bytes]] = []
    try:
        for index, part in enumerate(parts):
            mode = last_mode if index == len(parts) - 1 else 0o755
            # at once, so that no crash leaves a directory closed that users of the tree must pass
            os.mkdir(part, mode, dir_fd=current)
            made.append((os.dup(current), part))
            below = open_made(current, part, mode)
            os.close(current)
            current = below
            if index == len(parts) - 1:
                # an ACL that comes from above would let others pass
                drop_inherited_acl(current)
                os.fchown(current, -1, group)
            os.fchmod(current, mode)
        return os.dup(current)
    except (OSError, RootfsError):
        for above, part in reversed(made):
            # the first error is the one to tell
            with contextlib.suppress(OSError):
                remove_if_empty(above, part)
        raise
    finally:
        os.close(current)
        for above, _part in made:
            os.close(above)


def make_private(parent: int, name: bytes) -> int:
    """Open ``name``, made with 0700 where it is missing; another's, or one that is open to others, is an error."""
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
    fd = -1
    try:
        fd = open_made(parent, name, 0o700)
        # a setgid bit that comes from above would spread into the tree
        os.fchmod(fd, 0o700)
        drop_inherited_acl(fd)
        return fd
    except (OSError, RootfsError):
        if fd >= 0:
            os.close(fd)
        # the first error is the one to tell
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=parent)
        raise


def open_made(parent: int, name: bytes, mode: int) -> int:
    """Open the directory ``name`` that this process has just made with ``mode``.

    Whoever may write to ``parent`` can put something else into its place before it is opened, so it must be the caller's
    own and no more open than it was made. It need not be empty: another run of the caller's may work in it already.
    Raises ``RootfsError``, and ``FileNotFoundError`` where another run has removed it.
    """
    try:
        fd = os.open(name, DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise _replaced(name) from error
        raise
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o777 & ~mode:
        os.close(fd)
        raise _replaced(name)
    return fd


def _replaced(name: bytes) -> RootfsError:
    return RootfsError(
        f"the directory {show(name)} was replaced by another user while it was made; choose a place that only the running"
        " user can write to"
    )


def open_private(parent: int, name: bytes) -> int | None:
    """Open a folder that ``make_private`` made; ``None`` where it is missing. Raises ``RootfsError``."""
    try:
        fd = os.open(name, DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise RootfsError(
                f"{show(name)} beside dest is not a directory; remove it and run again"
            ) from error
        raise
    status = os.fstat(fd)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        os.close(fd)
        raise RootfsError(
            f"the folder {show(name)} beside dest belongs to another user or is open to others, so its records"
            " cannot be trusted; look at it, remove it and run again"
        )
    return fd


def drop_inherited_acl(fd: int) -> None:
    """Take away what a default ACL of the folder above left on a new directory."""
    for name in ("system.posix_acl_default", "system.posix_acl_access"):
        try:
            os.removexattr(fd, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise


def remove_if_empty(parent: int, name: bytes) -> bool:
    """Remove an empty directory; false where it is not empty, or not there."""
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY):
            return False
        raise
    return True


def move(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
    """Rename, never over something that is there."""
    with movable(old_dir, old):
        _rename(old_dir, old, new_dir, new)


@contextlib.contextmanager
def movable(parent: int, name: bytes) -> t.Iterator[None]:
    """For that time, take away what keeps ``name`` from being moved.

    An ordinary user cannot move a directory that he may not write to, and nobody one that is immutable.
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
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    path = f"/proc/self/fd/{fd}"
    try:
        os.chmod(path, 0o700)
        try:
            yield
        finally:
            os.chmod(path, mode)
    finally:
        os.close(fd)


def _rename(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
    try:
        rename_new(old_dir, old, new_dir, new)
    except OSError as error:
        if error.errno not in NO_RENAMEAT2:
            raise
        # the lock and the private folders leave nobody who could make the name in between
        if new in names_in(new_dir):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        os.rename(old, new, src_dir_fd=old_dir, dst_dir_fd=new_dir)


def names_in(fd: int) -> list[bytes]:
    """The names in a directory, of this moment."""
    _set_back(fd)
    return [os.fsencode(name) for name in os.listdir(fd)]


def some_names_in(
    fd: int, count: int, but: frozenset[bytes] = frozenset()
) -> list[bytes]:
    """At most ``count`` of the names in a directory, of this moment, but for those that are given."""
    _set_back(fd)
    with os.scandir(fd) as entries:
        names = (os.fsencode(entry.name) for entry in entries)
        return list(
            itertools.islice((name for name in names if name not in but), count)
        )


def _set_back(fd: int) -> None:
    # btrfs shows what was there when the descriptor was opened or set back
    os.lseek(fd, 0, os.SEEK_SET)


def open_or_none(parent: int, name: bytes) -> int | None:
    """A directory's descriptor; ``None`` where the name is missing. Raises ``RootfsError`` for other things."""
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise RootfsError(
                f"{show(name)} is not a directory but a link or file; remove it or choose another dest"
            ) from error
        raise RootfsError(
            f"{show(name)} cannot be opened: {os_phrase(error)}"
        ) from error


def _readable(fd: int) -> int:
    return os.open(b".", DIRECTORY, dir_fd=fd)
