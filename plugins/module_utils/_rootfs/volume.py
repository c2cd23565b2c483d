# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Persistent directories for volumes, filled once from the image (docs/behaviour.md, section 9)."""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from ansible_collections.hypervisor.oci.plugins.module_utils._errors import (
    RootfsError,
    os_advice,
    os_phrase,
    show,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.directories import (
    DIRECTORY,
    make_below,
    make_private,
    move,
    names_in,
    open_existing,
    open_or_none,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.lookup import (
    Found,
    look_up,
    opened_root,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.removal import (
    empty_directory,
    remove_tree,
)

# How a directory's content is copied: from one descriptor to another, with all that belongs to it.
Copy = t.Callable[[int, int], None]

_NEW_MODE = 0o755
_TEMPORARY = b".%s.oci_volume"


def provide_volume(
    path: str, rootfs: str, target: str, also_empty: bool, check_mode: bool, copy: Copy
) -> bool:
    """Make the directory C(path) as the image's C(target) is, with its content; returns whether something changed.

    A directory that is there is left alone, unless it is empty and C(also_empty) says that it may be filled. Nothing
    is ever there half filled. Raises C(RootfsError).
    """
    try:
        with opened_root(rootfs) as root, look_up(root, os.fsencode(target)) as found:
            if not found.missing and not stat.S_ISDIR(found.mode):
                raise RootfsError(
                    f"{show(target)} is a file in the image, and a volume is a directory; choose another target"
                )
            return _provide(path, root, found, also_empty, check_mode, copy)
    except OSError as error:
        advice = (
            os_advice(error) or "look at the file systems of the volume and the root"
        )
        raise RootfsError(
            f"the volume {show(path)} cannot be made: {os_phrase(error)}; {advice}"
        ) from error


def _provide(
    path: str, root: int, found: Found, also_empty: bool, check_mode: bool, copy: Copy
) -> bool:
    parent, name = os.path.split(os.path.normpath(path))
    if not name or not path.startswith("/"):
        raise RootfsError(
            f"the path {show(path)} of a volume is not absolute; give one"
        )
    above, missing = open_existing(os.fsencode(os.path.realpath(parent)))
    try:
        volume = None if missing else open_or_none(above, os.fsencode(name))
        if volume is not None:
            try:
                return _fill_empty(volume, found, also_empty, check_mode, copy)
            finally:
                os.close(volume)
        if check_mode:
            return True
        below = make_below(above, missing, 0o700)
        try:
            _make(below, os.fsencode(name), root, found, copy)
        finally:
            os.close(below)
        return True
    finally:
        os.close(above)


def _fill_empty(
    volume: int, found: Found, also_empty: bool, check_mode: bool, copy: Copy
) -> bool:
    if not also_empty or not found.is_directory or names_in(volume):
        return False
    with _readable(found) as source:
        if not names_in(source):
            return False
        if check_mode:
            return True
        try:
            copy(source, volume)
        except BaseException:
            empty_directory(volume)
            raise
    return True


def _make(parent: int, name: bytes, root: int, found: Found, copy: Copy) -> None:
    """Beside the volume first, so that one that is there is whole."""
    temporary = _TEMPORARY % name[:200]
    remove_tree(parent, temporary)
    fd = make_private(parent, temporary)
    try:
        if found.is_directory:
            with _readable(found) as source:
                copy(source, fd)
        else:
            # as a runtime would make it in the root
            owner = os.fstat(root)
            os.fchmod(fd, _NEW_MODE)
            os.fchown(fd, owner.st_uid, owner.st_gid)
        os.fsync(fd)
        move(parent, temporary, parent, name)
        os.fsync(parent)
    except BaseException:
        with contextlib.suppress(OSError, RootfsError):
            remove_tree(parent, temporary)
        raise
    finally:
        os.close(fd)


@contextlib.contextmanager
def _readable(found: Found) -> t.Iterator[int]:
    fd = os.open(b".", DIRECTORY, dir_fd=found.fd)
    try:
        yield fd
    finally:
        os.close(fd)
