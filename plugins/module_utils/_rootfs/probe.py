# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probe whether a file system stores what every image has: owners, permissions and times (docs/behaviour.md, section 6)."""

from __future__ import annotations

import os
import stat
import typing as t

from .._errors import RootfsError, os_phrase
from .._fs.descriptors import opened
from .._fs.directories import open_temporary
from .._unpack_options import UnpackOptions
from .ids import IdMap

_NO_TIMES = "the file system of dest does not store times: files keep the times at which they are written"
_OWNERS_ADVICE = "set ownership: ignore, or choose a dest on another file system"
_MODE = 0o751
_SET_IDS = stat.S_ISUID | stat.S_ISGID
# nanoseconds; file systems round to two seconds at most
_TIME = 1_000_000_000_123_456_789
_PRECISION = 2_000_000_000


def require_storable(fd: int, options: UnpackOptions, warn: t.Callable[[str], None]) -> None:
    """Write the metadata that the options need to a temporary file in the directory ``fd``, and read it back.

    Some file systems in user space ignore owners: a setuid file of another user would become one of root. A server that
    squashes root refuses them. ``warn`` gets what a tree can do without. Raises ``RootfsError`` that says what helps.
    """
    with opened(open_temporary(fd)) as file:
        if options.preserve:
            _require_owners(file, _first_host_id(options.uids), _first_host_id(options.gids))
        # only with their own owners do files get these bits
        mode = _MODE | _SET_IDS if options.preserve else _MODE
        os.fchmod(file, mode)
        found = stat.S_IMODE(os.fstat(file).st_mode)
        if not _stores_times(file):
            warn(_NO_TIMES)
    if found != mode:
        raise RootfsError(
            f"the file system of dest does not store permissions: a file has the mode {found:04o} after it was set to"
            f" {mode:04o}; choose a dest on another file system"
        )


def _require_owners(file: int, uid: int, gid: int) -> None:
    maker = os.fstat(file).st_uid
    try:
        os.fchown(file, uid, gid)
    except OSError as error:
        if maker == os.geteuid():
            # another limit of this process: owners that the image does not have are no obstacle
            return
        raise RootfsError(
            f"the file system of dest does not let root set owners ({os_phrase(error)}), and files of root belong to user"
            f" {maker} there, as on a server that squashes root; {_OWNERS_ADVICE}"
        ) from error
    status = os.fstat(file)
    if (status.st_uid, status.st_gid) != (uid, gid):
        raise RootfsError(
            f"the file system of dest does not store owners: a file belongs to {status.st_uid}:{status.st_gid} after it was"
            f" given to {uid}:{gid}; {_OWNERS_ADVICE}"
        )


def _stores_times(file: int) -> bool:
    try:
        os.utime(file, ns=(_TIME, _TIME))
    except OSError as error:
        raise RootfsError(
            f"the file system of dest does not let the owner of a file set its times ({os_phrase(error)}); choose a dest on"
            " another file system"
        ) from error
    return abs(os.fstat(file).st_mtime_ns - _TIME) < _PRECISION


def _first_host_id(ids: IdMap) -> int:
    return ids.ranges[0][1] if ids.ranges else 1
