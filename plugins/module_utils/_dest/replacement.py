# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The protocol of the two ways to replace the tree at dest, and their common base."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from .._fs.directories import make_private
from .dest import Dest
from .record import STAGED, UNPACKING, Binding, Record, Tree

# The binding of a directory that is known only by its random name.
BY_NAME = Binding(None, 0, None)


# Makes a directory at a name in a folder, and opens it.
MakeTree = t.Callable[[int, bytes], int]


class Replacement(t.Protocol):
    """The steps on disk that replace dest's tree; each leaves a record that the next run understands."""

    def current(self, record: Record) -> Tree | None:
        """Return the module's own tree at dest."""

    def holds_foreign(self, record: Record) -> bool:
        """Return whether dest holds a tree that this module did not create."""

    def check_use(self) -> None:
        """Raise ``RootfsError`` if something uses the tree at dest."""

    def recover(self, record: Record) -> Record:
        """Finish or undo what an earlier run left."""

    def stage(self, record: Record, make: MakeTree = make_private) -> tuple[Record, int]:
        """Make a directory for the next tree, private and empty by default; the caller closes its descriptor."""

    def staged(self, record: Record, tree: Tree) -> Record:
        """Record that the next tree is complete and durable."""

    def has_staged(self, record: Record) -> bool:
        """Return whether the next tree may be put into dest without unpacking it again."""

    def discard_next(self, record: Record) -> Record:
        """Remove the next tree."""

    def abandon(self, record: Record) -> Record:
        """Remove the next tree after an error, such as a full disk: the tree first, then the record."""

    def commit(self, record: Record) -> Record:
        """Put the staged tree into dest."""

    def previous(self, record: Record) -> Tree:
        """Return the newest earlier tree. Raises ``RootfsError`` if none is kept."""

    def require_whole(self, tree: Tree) -> None:
        """Require that all that an earlier tree consists of is there. Raises ``RootfsError``."""

    def restore_previous(self, record: Record, failed: bool = False) -> Record:
        """Put the newest earlier tree into dest; ``failed`` says that the one that was there must not come back."""

    def prune(self, record: Record) -> Record:
        """Remove earlier trees beyond those to keep."""

    def has_content(self, record: Record) -> bool:
        """Return whether dest holds a tree, the module's own or a foreign one."""

    def has_something(self, record: Record, with_foreign: bool) -> bool:
        """Return whether ``remove`` has anything to do."""

    def remove(self, record: Record, with_foreign: bool) -> list[str]:
        """Remove the tree and all that belongs to it; return the paths of foreign trees that are kept."""

    def path_of_kept(self, record: Record) -> list[str]:
        """Return the paths of foreign trees that are kept."""

    def names_apart(self, record: Record) -> list[str]:
        """Return the names at the top of dest that do not belong to the tree."""

    def keeping_drifted(self) -> Replacement:
        """Return the same, which keeps the tree that it replaces as one that has drifted."""


class ReplacementBase:
    """The common base: the record, the phases of staging, removal with a warning."""

    def __init__(self, dest: Dest, ignore_use: bool) -> None:
        self._dest = dest
        self._ignore_use = ignore_use

    def staged(self, record: Record, tree: Tree) -> Record:
        """Record that the next tree is complete and durable."""
        name = record.next.name if record.next is not None else ""
        record = replace(record, next=replace(tree, name=name), phase=STAGED)
        self._dest.save(record)
        return record

    def require_whole(self, tree: Tree) -> None:
        """Require nothing: a tree consists of itself."""
        del tree

    def discard_next(self, record: Record) -> Record:
        """Remove the next tree."""
        record = record.without_next()
        self._dest.save(record)
        return self._clear(record)

    def _note_staging(self, record: Record, name: str) -> Record:
        """Save the name of a staging directory before it is made, so that no run leaves an unknown one."""
        record = replace(record.without_next(), next=Tree(BY_NAME, name=name), phase=UNPACKING)
        self._dest.save(record)
        return record

    def _save(self, record: Record) -> None:
        if record.is_empty:
            self._dest.forget()
        else:
            self._dest.save(record)

    def _remove_tree(self, parent: int, tree: Tree, path: str) -> bool:
        """Remove a tree in ``parent``; return true, and warn about ``path``, if something of it stays."""
        # imported late: unchanged runs remove nothing, and save 1 ms
        from .._fs.removal import try_remove_tree

        remains = try_remove_tree(parent, tree.name.encode())
        if remains:
            self._dest.warn_kept(path, f"{remains.describe(path)}; {remains.advice}")
        return bool(remains)

    def _clear(self, record: Record) -> Record:
        """Remove the trash."""
        raise NotImplementedError
