# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Look up accounts in a tree on disk, also as systemd-nspawn would (docs/behaviour.md, sections 8 and 9).

A container may have written to the tree, so none of its programs is run.
"""

from __future__ import annotations

import os
import stat
import typing as t
from dataclasses import dataclass

from .._errors import RootfsError, show
from .._fs.descriptors import opened
from .lookup import look_up
from .._rootfs.users import Files, parse_accounts, find_account, read_fields, parse_id, supplementary_groups

_EXISTING_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_GETENT = (b"usr/bin/getent", b"bin/getent")
# Name services that answer for an account in the files with what the files say.
_PLAIN = ("files", "compat", "systemd")
# systemd treats this id as invalid, because it is -1 in 16 bits.
_NO_ID = 65535


@dataclass(frozen=True)
class TreeOnDisk:
    """Opens files below the directory ``fd`` as if chrooted to it."""

    fd: int

    def open_file(self, path: bytes) -> int | None:
        """Open a regular file for reading; return ``None`` if it is missing or something else. Raises ``RootfsError``."""
        try:
            with look_up(self.fd, path) as found:
                if found.missing or not stat.S_ISREG(found.mode):
                    return None
                # by descriptor, because the name may lead to another file by now
                return os.open(f"/proc/self/fd/{found.fd}", _EXISTING_FILE)
        except RootfsError:
            # a loop of links
            return None
        except PermissionError as error:
            raise RootfsError(f"{show(path)} of the root file system cannot be read; run as root") from error


@dataclass(frozen=True)
class GetentUser:
    """What ``User=`` of nspawn would resolve to; null if ``getent`` is false or the account does not exist."""

    getent: bool
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()

    def to_facts(self) -> dict[str, t.Any]:
        """Return the ``nspawn`` value of the result."""
        return {
            "getent": self.getent,
            "uid": self.uid,
            "gid": self.gid,
            "groups": None if self.uid is None else list(self.groups),
        }


def judge_getent(user: str, root: Files) -> GetentUser:
    """Predict from the files what ``getent passwd`` and ``getent initgroups`` would print in the tree.

    ``getent`` of the result is false if the program is missing or if its answer may not come from the files: it can be a
    script, as in Alpine, or ``/etc/nsswitch.conf`` can name other services.
    """
    name = user.partition(":")[0]
    passwd = read_fields(root, b"etc/passwd")
    group = read_fields(root, b"etc/group")
    if not _has_getent(root) or not _is_plain(root, passwd, group):
        return GetentUser(False)
    if name in ("", "root", "0"):
        # nspawn does not look up root
        return GetentUser(True, 0, 0)
    account = find_account(name, parse_accounts(passwd))
    if account is None or _NO_ID in (account.uid, account.gid):
        return GetentUser(True)
    groups: tuple[int, ...] = ()
    if parse_id(name) is None:
        # groups list their members by name only
        groups = supplementary_groups(account.name, account.gid, group)
    return GetentUser(True, account.uid, account.gid, groups)


def _has_getent(root: Files) -> bool:
    for path in _GETENT:
        fd = root.open_file(path)
        if fd is None:
            continue
        with opened(fd):
            if os.fstat(fd).st_mode & 0o111:
                return os.read(fd, 4) == b"\x7fELF"
    return False


def _is_plain(root: Files, passwd: list[list[str]], group: list[list[str]]) -> bool:
    """Return whether the name services of the tree ask only its files."""
    for fields in read_fields(root, b"etc/nsswitch.conf"):
        if fields[0].strip() not in ("passwd", "group", "initgroups"):
            continue
        services = ":".join(fields[1:]).partition("#")[0].split()
        if not services or services[0] == "systemd" or set(services) - set(_PLAIN):
            return False
    # such lines add accounts from other services, or exclude some
    return not any(fields[0][:1] in ("+", "-") for fields in (*passwd, *group))
