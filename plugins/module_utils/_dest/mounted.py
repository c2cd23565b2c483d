# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Replace the content of a mount point, which cannot be exchanged from outside (docs/behaviour.md, section 7).

Staging is a random private directory inside of the mount, with ``new``, the next tree, and ``old``, the content that it
replaces. The record lies outside. Names are moved one by one, and only those that the record lists.

The root of a running container can change all of it. So what a run has verified holds for that run only: nothing is
staged here for a later one, and an interrupted move is not finished, but the tree is unpacked again.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import replace

from .._errors import RootfsError, show
from .._fs.descriptors import closed_on_error, opened, opened_or_none
from .._fs.directories import exists, make_private, move, open_or_none, open_private, some_names_in
from .._fs.protection import unprotect
from .._fs.removal import try_empty_directory
from .._fs.syscalls import syncfs
from .dest import UPLOADS, Dest
from .in_use import require_no_mount_below, require_unused
from .record import (
    MOVING,
    STAGED,
    UNPACKING,
    Record,
    Tree,
    bind,
    change_time,
    is_token,
    move_token,
    random_name,
    unbind,
)
from .replacement import BY_NAME, MakeTree, ReplacementBase

_NEW = b"new"
_OLD = b"old"
_LOST_AND_FOUND = b"lost+found"
# Names at the top of the mount or of the image: the record lists them, and each is moved by itself.
_MOST_NAMES = 100_000
# The fingerprint of the tree that an interrupted run left: it equals that of no image.
_IN_PART = {"in_part": True}

# Xattrs that the former root directory may have set on the mount's own root.
_OURS = ("user.", "security.capability", "system.posix_acl_")


