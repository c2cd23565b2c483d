# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Replacing dest as a whole: a new tree is made beside it and exchanged (docs/behaviour.md, section 7).

The order on disk is what makes a crash harmless: staging durable, record ``prepared``, exchange, parent
durable, record done, and only then is anything old removed. The binding that is found at dest tells how
far a run came.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace

from .._errors import RootfsError, os_phrase, show
from .._fs.directories import NO_RENAMEAT2, make_private, movable, move, names_in, open_or_none
from .place import Dest
from .replacement import BY_NAME, ReplacementBase
from .record import PREPARED, RESTORING, STAGED, UNPACKING, Record, Tree, bind, random_name, unbind
from .._fs.syscalls import exchange


class ExchangedDest(ReplacementBase):
    """Replace a dest that can be exchanged; ``keep`` is how many earlier trees are kept."""

    def __init__(self, site: Dest, ignore_use: bool, keep: int) -> None:
        super().__init__(site, ignore_use)
        self._keep = keep

    def current(self, record: Record) -> Tree | None:
        """The tree of ours that is at dest; ``None`` where nothing or something foreign is."""
        fd = self._site.open_dest()
        if fd is None:
            return None
        try:
            for tree in (record.tree, record.next):
                if tree is not None and tree.fingerprint and tree.binding.holds(fd):
                    return tree
            return None
        finally:
            os.close(fd)

    def holds_foreign(self, record: Record) -> bool:
        """Whether dest has content that this module did not make."""
        if self.current(record) is not None:
            return False
        fd = self._site.open_dest()
        if fd is None:
            return False
        try:
            return bool(names_in(fd))
        finally:
            os.close(fd)

    def check_use(self) -> None:
        """Raises ``RootfsError`` that lists what uses the tree at dest."""
        fd = self._site.open_dest()
        if fd is None:
            return
        try:
            self._check_use_of(fd, self._site.path)
        finally:
            os.close(fd)

    def recover(self, record: Record) -> Record:
        """Finish or undo what an earlier run left, and clear its leftovers."""
        before = record
        current = self.current(record)
        if record.removing:
            record = self._recover_removal(record, current)
        tree = record.next
        if tree is not None and record.phase in (PREPARED, RESTORING):
            if current == tree:
                record = self._exchanged(record)
            elif current is None and record.aside and self._has(record.aside):
                # stopped between the two renames
                self._move_in(tree)
                record = self._exchanged(record)
            else:
                record = self._not_exchanged(record, tree)
        elif record.phase == UNPACKING:
            record = record.without_next()
        if record != before:
            self._sync()
            self._site.save(record)
        return self._clear(record)

    def stage(self, record: Record) -> tuple[Record, int]:
        """A new, private, empty directory for the next tree, and a descriptor of it."""
        name = random_name()
        record = self._note_staging(record, name)
        return record, make_private(self._site.state, name.encode())

    def has_staged(self, record: Record) -> bool:
        """Whether the next tree is there as the record says."""
        if record.phase != STAGED or record.next is None:
            return False
        return self._is_there(record.next)

    def abandon(self, record: Record) -> Record:
        """Remove the next tree after an error, which may be a full disk: the room first, then the record."""
        if record.next is None or self.current(record) == record.next:
            return record
        if record.phase == STAGED and record.next.binding.token is None:
            return self.discard_next(record)
        self._move_back(record)
        name = record.next.name.encode()
        fd = open_or_none(self._site.state, name)
        if fd is not None:
            try:
                if record.phase != UNPACKING:
                    # from here on nobody takes what is left for a whole tree
                    unbind(fd)
            finally:
                os.close(fd)
        trash = record.trash
        if self._remove(record.next):
            trash = (*trash, Tree(BY_NAME, name=record.next.name))
        record = replace(record.without_next(), trash=trash)
        self._save(record)
        return record

    def commit(self, record: Record, phase: str = PREPARED) -> Record:
        """Put the staged tree into dest and the old one away. Raises ``RootfsError``."""
        tree = record.next
        if tree is None:
            raise RootfsError("no tree is staged; run again")
        self.check_use()
        old = self._at_dest(record)
        record = replace(record, tree=old, phase=phase)
        self._site.save(record)
        if old is None:
            self._move_in(tree)
        else:
            record = self._exchange(record, tree)
        self._sync()
        record = self._exchanged(record)
        self._site.save(record)
        return self._clear(record)

    def previous(self, record: Record) -> Tree:
        """The newest old tree. Raises ``RootfsError`` where there is none."""
        for tree in record.generations:
            if tree.fingerprint and self._is_there(tree):
                return tree
        raise RootfsError(
            f"no earlier tree of {show(self._site.path)} is kept; set keep to more than 0 before the next update"
        )

    def restore_previous(self, record: Record) -> Record:
        """Exchange dest with the newest old tree. Raises ``RootfsError`` where there is none."""
        old = self.previous(record)
        if record.next is not None:
            record = self.discard_next(record)
        others = tuple(tree for tree in record.generations if tree is not old)
        return self.commit(replace(record, next=old, generations=others), RESTORING)

    def has_content(self, record: Record) -> bool:
        """Return whether there is anything at dest."""
        fd = self._site.open_dest()
        if fd is None:
            return False
        os.close(fd)
        return True

    def has_something(self, record: Record, with_foreign: bool) -> bool:
        """Whether there is anything for ``remove`` to do."""
        if self.has_content(record):
            return True
        kept = record.generations if not with_foreign else ()
        foreign = tuple(tree for tree in kept if not tree.fingerprint)
        return record != Record(generations=foreign)

    def remove(self, record: Record, with_foreign: bool) -> list[str]:
        """Remove the tree and all that belongs to it; returns where foreign trees stay. Raises ``RootfsError``."""
        from .in_use import require_no_mount_below

        require_no_mount_below(self._site.path)
        tree = self._at_dest(record)
        if tree is not None:
            name = random_name()
            record = replace(record, tree=tree, aside=name, removing=True)
            self._site.save(record)
            move(self._site.parent, self._site.name, self._site.state, name.encode())
            self._sync()
        else:
            record = replace(record, tree=None, removing=True)
        record = self._removed(record)
        kept = [old for old in record.generations if not old.fingerprint and not with_foreign]
        record = record.without_next()
        record = replace(
            record,
            generations=tuple(kept),
            trash=(*record.trash, *(old for old in record.generations if old not in kept)),
        )
        self._save(record)
        record = self._clear(record)
        self._save(record)
        return [self._path_of(old) for old in kept]

    def path_of_kept(self, record: Record) -> list[str]:
        """Where foreign trees are kept."""
        return [self._path_of(old) for old in record.generations if not old.fingerprint]

    # -- the parts

    def _at_dest(self, record: Record) -> Tree | None:
        """What is at dest as a tree to put away, ours or foreign."""
        current = self.current(record)
        if current is not None:
            return replace(current, name="")
        fd = self._site.open_dest()
        if fd is None:
            return None
        try:
            return Tree(bind(fd, new_token=False))
        finally:
            os.close(fd)

    def _exchange(self, record: Record, tree: Tree) -> Record:
        site = self._site
        name = tree.name.encode()
        try:
            with movable(site.state, name), movable(site.parent, site.name):
                exchange(site.state, name, site.parent, site.name)
            return record
        except OSError as error:
            if error.errno not in (*NO_RENAMEAT2, errno.EXDEV):
                raise
        record = replace(record, aside=random_name())
        site.save(record)
        try:
            move(site.parent, site.name, site.state, record.aside.encode())
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            raise RootfsError(
                f"{show(site.path)} cannot be moved on its file system (a lower layer of an overlay?);"
                " remove it or choose another dest"
            ) from error
        try:
            self._move_in(tree)
        except BaseException:
            self._move_back(record)
            raise
        return record

    def _move_back(self, record: Record) -> None:
        """Undo the first of two renames, where the second did not follow."""
        site = self._site
        if record.aside and self._has(record.aside):
            move(site.state, record.aside.encode(), site.parent, site.name)

    def _move_in(self, tree: Tree) -> None:
        site = self._site
        move(site.state, tree.name.encode(), site.parent, site.name)

    def _exchanged(self, record: Record) -> Record:
        """The record after the exchange: the next tree is at dest, the old one put away."""
        tree = record.next
        if tree is None:
            return record
        old = record.tree
        done = Record(tree=replace(tree, name=""), trash=record.trash, generations=record.generations)
        if old is None:
            return done
        return self._put_away(done, replace(old, name=record.aside or tree.name))

    def _put_away(self, record: Record, old: Tree) -> Record:
        """Make the old tree a generation; generations beyond those to keep, and empty directories, are trash."""
        if not old.fingerprint and not self._has_content(old):
            return replace(record, trash=(*record.trash, old))
        return self._kept(record, (old, *record.generations))

    def prune(self, record: Record) -> Record:
        """Remove generations beyond those to keep."""
        fewer = self._kept(record, record.generations)
        if fewer.generations == record.generations:
            return record
        self._site.save(fewer)
        return self._clear(fewer)

    def _kept(self, record: Record, generations: tuple[Tree, ...]) -> Record:
        kept = []
        trash = list(record.trash)
        ours = 0
        for tree in generations:
            # what the user's own force replaced is his to throw away
            ours += bool(tree.fingerprint)
            if tree.fingerprint and ours > self._keep:
                trash.append(tree)
            else:
                kept.append(tree)
        return replace(record, trash=tuple(trash), generations=tuple(kept))

    def _not_exchanged(self, record: Record, tree: Tree) -> Record:
        """The record when dest does not hold the next tree: it goes, or goes back to where it was."""
        if record.tree is not None:
            old = replace(record.tree, name=tree.name)
            if self._is_there(old):
                # exchanged, and then dest was changed by others: what lies here is the old tree
                record = replace(record, tree=None, next=None, phase="", aside="")
                return self._put_away(record, old)
        if record.phase == RESTORING:
            generations = (tree, *record.generations)
            return replace(record, next=None, phase="", aside="", generations=generations)
        return record.without_next()

    def _recover_removal(self, record: Record, current: Tree | None) -> Record:
        if current is not None and current == record.tree:
            return replace(record, removing=False, aside="")
        return self._removed(record)

    def _removed(self, record: Record) -> Record:
        trash = record.trash
        if record.tree is not None:
            trash = (*trash, replace(record.tree, name=record.aside))
        return replace(record, tree=None, aside="", removing=False, trash=trash)

    def _clear(self, record: Record) -> Record:
        """Remove the trash, each by its binding or its random name; what cannot be removed waits for the next run."""
        if not record.trash:
            return record
        left = tuple(tree for tree in record.trash if self._stays(tree))
        if left != record.trash:
            record = replace(record, trash=left)
            self._save(record)
        return record

    def _stays(self, tree: Tree) -> bool:
        """Remove a tree that is no longer needed; true, and a warning, if something of it stays."""
        path = self._path_of(tree)
        try:
            fd = open_or_none(self._site.state, tree.name.encode())
            if fd is None:
                return False
            try:
                if tree.binding != BY_NAME and not tree.binding.holds(fd):
                    return False
                self._check_use_of(fd, path)
            finally:
                os.close(fd)
        except RootfsError as error:
            self._site.warn_kept(path, error.message)
            return True
        except OSError as error:
            self._site.warn_kept(path, os_phrase(error))
            return True
        return self._remove(tree)

    def _remove(self, tree: Tree) -> bool:
        """Remove what can be removed of a tree in the private folder; true, and a warning, if something stays."""
        return self._remove_tree(self._site.state, tree, self._path_of(tree))

    def _check_use_of(self, fd: int, path: str) -> None:
        if not self._ignore_use:
            # a run that changes nothing never comes here, and need not read that code
            from .in_use import require_unused

            require_unused(fd, path)

    def _path_of(self, tree: Tree) -> str:
        place = self._site.place
        return os.path.join(place.state_parent, os.fsdecode(place.state_name), tree.name)

    def _has(self, name: str) -> bool:
        return name.encode() in names_in(self._site.state)

    def _is_there(self, tree: Tree) -> bool:
        fd = open_or_none(self._site.state, tree.name.encode())
        if fd is None:
            return False
        try:
            return tree.binding.holds(fd)
        finally:
            os.close(fd)

    def _has_content(self, tree: Tree) -> bool:
        fd = open_or_none(self._site.state, tree.name.encode())
        if fd is None:
            return False
        try:
            return bool(names_in(fd))
        finally:
            os.close(fd)

    def _sync(self) -> None:
        os.fsync(self._site.parent)
        os.fsync(self._site.state)
