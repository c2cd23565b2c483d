# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resolve the image's user by the root's own passwd and group files (docs/behaviour.md, section 8)."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass

from .._errors import EntryError, show
from .._fs.descriptors import opened

# Larger files are not read.
_LIMIT = 1024 * 1024
_LAST_ID = 2**32 - 2


class Files(t.Protocol):
    """A tree that opens files in itself, as if chrooted."""

    def open_file(self, path: bytes) -> int | None:
        """Open a regular file for reading; return ``None`` if it is missing."""


@dataclass(frozen=True)
class ResolvedUser:
    """Ids of the container; ``groups`` are the supplementary ones. All are null if the name does not exist.

    ``home`` is also null without an account.
    """

    uid: int | None
    gid: int | None
    groups: tuple[int, ...]
    warning: str | None = None
    home: str | None = None

    def to_facts(self) -> dict[str, t.Any]:
        """Return the keys that are added to the facts about the image."""
        known = self.uid is not None
        return {
            "uid": self.uid,
            "gid": self.gid,
            "groups": list(self.groups) if known else None,
            "home": self.home if known else None,
        }


@dataclass(frozen=True)
class Account:
    """A line of ``/etc/passwd``; ``home`` is null if it is not an absolute path."""

    name: str
    uid: int
    gid: int
    home: str | None


def resolve_user(user: str, root: Files) -> ResolvedUser:
    """Resolve ``USER[:GROUP]`` of an image config in the tree itself.

    An empty text is 0:0. A number needs no account, but gets the groups of its account if it has one. A group in the
    text leaves out supplementary groups. A name that does not exist gives nulls and a warning, never root.
    """
    name, colon, group = user.partition(":")
    accounts = parse_accounts(read_fields(root, b"etc/passwd"))
    account = find_account(name or "0", accounts)
    home = account.home if account is not None else None
    if not user:
        return ResolvedUser(0, 0, (), home=home)
    groups = read_fields(root, b"etc/group")
    uid = parse_id(name or "0") if account is None else account.uid
    if uid is None:
        return _unknown(f"the image's user {show(user)} is not in its /etc/passwd")
    if colon and group:
        gid = _find_group(group, groups)
        if gid is None:
            return _unknown(f"the image's group {show(group)} is not in its /etc/group")
        return ResolvedUser(uid, gid, (), home=home)
    if account is None:
        return ResolvedUser(uid, 0, ())
    return ResolvedUser(uid, account.gid, supplementary_groups(account.name, account.gid, groups), home=home)


def _unknown(warning: str) -> ResolvedUser:
    return ResolvedUser(None, None, (), f"{warning}; choose another user before you start a container")


def read_fields(root: Files, path: bytes) -> list[list[str]]:
    """Return the fields of each line; nothing if the file is missing, unreadable, too large, or not a regular file."""
    try:
        fd = root.open_file(path)
    except (EntryError, PermissionError):
        # an ordinary user cannot read files that the image closes to their owner
        return []
    if fd is None:
        return []
    with opened(fd):
        if os.fstat(fd).st_size > _LIMIT:
            return []
        content = b""
        while len(content) <= _LIMIT:
            chunk = os.read(fd, 65536)
            if not chunk:
                break
            content += chunk
    return [
        line.split(":")
        for line in content.decode("utf-8", "surrogateescape").split("\n")
        if line and not line.startswith("#")
    ]


def parse_accounts(lines: list[list[str]]) -> list[Account]:
    """Return the lines of ``/etc/passwd`` that are valid accounts."""
    accounts = []
    for fields in lines:
        uid = parse_id(fields[2]) if len(fields) > 3 else None
        gid = parse_id(fields[3]) if len(fields) > 3 else None
        if uid is not None and gid is not None:
            accounts.append(Account(fields[0], uid, gid, _home(fields)))
    return accounts


def _home(fields: list[str]) -> str | None:
    """Return the home directory if it can be a value of ``HOME``: an absolute path in UTF-8."""
    home = fields[5] if len(fields) > 5 else ""
    is_text = not any("\udc80" <= c <= "\udcff" for c in home)
    return home if home.startswith("/") and is_text else None


def find_account(name: str, accounts: list[Account]) -> Account | None:
    """Return the account with this name or, if it is a number, with this id."""
    number = parse_id(name)
    for account in accounts:
        # a number is always an id, even if an account has that name
        if (account.name == name) if number is None else (account.uid == number):
            return account
    return None


def _find_group(name: str, lines: list[list[str]]) -> int | None:
    number = parse_id(name)
    if number is not None:
        return number
    for fields in lines:
        if len(fields) > 2 and fields[0] == name:
            return parse_id(fields[2])
    return None


def supplementary_groups(name: str, primary: int, lines: list[list[str]]) -> tuple[int, ...]:
    """Return the groups of ``/etc/group`` that list the account, without its primary one."""
    found = set()
    for fields in lines:
        gid = parse_id(fields[2]) if len(fields) > 3 else None
        if gid is not None and gid != primary and name in fields[3].split(","):
            found.add(gid)
    return tuple(sorted(found))


def parse_id(text: str) -> int | None:
    """Return the id that a text is, or ``None`` if it is not a number in range."""
    if text.isascii() and text.isdigit() and len(text) <= 10:
        number = int(text)
        return number if number <= _LAST_ID else None
    return None