class MountedDest(ReplacementBase):
    """Replace the content of a dest that is a mount point."""

    def current(self, record: Record) -> Tree | None:
        """Return the module's own tree in the mount; ``None`` if the content is foreign or moved only in part."""
        tree = record.tree
        if tree is None or record.removing or record.phase == MOVING:
            return None
        with opened(self._open()) as top:
            return tree if tree.fingerprint and tree.binding.holds(top) else None

    def holds_foreign(self, record: Record) -> bool:
        """Return whether the mount has content that this module did not create."""
        if self.current(record) is not None or record.removing or record.phase == MOVING:
            return False
        return self.has_content(record)

    def check_use(self) -> None:
        """Raise ``RootfsError`` that lists what uses the tree."""
        if self._ignore_use:
            # a mount point below can neither be moved nor removed
            require_no_mount_below(self._dest.path)
            return
        with opened(self._open()) as top:
            require_unused(top, self._dest.path)

    def recover(self, record: Record) -> Record:
        """Remove what an earlier run left; nothing of it is trusted."""
        if record.removing:
            self.check_use()
            return self._emptied(record)
        if record.phase == MOVING and record.next is not None:
            self.check_use()
            record = self._interrupted(record)
            self._dest.save(record)
        elif record.next is not None:
            record = record.without_next()
            self._dest.save(record)
        return self._clear(record)

    def stage(self, record: Record, make: MakeTree = make_private) -> tuple[Record, int]:
        """Make a directory for the next tree, private and empty by default; the caller closes its descriptor."""
        name = "." + random_name()
        record = self._note_staging(record, name)
        with opened(self._open_writable()) as top, opened(make_private(top, name.encode())) as staging:
            return record, make(staging, _NEW)

    def has_staged(self, _record: Record) -> bool:
        """Return false: a container may have changed what an earlier run staged."""
        return False

    def abandon(self, record: Record) -> Record:
        """Remove the next tree after an error, such as a full disk: the tree first, then the record."""
        if record.next is None or record.phase == MOVING:
            return record
        if record.phase == STAGED and record.next.binding.token is None:
            return self.discard_next(record)
        with opened(self._open()) as top:
            if record.phase != UNPACKING:
                _unbind_staged(top, record.next)
            stays = self._remove(top, record.next)
            _restore_time(top, record)
        trash = (*record.trash, record.next) if stays else record.trash
        record = replace(record.without_next(), trash=trash)
        self._save(record)
        return record

    def commit(self, record: Record) -> Record:
        """Move the old names away and the new ones in. Raises ``RootfsError``."""
        tree = record.next
        if tree is None:
            raise RootfsError("no tree is staged; run again")
        self.check_use()
        with opened(self._open()) as top:
            kept = self._kept_names(record)
            old_names = self._names(top, kept, "it holds")
            with opened(self._open_staging(top, tree)) as staging, opened(self._open_new(staging, tree)) as new:
                new_names = self._names(new, frozenset(), "the image has")
            taken = [name for name in new_names if name in kept and exists(top, name)]
        if taken:
            raise RootfsError(
                f"the image has {show(taken[0])}, a name that is reserved at the top of {show(self._dest.path)};"
                " use a directory below the mount point as dest"
            )
        foreign = self.current(record) is None and bool(old_names)
        record = replace(
            record,
            phase=MOVING,
            old_names=tuple(map(os.fsdecode, old_names)),
            new_names=tuple(map(os.fsdecode, new_names)),
            # foreign content stays in the staging directory
            aside="foreign" if foreign else "",
        )
        self._dest.save(record)
        return self._move(record, tree)

    def previous(self, record: Record) -> Tree:
        """Raise ``RootfsError``: a mount keeps no earlier tree."""
        raise RootfsError(
            f"{show(self._dest.path)} is a mount point, where no earlier tree is kept; provision the earlier image again"
        )

    def restore_previous(self, record: Record, failed: bool = False) -> Record:
        """Raise ``RootfsError``, as ``previous`` does."""
        del failed
        self.previous(record)
        return record

    def prune(self, record: Record) -> Record:
        """Return the record: a mount keeps no earlier tree."""
        return record

    def has_content(self, record: Record) -> bool:
        """Return whether the mount holds a tree, the module's own or a foreign one."""
        with opened(self._open()) as top:
            return bool(some_names_in(top, 1, self._kept_names(record)))

    def has_something(self, record: Record, with_foreign: bool) -> bool:
        """Return whether ``remove`` has anything to do."""
        if self.has_content(record):
            return True
        kept = record.generations if not with_foreign else ()
        return record != Record(generations=kept)

    def remove(self, record: Record, with_foreign: bool) -> list[str]:
        """Remove all content but ``lost+found``; return the paths of foreign content that is kept.

        Raises ``RootfsError``.
        """
        require_no_mount_below(self._dest.path)
        kept = () if with_foreign else record.generations
        record = replace(record, removing=True, generations=kept)
        self._dest.save(record)
        return self.path_of_kept(self._emptied(record))

    def path_of_kept(self, record: Record) -> list[str]:
        """Return the paths of foreign content that is kept."""
        return [os.path.join(self._dest.path, tree.name, "old") for tree in record.generations]

    def names_apart(self, record: Record) -> list[str]:
        """Return the names at the top that belong to the file system or to this module."""
        return list(map(os.fsdecode, self._kept_names(record)))

    def keeping_drifted(self) -> MountedDest:
        """Return the same: a mount keeps no earlier tree."""
        return self

    # -- steps

    def _open(self) -> int:
        fd = self._dest.open_dest()
        if fd is None:
            raise RootfsError(f"{show(self._dest.path)} is gone; mount it and run again")
        return fd

    def _open_writable(self) -> int:
        """Open the mount's own root, which a container may have made immutable or read-only."""
        with closed_on_error(self._open()) as top:
            unprotect(top)
        return top

    def _kept_names(self, record: Record) -> frozenset[bytes]:
        """Return the names that belong to the file system or to this module, not to the tree."""
        trees = (*record.generations, *record.trash, *([record.next] if record.next is not None else []))
        return frozenset([_LOST_AND_FOUND, *(tree.name.encode() for tree in trees), *_names_of_uploads(self._dest)])

    def _names(self, fd: int, but: frozenset[bytes], who: str) -> list[bytes]:
        """Return the names in a directory but those in ``but``. Raises ``RootfsError`` for too many."""
        names = some_names_in(fd, _MOST_NAMES + 1, but)
        if len(names) > _MOST_NAMES:
            raise RootfsError(
                f"{show(self._dest.path)} is a mount point, and {who} more than {_MOST_NAMES} names at the top, too many"
                " to move one by one; use a directory below the mount point as dest"
            )
        return names

    def _open_staging(self, top: int, tree: Tree) -> int:
        staging = open_or_none(top, tree.name.encode())
        if staging is None:
            raise RootfsError(f"the staging of {show(self._dest.path)} is gone; run again")
        return staging

    def _open_new(self, staging: int, tree: Tree) -> int:
        fd = open_or_none(staging, _NEW)
        if fd is not None and tree.binding.holds(fd):
            return fd
        if fd is not None:
            os.close(fd)
        raise RootfsError(
            f"the staging of {show(self._dest.path)} is gone or was replaced; stop what uses the mount, and run again"
        )

    def _interrupted(self, record: Record) -> Record:
        """Return the record of a tree that was moved only in part: the module's own, but never the one asked for."""
        staging = Tree(BY_NAME, name=record.next.name if record.next else "")
        with opened(self._open_writable()) as top:
            name = staging.name.encode()
            if not exists(top, name):
                # perhaps another file system is mounted today: nothing here is known to be the module's own
                return replace(record.without_next(), tree=None, trash=record.trash)
            kept = bool(record.aside) and self._save_foreign(top, record, name)
            part = Tree(bind(top), _IN_PART, mtime=os.fstat(top).st_mtime_ns)
        return Record(
            tree=part,
            trash=record.trash if kept else (*record.trash, staging),
            generations=(*record.generations, staging) if kept else record.generations,
        )

    def _save_foreign(self, top: int, record: Record, name: bytes) -> bool:
        """Move the rest of the foreign content to the part that was moved already; return false if that is gone."""
        try:
            found = open_private(top, name)
        except RootfsError:
            return False
        if found is None:
            return False
        # a container may have changed the staging: what the user may want is never removed
        with opened(found) as staging, contextlib.suppress(RootfsError):
            with opened_or_none(open_or_none(staging, _NEW)) as new:
                left = set() if new is None else set(some_names_in(new, _MOST_NAMES + 1))
            if left == set(map(os.fsencode, record.new_names)):
                self._move_old(top, record, staging)
            self._remove(staging, Tree(BY_NAME, name=os.fsdecode(_NEW)))
        return True

    def _move_old(self, top: int, record: Record, staging: int) -> None:
        """Move the old names away. No new name is moved yet."""
        with opened(make_private(staging, _OLD)) as old:
            for name in map(os.fsencode, record.old_names):
                # an interrupted run may have moved it already
                if exists(top, name):
                    # a container may have made the name anew
                    with contextlib.suppress(FileExistsError):
                        move(top, name, old, name)
            syncfs(top)

    def _move(self, record: Record, tree: Tree) -> Record:
        """Carry out the move that the record describes."""
        with opened(self._open()) as top, opened(self._open_staging(top, tree)) as staging, opened(
            self._open_new(staging, tree)
        ) as new:
            self._move_old(top, record, staging)
            for name in map(os.fsencode, record.new_names):
                move(new, name, top, name)
            _copy_metadata(new, top)
            binding = move_token(tree.binding, top)
            # moving changes the times of what is at the top
            tree = replace(tree, finished=change_time(top))
            syncfs(top)
        moved = Tree(BY_NAME, name=tree.name)
        kept = bool(record.aside)
        record = Record(
            tree=replace(tree, binding=binding, name=""),
            trash=record.trash if kept else (*record.trash, moved),
            generations=(*record.generations, moved) if kept else record.generations,
        )
        self._dest.save(record)
        return self._clear(record)

    def _clear(self, record: Record) -> Record:
        """Remove the trash; what cannot be removed waits for the next run."""
        if not record.trash:
            return record
        with opened(self._open_writable()) as top:
            left = tuple(tree for tree in record.trash if self._remove(top, tree))
            _restore_time(top, record)
        if left != record.trash:
            record = replace(record, trash=left)
            self._save(record)
        return record

    def _remove(self, parent: int, tree: Tree) -> bool:
        """Remove a tree in the mount; return true, and warn, if something of it stays."""
        path = os.path.join(self._dest.path, tree.name)
        return self._remove_tree(parent, tree, path)

    def _emptied(self, record: Record) -> Record:
        """Remove everything but kept content; move what cannot be removed to a folder that waits for the next run."""
        keep = frozenset([_LOST_AND_FOUND, *(tree.name.encode() for tree in record.generations)])
        trash: tuple[Tree, ...] = ()
        with opened(self._open_writable()) as top:
            remains = try_empty_directory(top, keep)
            if remains:
                rest = Tree(BY_NAME, name="." + random_name())
                trash = (rest,)
                self._dest.save(replace(record, trash=trash))
                self._move_together(top, rest, keep)
                path = os.path.join(self._dest.path, rest.name)
                self._dest.warn_kept(path, f"{remains.describe(path)}; {remains.advice}")
            os.fsync(top)
        record = Record(generations=record.generations, trash=trash)
        self._save(record)
        return record

    def _move_together(self, top: int, rest: Tree, keep: frozenset[bytes]) -> None:
        """Move all remaining names into one folder. Raises ``OSError`` if one cannot be moved."""
        with opened(make_private(top, rest.name.encode())) as folder:
            for name in self._names(top, keep | {rest.name.encode()}, "it holds"):
                move(top, name, folder, name)


