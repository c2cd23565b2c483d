# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Accounts of a tree that is on disk, and what systemd-nspawn would make of them (docs/behaviour.md, sections 8 and 9).

The tree may have been written to by a container, and none of its programs is ever run.
"""

from __future__ import annotations

import os
import stat
import typing as t
from dataclasses import dataclass

from .._errors import RootfsError, show
from .lookup import look_up
from .._rootfs.users import (
    Files,
    parse_accounts,
    find_account,
    read_fields,
    parse_id,
    supplementary_groups,
)

_EXISTING_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_GETENT = (b"usr/bin/getent", b"bin/getent")
# Services whose answer for an account of the files is what the files say.
_PLAIN = ("files", "compat", "systemd")
# What systemd takes for no id, since 16 bits of it mean -1.
_NO_ID = 65535


@dataclass(frozen=True)
class TreeOnDisk:
    """Finds files below the directory ``fd`` as if chrooted to it."""

    fd: int

    def open_file(self, path: bytes) -> int | None:
        """A descriptor of a regular file for reading; ``None`` where there is none. Raises ``RootfsError``."""
        try:
            with look_up(self.fd, path) as found:
                if found.missing or not stat.S_ISREG(found.mode):
                    return None
                # the file that was looked at, whatever its name means by now
                return os.open(f"/proc/self/fd/{found.fd}", _EXISTING_FILE)
        except RootfsError:
            # a loop of links leads to nothing
            return None
        except PermissionError as error:
            raise RootfsError(
                f"{show(path)} of the root file system cannot be read; run as root"
            ) from error


@dataclass(frozen=True)
class GetentUser:
    """What nspawn's ``User=`` would give; null where ``getent`` is false, and where there is no such account."""

    getent: bool
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()

    def to_facts(self) -> dict[str, t.Any]:
        """The ``nspawn`` value of a result."""
        return {
            "getent": self.getent,
            "uid": self.uid,
            "gid": self.gid,
            "groups": None if self.uid is None else list(self.groups),
        }


def judge_getent(user: str, root: Files) -> GetentUser:
    """Judge by the files what ``getent passwd`` and ``getent initgroups`` would print in the tree.

    ``getent`` is false where there is none, and where more than files could answer: it may be a script, as in Alpine, or
    ``/etc/nsswitch.conf`` may name other services.
    """
    name = user.partition(":")[0]
    passwd = read_fields(root, b"etc/passwd")
    group = read_fields(root, b"etc/group")
    if not _has_getent(root) or not _is_plain(root, passwd, group):
        return GetentUser(False)
    if name in ("", "root", "0"):
        # not looked up at all
        return GetentUser(True, 0, 0)
    account = find_account(name, parse_accounts(passwd))
    if account is None or _NO_ID in (account.uid, account.gid):
        return GetentUser(True)
    groups: tuple[int, ...] = ()
    if parse_id(name) is None:
        # a number is no name of a member
        groups = supplementary_groups(account.name, account.gid, group)
    return GetentUser(True, account.uid, account.gid, groups)


def _has_getent(root: Files) -> bool:
    for path in _GETENT:
        fd = root.open_file(path)
        if fd is None:
            continue
        try:
            if os.fstat(fd).st_mode & 0o111:
                return os.read(fd, 4) == b"\x7fELF"
        finally:
            os.close(fd)
    return False


def _is_plain(root: Files, passwd: list[list[str]], group: list[list[str]]) -> bool:
    """Whether the tree's name service asks nothing but its files."""
    for fields in read_fields(root, b"etc/nsswitch.conf"):
        if fields[0].strip() not in ("passwd", "group", "initgroups"):
            continue
        services = ":".join(fields[1:]).partition("#")[0].split()
        if not services or services[0] == "systemd" or set(services) - set(_PLAIN):
            return False
    # lines that bring in accounts from elsewhere, or take some away
    return not any(fields[0][:1] in ("+", "-") for fields in (*passwd, *group))
