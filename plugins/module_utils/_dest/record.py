# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of a dest, and the binding by which a tree is recognised (docs/behaviour.md, section 7)."""

from __future__ import annotations

import errno
import json
import os
import typing as t
from dataclasses import dataclass, field, replace

from .._errors import RootfsError
from .._fs.descriptors import opened
from .._fs.directories import open_temporary
from .._fs.syscalls import birth_time, is_subvolume_root

# Increased when the meaning of records or trees changes; trees of another format are unpacked again.
FORMAT = 1

# `trusted.*` is out of reach for a container's own root
# the mark of stacks begins like it, too
_TOKEN = "trusted.hypervisor_oci"
# Digests of indexes that are kept for one tree: a tag's index may change while this image in it does not.
_MOST_INDEXES = 16
_NO_XATTRS = (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA)

UNPACKING = "unpacking"
STAGED = "staged"
PREPARED = "prepared"
RESTORING = "restoring"
MOVING = "moving"


@dataclass(frozen=True)
class Binding:
    """Ties a record to one directory by a random token in an xattr, the inode number and the birth time.

    ``token`` is ``None`` if trusted xattrs are not available. ``subvolume`` is the UUID if it is the root of a btrfs subvolume.
    The device number is left out, because it may change at each boot.
    """

    token: str | None
    inode: int
    birth: str | None
    subvolume: str | None = None

    def holds(self, fd: int) -> bool:
        """Return whether ``fd`` is that directory."""
        if os.fstat(fd).st_ino != self.inode:
            return False
        if self.subvolume is not None and _subvolume_of(fd) != self.subvolume:
            # a snapshot of it has the same inode, token and time
            return False
        if self.token is not None:
            return _read_token(fd) == self.token
        return self.birth == birth_time(fd)


def random_name() -> str:
    """Return 128 random bits in hexadecimal, as a token or a name that nobody can guess."""
    return os.urandom(16).hex()


def bind(fd: int, new_token: bool = True) -> Binding:
    """Bind the directory ``fd``, with a new token if trusted xattrs are available."""
    token: str | None = None
    if new_token:
        token = random_name()
        try:
            os.setxattr(fd, _TOKEN, token.encode())
        except OSError as error:
            if error.errno not in _NO_XATTRS:
                raise
            token = None
        if _read_token(fd) != token:
            # a file system that only pretends to store it
            token = None
    return Binding(token, os.fstat(fd).st_ino, birth_time(fd), _subvolume_of(fd))


def _subvolume_of(fd: int) -> str | None:
    if not is_subvolume_root(os.fstat(fd)):
        return None
    # imported late: few trees are subvolumes
    from .._fs.btrfs import subvolume_id

    return subvolume_id(fd)


def move_token(binding: Binding, fd: int) -> Binding:
    """Set the same token on another directory, the root of a mount."""
    if binding.token is not None:
        os.setxattr(fd, _TOKEN, binding.token.encode())
    return Binding(binding.token, os.fstat(fd).st_ino, birth_time(fd))


def change_time(fd: int) -> int:
    """Return the time of change of a file that is made now on the file system of the directory ``fd``, in nanoseconds."""
    with opened(open_temporary(fd)) as file:
        return os.fstat(file).st_ctime_ns


def unbind(fd: int) -> None:
    """Remove the token, so that no record recognises the directory."""
    try:
        os.removexattr(fd, _TOKEN)
    except OSError as error:
        if error.errno not in _NO_XATTRS:
            raise


def is_token(xattr: str) -> bool:
    """Return whether an xattr holds the token, or is another one of this module's own."""
    return xattr.startswith(_TOKEN)


def _read_token(fd: int) -> str | None:
    try:
        return os.getxattr(fd, _TOKEN).decode("ascii", "replace")
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return None
        raise


@dataclass(frozen=True)
class Selection:
    """How the image of a tree was chosen: the ``platform`` that was asked for, and the digests of indexes read on the way.

    ``warnings`` are those of the image's documents. ``realms`` are the origins of token servers that got credentials for a
    registry of another domain, by registry.
    """

    platform: str = ""
    indexes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    realms: dict[str, str] = field(default_factory=dict)

    def joined(self, older: Selection) -> Selection:
        """Return this selection of the same image with what an older one knows beyond it."""
        realms = {**older.realms, **self.realms}
        if older.platform != self.platform:
            return replace(self, realms=realms)
        indexes = tuple(dict.fromkeys([*self.indexes, *older.indexes]))[:_MOST_INDEXES]
        return replace(self, indexes=indexes, realms=realms)