def _unbind_staged(top: int, tree: Tree) -> None:
    """Take the token of a staged tree away, so that no run takes the rest for a complete tree."""
    with opened_or_none(open_or_none(top, tree.name.encode())) as staging:
        if staging is not None:
            with opened_or_none(open_or_none(staging, _NEW)) as new:
                if new is not None:
                    unbind(new)


def _names_of_uploads(dest: Dest) -> list[bytes]:
    """Return the names of upload folders, which may lie in the mount until their transfer is complete."""
    if dest.read(UPLOADS) is None:
        return []
    # imported late: most runs find no upload
    from .uploads import names_in_dest

    return names_in_dest(dest)


def _restore_time(top: int, record: Record) -> None:
    """Restore the modification time of the mount's root after names in it were made and removed."""
    if record.tree is not None and record.tree.binding.holds(top):
        os.utime(top, ns=(record.tree.mtime, record.tree.mtime))


def _copy_metadata(new: int, top: int) -> None:
    """Copy the metadata of the new root directory to the mount's own root, times last."""
    status = os.fstat(new)
    if os.geteuid() == 0:
        os.fchown(top, status.st_uid, status.st_gid)
    os.fchmod(top, stat.S_IMODE(status.st_mode))
    wanted = _xattrs(new)
    for name in _xattrs(top):
        if name.startswith(_OURS) and name not in wanted:
            os.removexattr(top, name)
    for name, value in wanted.items():
        os.setxattr(top, name, value)
    os.utime(top, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _xattrs(fd: int) -> dict[str, bytes]:
    try:
        names = os.listxattr(fd)
    except OSError:
        # a file system without xattrs
        return {}
    return {
        name: os.getxattr(fd, name)
        for name in names
        # the host's own security module labels the mount
        if not is_token(name) and name != "security.selinux"
    }
