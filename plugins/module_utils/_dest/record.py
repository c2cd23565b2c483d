# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""What the module remembers about a dest, and how a tree is known again (docs/behaviour.md, section 7)."""

from __future__ import annotations

import errno
import json
import os
import typing as t
from dataclasses import dataclass, field, replace

from .._errors import RootfsError
from .._fs.syscalls import birth_time

# Raised when records or trees come to mean something else; trees of another version are made anew.
FORMAT = 1

# `trusted.*` is out of reach for a container's own root
_TOKEN = "trusted.hypervisor_oci"
_NO_XATTRS = (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA)

UNPACKING = "unpacking"
STAGED = "staged"
PREPARED = "prepared"
RESTORING = "restoring"
MOVING = "moving"


@dataclass(frozen=True)
class Binding:
    """Ties a record to one directory: a random token in its xattr, its inode, when it was made.

    ``token`` is ``None`` where trusted xattrs are not to be had. The device number is left out, since it
    changes over reboots.
    """

    token: str | None
    inode: int
    birth: str | None

    def holds(self, fd: int) -> bool:
        """Whether ``fd`` is that directory."""
        if os.fstat(fd).st_ino != self.inode:
            return False
        if self.token is not None:
            return _read_token(fd) == self.token
        return self.birth == birth_time(fd)


def random_name() -> str:
    """128 random bits: a token, or a name that nobody can guess."""
    return os.urandom(16).hex()


def bind(fd: int, new_token: bool = True) -> Binding:
    """Bind the directory behind ``fd``, with a new token where that is possible."""
    token: str | None = None
    if new_token:
        token = random_name()
        try:
            os.setxattr(fd, _TOKEN, token.encode())
        except OSError as error:
            if error.errno not in _NO_XATTRS:
                raise
            token = None
    return Binding(token, os.fstat(fd).st_ino, birth_time(fd))


def move_token(binding: Binding, fd: int) -> Binding:
    """The same token on another directory (a mount point's own root)."""
    if binding.token is not None:
        os.setxattr(fd, _TOKEN, binding.token.encode())
    return Binding(binding.token, os.fstat(fd).st_ino, birth_time(fd))


def unbind(fd: int) -> None:
    """Take the token away, so that the directory is no one's any more."""
    try:
        os.removexattr(fd, _TOKEN)
    except OSError as error:
        if error.errno not in _NO_XATTRS:
            raise


def is_token(xattr: str) -> bool:
    """Whether an xattr's name is the token's."""
    return xattr == _TOKEN


def _read_token(fd: int) -> str | None:
    try:
        return os.getxattr(fd, _TOKEN).decode("ascii", "replace")
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return None
        raise


@dataclass(frozen=True)
class Tree:
    """A tree that this module made, or keeps for the user.

    ``name`` is where it lies in the state folder (in the mount point, for a staging there); empty for the
    one at ``dest``. ``fingerprint`` and ``result`` are empty for a foreign tree. ``mtime`` is the root
    directory's, in nanoseconds.
    """

    binding: Binding
    fingerprint: dict[str, t.Any] = field(default_factory=dict)
    result: dict[str, t.Any] = field(default_factory=dict)
    name: str = ""
    mtime: int = 0


@dataclass(frozen=True)
class Record:
    """Everything that is known about one dest.

    ``tree`` is what was made there; ``next`` a tree that is on its way, as far as ``phase`` says;
    ``aside`` the name under which the old tree waits where names cannot be exchanged; ``trash`` what may be
    removed; ``generations`` earlier trees, the newest first; ``old_names`` and ``new_names`` the top-level
    names of a move inside a mount point.
    """

    tree: Tree | None = None
    next: Tree | None = None
    phase: str = ""
    aside: str = ""
    trash: tuple[Tree, ...] = ()
    generations: tuple[Tree, ...] = ()
    old_names: tuple[str, ...] = ()
    new_names: tuple[str, ...] = ()
    removing: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remember."""
        return self == Record()

    def without_next(self) -> Record:
        """With what was on its way thrown away, and a foreign tree that it was to replace forgotten."""
        trash = self.trash if self.next is None else (*self.trash, self.next)
        ours = self.tree is not None and self.tree.fingerprint
        return replace(
            self,
            tree=self.tree if ours else None,
            next=None,
            phase="",
            aside="",
            trash=trash,
            old_names=(),
            new_names=(),
        )


def to_json(record: Record) -> bytes:
    """The record as it is written to disk."""
    # not asdict, which copies each value of an image's config
    return json.dumps({"format": FORMAT, **vars(record)}, default=vars).encode("utf-8")


def from_json(data: bytes, where: str) -> Record:
    """Read a record. Raises ``RootfsError`` for one that this version cannot read."""
    try:
        value = json.loads(data)
        if value["format"] != FORMAT:
            raise RootfsError(
                f"the record in {where} is of format {value['format']!r}, which this version does not know;"
                " update the collection, or remove that folder to give the tree up"
            )
        return Record(
            tree=_tree(value["tree"]),
            next=_tree(value["next"]),
            phase=str(value["phase"]),
            aside=str(value["aside"]),
            trash=_trees(value["trash"]),
            generations=_trees(value["generations"]),
            old_names=tuple(map(str, value["old_names"])),
            new_names=tuple(map(str, value["new_names"])),
            removing=bool(value["removing"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RootfsError(
            f"the record in {where} is damaged; look at the tree, then remove that folder to give the record up"
        ) from error


def _trees(values: list[t.Any]) -> tuple[Tree, ...]:
    return tuple(tree for tree in map(_tree, values) if tree is not None)


def _tree(value: dict[str, t.Any] | None) -> Tree | None:
    if value is None:
        return None
    return Tree(**{**value, "binding": Binding(**value["binding"])})
