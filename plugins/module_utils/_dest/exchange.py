# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Replace dest as a whole: a new tree is made beside it and exchanged with it (docs/behaviour.md, section 7).

The order on disk makes a crash harmless: staging durable, record ``prepared``, exchange, parent durable, record done.
Only then is anything old removed. The binding of the directory at dest tells how far a run came.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace

from .._errors import RootfsError, os_phrase, show
from .._fs.descriptors import opened_or_none
from .._fs.directories import NO_RENAMEAT2, exists, make_private, movable, move, open_or_none, some_names_in
from .._fs.syscalls import exchange
from .dest import Dest
from .record import PREPARED, RESTORING, STAGED, UNPACKING, Record, Tree, bind, random_name, unbind
from .replacement import BY_NAME, MakeTree, ReplacementBase

# The last two: a file system in user space took the exchange for a plain rename.
_NO_EXCHANGE = (*NO_RENAMEAT2, errno.EXDEV, errno.ENOTEMPTY, errno.EEXIST)


class ExchangedDest(ReplacementBase):
    """Replace a dest that can be exchanged; ``keep`` is how many earlier trees are kept.

    ``drifted`` says that the tree which is replaced differs from its image: the last such tree is kept beyond those.
    """

    def __init__(self, dest: Dest, ignore_use: bool, keep: int, drifted: bool = False) -> None:
        super().__init__(dest, ignore_use)
        self._keep = keep
        self._drifted = drifted

    def names_apart(self, record: Record) -> list[str]:
        """Return nothing: what is at dest is the tree."""
        del record
        return []

    def keeping_drifted(self) -> ExchangedDest:
        """Return the same, which keeps the tree that it replaces as one that has drifted."""
        return ExchangedDest(self._dest, self._ignore_use, self._keep, True)

    def current(self, record: Record) -> Tree | None:
        """Return the module's own tree at dest; ``None`` if dest is missing or holds a foreign tree."""
        with self._opened_dest() as fd:
            return None if fd is None else _own_tree(record, fd)

    def holds_foreign(self, record: Record) -> bool:
        """Return whether dest holds a tree that this module did not create."""
        with self._opened_dest() as fd:
            return fd is not None and _own_tree(record, fd) is None and _has_names(fd)

    def check_use(self) -> None:
        """Raise ``RootfsError`` that lists what uses the tree at dest."""
        with self._opened_dest() as fd:
            if fd is not None:
                self._check_use_of(fd, self._dest.path)

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
            elif current is None and record.aside and exists(self._dest.state, record.aside.encode()):
                # stopped between the two renames
                self._move_in(tree)
                record = self._exchanged(record)
            else:
                record = self._not_exchanged(record, tree)
        elif record.phase == UNPACKING:
            record = record.without_next()
        if record != before:
            self._sync()
            self._dest.save(record)
        return self._clear(record)

    def stage(self, record: Record, make: MakeTree = make_private) -> tuple[Record, int]:
        """Make a directory for the next tree, private and empty by default; the caller closes its descriptor."""
        name = random_name()
        record = self._note_staging(record, name)
        return record, make(self._dest.state, name.encode())

    def has_staged(self, record: Record) -> bool:
        """Return whether the next tree exists and is the one that the record names."""
        if record.phase != STAGED or record.next is None:
            return False
        return self._is_there(record.next)

    def abandon(self, record: Record) -> Record:
        """Remove the next tree after an error, such as a full disk: the tree first, then the record."""
        if record.next is None or self.current(record) == record.next:
            return record
        if record.phase == STAGED and record.next.binding.token is None:
            return self.discard_next(record)
        self._move_back(record)
        with self._opened(record.next) as fd:
            if fd is not None and record.phase != UNPACKING:
                # from here on no run takes the rest for a complete tree
                unbind(fd)
        trash = record.trash
        if self._remove(record.next):
            trash = (*trash, Tree(BY_NAME, name=record.next.name))
        record = replace(record.without_next(), trash=trash)
        self._save(record)
        return record

    def commit(self, record: Record, phase: str = PREPARED, failed: bool = False) -> Record:
        """Exchange dest with the staged tree; ``failed`` says that the old one must not come back. Raises ``RootfsError``."""
        tree = record.next
        if tree is None:
            raise RootfsError("no tree is staged; run again")
        self.check_use()
        old = self._at_dest(record)
        if old is not None and failed:
            old = replace(old, failed=True)
        if old is not None and self._drifted:
            old = replace(old, drifted=True)
        record = replace(record, tree=old, phase=phase)
        self._dest.save(record)
        if old is None:
            self._move_in(tree)
        else:
            record = self._exchange(record, tree)
        self._sync()
        record = self._exchanged(record)
        self._dest.save(record)
        return self._clear(record)

    def previous(self, record: Record) -> Tree:
        """Return the newest earlier tree. Raises ``RootfsError`` if none is kept."""
        for tree in record.generations:
            if tree.fingerprint and not tree.failed and self._is_there(tree):
                return tree
        raise RootfsError(
            f"no earlier tree of {show(self._dest.path)} is kept; set keep to more than 0 before the next update"
        )

    def require_whole(self, tree: Tree) -> None:
        """Require that all that an earlier tree consists of is there. Raises ``RootfsError``."""
        # imported late: unchanged runs bring no tree back
        from .._fs.stack import is_stack, require_whole

        with self._opened(tree) as fd:
            if fd is not None and is_stack(fd):
                require_whole(fd, self._path_of(tree))

    def restore_previous(self, record: Record, failed: bool = False) -> Record:
        """Exchange dest with the newest earlier tree, see ``commit``. Raises ``RootfsError`` if none is kept."""
        old = self.previous(record)
        if record.next is not None:
            record = self.discard_next(record)
        others = tuple(tree for tree in record.generations if tree is not old)
        return self.commit(replace(record, next=old, generations=others), RESTORING, failed)

    def has_content(self, record: Record) -> bool:
        """Return whether dest exists."""
        with self._opened_dest() as fd:
            return fd is not None

    def has_something(self, record: Record, with_foreign: bool) -> bool:
        """Return whether ``remove`` has anything to do."""
        if self.has_content(record):
            return True
        kept = record.generations if not with_foreign else ()
        foreign = tuple(tree for tree in kept if not tree.fingerprint)
        return record != Record(generations=foreign)

    def remove(self, record: Record, with_foreign: bool) -> list[str]:
        """Remove the tree and all that belongs to it; return the paths of foreign trees that are kept.

        Raises ``RootfsError``.
        """
        # imported late: only removals need it, and it takes 2 ms with what it imports
        from .in_use import require_no_mount_below

        require_no_mount_below(self._dest.path)
        tree = self._at_dest(record)
        if tree is not None:
            name = random_name()
            record = replace(record, tree=tree, aside=name, removing=True)
            self._dest.save(record)
            move(self._dest.parent, self._dest.name, self._dest.state, name.encode())
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
        """Return the paths of foreign trees that are kept."""
        return [self._path_of(old) for old in record.generations if not old.fingerprint]

    # -- steps

    def _at_dest(self, record: Record) -> Tree | None:
        """Return the tree at dest, the module's own or a foreign one."""
        with self._opened_dest() as fd:
            if fd is None:
                return None
            tree = _own_tree(record, fd)
            return Tree(bind(fd, new_token=False)) if tree is None else replace(tree, name="")

    def _exchange(self, record: Record, tree: Tree) -> Record:
        dest = self._dest
        name = tree.name.encode()
        try:
            with movable(dest.state, name), movable(dest.parent, dest.name):
                exchange(dest.state, name, dest.parent, dest.name)
            return record
        except OSError as error:
            if error.errno not in _NO_EXCHANGE:
                raise
        record = replace(record, aside=random_name())
        dest.save(record)
        try:
            move(dest.parent, dest.name, dest.state, record.aside.encode())
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            raise RootfsError(
                f"{show(dest.path)} cannot be moved on its file system (a lower layer of an overlay?);"
                " remove it or choose another dest"
            ) from error
        try:
            self._move_in(tree)
        except BaseException:
            self._move_back(record)
            raise
        return record

    def _move_back(self, record: Record) -> None:
        """Undo the first of two renames when the second one did not follow."""
        dest = self._dest
        if record.aside and exists(dest.state, record.aside.encode()):
            move(dest.state, record.aside.encode(), dest.parent, dest.name)

    def _move_in(self, tree: Tree) -> None:
        dest = self._dest
        move(dest.state, tree.name.encode(), dest.parent, dest.name)

    def _exchanged(self, record: Record) -> Record:
        """Return the record after the exchange: the next tree is at dest, the old one in the private folder."""
        tree = record.next
        if tree is None:
            return record
        old = record.tree
        done = Record(tree=replace(tree, name=""), trash=record.trash, generations=record.generations)
        if old is None:
            return done
        return self._put_away(done, replace(old, name=record.aside or tree.name))

    def _put_away(self, record: Record, old: Tree) -> Record:
        """Make the old tree a generation; generations beyond those to keep, and empty directories, become trash."""
        if not old.fingerprint:
            with self._opened(old) as fd:
                if fd is None or not _has_names(fd):
                    return replace(record, trash=(*record.trash, old))
        return self._kept(record, (old, *record.generations))

    def prune(self, record: Record) -> Record:
        """Remove earlier trees beyond those to keep."""
        fewer = self._kept(record, record.generations)
        if fewer.generations == record.generations:
            return record
        self._dest.save(fewer)
        return self._clear(fewer)

    def _kept(self, record: Record, generations: tuple[Tree, ...]) -> Record:
        kept = []
        trash = list(record.trash)
        ours = 0
        last_drifted = next((tree for tree in generations if tree.drifted), None)
        for tree in generations:
            if tree is last_drifted:
                kept.append(tree)
                continue
            # only the user may remove what force: true replaced
            ours += bool(tree.fingerprint)
            if tree.fingerprint and ours > self._keep:
                trash.append(tree)
            else:
                kept.append(tree)
        return replace(record, trash=tuple(trash), generations=tuple(kept))

    def _not_exchanged(self, record: Record, tree: Tree) -> Record:
        """Return the record when dest does not hold the next tree: it is dropped, or a generation again."""
        if record.tree is not None:
            old = replace(record.tree, name=tree.name)
            if self._is_there(old):
                # exchanged, and then dest was replaced by others: the private folder holds the old tree
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
        """Remove a tree that is no longer needed; return true, and warn, if something of it stays."""
        path = self._path_of(tree)
        try:
            with self._opened(tree) as fd:
                if fd is None or (tree.binding != BY_NAME and not tree.binding.holds(fd)):
                    return False
                self._check_use_of(fd, path)
        except RootfsError as error:
            self._dest.warn_kept(path, error.message)
            return True
        except OSError as error:
            self._dest.warn_kept(path, os_phrase(error))
            return True
        return self._remove(tree)

    def _remove(self, tree: Tree) -> bool:
        """Remove a tree in the private folder; return true, and warn, if something of it stays."""
        return self._remove_tree(self._dest.state, tree, self._path_of(tree))

    def _check_use_of(self, fd: int, path: str) -> None:
        if not self._ignore_use:
            # imported late: unchanged runs do not need it, and save 2 ms
            from .._fs.stack import is_stack, require_unmounted
            from .in_use import require_unused

            require_unused(fd, path)
            if is_stack(fd):
                require_unmounted(fd, path)

    def _path_of(self, tree: Tree) -> str:
        return os.path.join(self._dest.location.state_path, tree.name)

    def _is_there(self, tree: Tree) -> bool:
        with self._opened(tree) as fd:
            return fd is not None and tree.binding.holds(fd)

    def _opened_dest(self) -> opened_or_none:
        return opened_or_none(self._dest.open_dest())

    def _opened(self, tree: Tree) -> opened_or_none:
        """Open a tree in the private folder for a ``with`` block."""
        return opened_or_none(open_or_none(self._dest.state, tree.name.encode()))

    def _sync(self) -> None:
        os.fsync(self._dest.parent)
        os.fsync(self._dest.state)


def _own_tree(record: Record, fd: int) -> Tree | None:
    """Return which of the record's trees the directory ``fd`` is."""
    for tree in (record.tree, record.next):
        if tree is not None and tree.fingerprint and tree.binding.holds(fd):
            return tree
    return None


def _has_names(fd: int) -> bool:
    return bool(some_names_in(fd, 1))