@dataclass(frozen=True)
class Tree:
    """A tree that this module made, or keeps for the user.

    ``name`` is its name in the private folder or, for a staging directory, in the mount point; it is empty for the tree
    at ``dest``. ``fingerprint`` and ``result`` are empty for a foreign tree. ``mtime`` is the modification time of the
    root directory in nanoseconds. ``selection`` is empty for a foreign tree, too. ``signers`` are the fingerprints of the
    keys by which signatures of its image were verified, with the references that each has signed. ``papers`` is the random
    name of what is kept beside the record, see ``Dest.save``: a long inventory, and the journal of what was written, unless
    the ``store`` has it. ``made`` is when the tree was unpacked, in seconds since the epoch, ``finished`` the time of change, in
    nanoseconds, of a file that was made after it; 0 if that is not known. A ``failed`` tree is never brought back. One that
    ``drifted`` was replaced because it differed from its image, and is kept beyond those to keep.
    ``snapshots`` are the names of those that it was made of, the lowest first, in the ``store``, a path.
    """

    binding: Binding
    fingerprint: dict[str, t.Any] = field(default_factory=dict)
    result: dict[str, t.Any] = field(default_factory=dict)
    name: str = ""
    mtime: int = 0
    selection: Selection = field(default_factory=Selection)
    signers: dict[str, list[str]] = field(default_factory=dict)
    papers: str = ""
    made: int = 0
    failed: bool = False
    snapshots: tuple[str, ...] = ()
    store: str = ""
    finished: int = 0
    drifted: bool = False

    @property
    def form(self) -> str | None:
        """Return how it shares its layers, or ``None`` for a tree of its own, as an image may need one."""
        return self.fingerprint.get("form") if self.snapshots else None


@dataclass(frozen=True)
class Record:
    """Everything that is known about one dest.

    ``tree`` is the tree at dest, ``next`` the next one, and ``phase`` says how far it is. ``aside`` is the name of the old
    tree while two renames stand for an exchange. ``trash`` lists trees to remove, ``generations`` earlier trees, the
    newest first. ``old_names`` and ``new_names`` are the top-level names of a move inside a mount point.
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
        """Return whether nothing is recorded."""
        return self == Record()

    @property
    def papers(self) -> frozenset[str]:
        """Return the names of the papers that belong to trees which are still needed."""
        trees = (self.tree, self.next, *self.generations)
        return frozenset(tree.papers for tree in trees if tree is not None and tree.papers)

    @property
    def stacks(self) -> list[int]:
        """Return the inode numbers of stacks that are still needed."""
        trees = (self.tree, self.next, *self.generations)
        return sorted(tree.binding.inode for tree in trees if tree is not None and tree.form == "overlay")

    def without_next(self) -> Record:
        """Return the record with the next tree in the trash, and without a foreign tree that it was to replace."""
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


def to_json(record: Record, dest: str = "") -> bytes:
    """Return the record as it is written to disk, with the path that it is for."""
    # not asdict, which copies each value of an image's config
    return json.dumps({"format": FORMAT, "dest": dest, **vars(record)}, default=vars).encode("utf-8")


def dest_of(data: bytes) -> str | None:
    """Return the path that a stored record is for, or ``None`` if it does not say so."""
    try:
        dest = json.loads(data).get("dest")
    except (ValueError, AttributeError, RecursionError):
        return None
    return dest if isinstance(dest, str) else None


def from_json(data: bytes, where: str) -> Record:
    """Parse a record. Raises ``RootfsError`` if this version cannot read it."""
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
    chosen = value["selection"]
    lists = {name: tuple(map(str, chosen[name])) for name in ("indexes", "warnings")}
    checked = {
        "binding": Binding(**value["binding"]),
        "selection": Selection(**{**chosen, **lists}),
        "signers": {str(key): list(map(str, names)) for key, names in dict(value["signers"]).items()},
        "papers": str(value.get("papers", "")),
        "made": int(value.get("made", 0)),
        "failed": bool(value.get("failed", False)),
        "snapshots": tuple(map(str, value.get("snapshots", ()))),
        "store": str(value.get("store", "")),
        "finished": int(value.get("finished", 0)),
        "drifted": bool(value.get("drifted", False)),
    }
    return Tree(**{**value, **checked})
