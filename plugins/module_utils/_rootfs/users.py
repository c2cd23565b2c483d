# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""The image's user as numbers, from the root's own passwd and group (docs/behaviour.md, section 8)."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from .._errors import EntryError, show

# Account files are lines of text; what is larger is no account file.
_LIMIT = 1024 * 1024
_LAST_ID = 2**32 - 2


class Files(t.Protocol):
    """A tree that finds files in itself, as if chrooted."""

    def open_file(self, path: bytes) -> int | None:
        """A descriptor of a regular file for reading; ``None`` where there is none."""


@dataclass(frozen=True)
class ResolvedUser:
    """Container ids; ``groups`` are the supplementary ones. All null where the name does not exist.

    ``home`` is null where there is no account, too.
    """

    uid: int | None
    gid: int | None
    groups: tuple[int, ...]
    warning: str | None = None
    home: str | None = None

    def to_facts(self) -> dict[str, t.Any]:
        """The keys that join the image facts."""
        known = self.uid is not None
        return {
            "uid": self.uid,
            "gid": self.gid,
            "groups": list(self.groups) if known else None,
            "home": self.home if known else None,
        }


@dataclass(frozen=True)
class Account:
    """A line of ``/etc/passwd``; ``home`` is null where it is no absolute path."""

    name: str
    uid: int
    gid: int
    home: str | None


def resolve_user(user: str, root: Files) -> ResolvedUser:
    """Resolve ``USER[:GROUP]`` of an image config in the tree itself.

    Empty is 0:0. A number is taken as it is, with its account's group and supplementary groups where
    it has one. A group that is given leaves no supplementary ones. A name that is not there gives
    nulls and a warning, never root.
    """
    name, colon, group = user.partition(":")
    accounts = accounts_of(lines_of(root, b"etc/passwd"))
    account = find_account(name or "0", accounts)
    home = account.home if account is not None else None
    if not user:
        return ResolvedUser(0, 0, (), home=home)
    groups = lines_of(root, b"etc/group")
    uid = number_of(name or "0") if account is None else account.uid
    if uid is None:
        return _unknown(f"the image's user {show(user)} is not in its /etc/passwd")
    if colon and group:
        gid = _find_group(group, groups)
        if gid is None:
            return _unknown(f"the image's group {show(group)} is not in its /etc/group")
        return ResolvedUser(uid, gid, (), home=home)
    if account is None:
        return ResolvedUser(uid, 0, ())
    return ResolvedUser(
        uid,
        account.gid,
        supplementary_groups(account.name, account.gid, groups),
        home=home,
    )


def _unknown(warning: str) -> ResolvedUser:
    return ResolvedUser(
        None, None, (), f"{warning}; name another user before you start a container"
    )


def lines_of(root: Files, path: bytes) -> list[list[str]]:
    """The fields of each line; none where the file is missing, no regular file, closed, or too large."""
    try:
        fd = root.open_file(path)
    except (EntryError, PermissionError):
        # an ordinary user cannot read what the image closed to its owner
        return []
    if fd is None:
        return []
    try:
        if os.fstat(fd).st_size > _LIMIT:
            return []
        content = b""
        while len(content) <= _LIMIT:
            chunk = os.read(fd, 65536)
            if not chunk:
                break
            content += chunk
    finally:
        os.close(fd)
    return [
        line.split(":")
        for line in content.decode("utf-8", "surrogateescape").split("\n")
        if line and not line.startswith("#")
    ]


def accounts_of(lines: list[list[str]]) -> list[Account]:
    """The lines of ``/etc/passwd`` that are accounts."""
    accounts = []
    for fields in lines:
        uid = number_of(fields[2]) if len(fields) > 3 else None
        gid = number_of(fields[3]) if len(fields) > 3 else None
        if uid is not None and gid is not None:
            accounts.append(Account(fields[0], uid, gid, _home(fields)))
    return accounts


def _home(fields: list[str]) -> str | None:
    """An absolute path in UTF-8: what is none can be no value of ``HOME``."""
    home = fields[5] if len(fields) > 5 else ""
    is_text = not any("\udc80" <= c <= "\udcff" for c in home)
    return home if home.startswith("/") and is_text else None


def find_account(name: str, accounts: list[Account]) -> Account | None:
    number = number_of(name)
    for account in accounts:
        # a number is an id, whatever accounts may be called
        if (account.name == name) if number is None else (account.uid == number):
            return account
    return None


def _find_group(name: str, lines: list[list[str]]) -> int | None:
    number = number_of(name)
    if number is not None:
        return number
    for fields in lines:
        if len(fields) > 2 and fields[0] == name:
            return number_of(fields[2])
    return None


def supplementary_groups(
    name: str, primary: int, lines: list[list[str]]
) -> tuple[int, ...]:
    """The groups of ``/etc/group`` that name the account, without its primary one."""
    found = set()
    for fields in lines:
        gid = number_of(fields[2]) if len(fields) > 3 else None
        if gid is not None and gid != primary and name in fields[3].split(","):
            found.add(gid)
    return tuple(sorted(found))


def number_of(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= 10:
        number = int(text)
        return number if number <= _LAST_ID else None
    return None
