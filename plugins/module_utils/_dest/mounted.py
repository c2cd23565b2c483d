# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Replacing what a mount point holds: nothing can be exchanged from outside (docs/behaviour.md, section 7).

Staging is a random private directory inside of the mount, with ``new``, the tree to be, and ``old``, what
it replaces. The record lies outside. Names are moved one by one, and only those that the record lists.

The root of a container that runs can reach all of that. So what one run verified counts for that run alone:
nothing is staged here for a later one, and a move that was stopped is never finished but begun anew.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import replace

from .._errors import RootfsError, show
from .._fs.directories import make_private, move, names_in, open_or_none, open_private
from .in_use import require_no_mount_below, require_unused
from .place import UPLOADS, Dest
from .replacement import BY_NAME, ReplacementBase
from .._fs.protection import unprotect
from .record import MOVING, STAGED, UNPACKING, Record, Tree, bind, is_token, move_token, random_name, unbind
from .._fs.removal import try_empty_directory
from .._fs.syscalls import syncfs

_NEW = b"new"
_OLD = b"old"
_LOST_AND_FOUND = b"lost+found"
# Names at the top of the mount or of an image: each of them is recorded and moved by itself.
_MOST_NAMES = 100_000
_BATCH = 4096
# The fingerprint of a tree that a run which was stopped left: no run asks for it.
_IN_PART = {"in_part": True}

# What a new root directory may leave on the mount's own, and so what is cleared there first.
_OURS = ("user.", "security.capability", "system.posix_acl_")


class MountedDest(ReplacementBase):
    """Replace the content of a dest that is a mount point."""

    def current(self, record: Record) -> Tree | None:
        """The tree of ours that fills the mount; ``None`` where it is foreign or half moved."""
        tree = record.tree
        if tree is None or record.removing or record.phase == MOVING:
            return None
        fd = self._dest()
        try:
            return tree if tree.fingerprint and tree.binding.holds(fd) else None
        finally:
            os.close(fd)

    def holds_foreign(self, record: Record) -> bool:
        """Whether the mount has content that this module did not make."""
        if self.current(record) is not None or record.removing:
            return False
        if record.phase == MOVING:
            return False
        fd = self._dest()
        try:
            return bool(self._content(fd, record))
        finally:
            os.close(fd)

    def check_use(self) -> None:
        """Raises ``RootfsError`` that lists what uses the tree."""
        if self._ignore_use:
            # whatever is ignored, a mount point can neither be moved nor removed
            require_no_mount_below(self._site.path)
            return
        fd = self._dest()
        try:
            require_unused(fd, self._site.path)
        finally:
            os.close(fd)

    def recover(self, record: Record) -> Record:
        """Clear what an earlier run left, of which nothing is believed."""
        if record.removing:
            self.check_use()
            return self._emptied(record)
        if record.phase == MOVING and record.next is not None:
            self.check_use()
            record = self._stopped(record)
            self._site.save(record)
        elif record.next is not None:
            record = record.without_next()
            self._site.save(record)
        return self._clear(record)

    def stage(self, record: Record) -> tuple[Record, int]:
        """A new, private, empty directory for the next tree, and a descriptor of it."""
        name = "." + random_name()
        record = self._note_staging(record, name)
        dest = self._writable_dest()
        try:
            staging = make_private(dest, name.encode())
        finally:
            os.close(dest)
        try:
            return record, make_private(staging, _NEW)
        finally:
            os.close(staging)

    def has_staged(self, _record: Record) -> bool:
        """Never: a container may have changed what was staged by an earlier run."""
        return False

    def abandon(self, record: Record) -> Record:
        """Remove the next tree after an error, which may be a full disk: the room first, then the record."""
        if record.next is None or record.phase == MOVING:
            return record
        if record.phase == STAGED and record.next.binding.token is None:
            return self.discard_next(record)
        dest = self._dest()
        try:
            staging = open_or_none(dest, record.next.name.encode())
            if staging is not None:
                new = open_or_none(staging, _NEW)
                os.close(staging)
                if new is not None:
                    try:
                        if record.phase != UNPACKING:
                            unbind(new)
                    finally:
                        os.close(new)
            stays = self._remove(dest, record.next)
            _restore_time(dest, record)
        finally:
            os.close(dest)
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
        dest = self._dest()
        try:
            old_names = self._content(dest, record)
            staging = self._open_staging(dest, tree)
            try:
                new = self._open_new(staging, tree)
            finally:
                os.close(staging)
            try:
                new_names = names_in(new)
            finally:
                os.close(new)
            taken = set(names_in(dest)) - set(old_names)
        finally:
            os.close(dest)
        for name in new_names:
            if name in taken:
                raise RootfsError(
                    f"the image brings {show(name)}, a name that {show(self._site.path)} keeps for itself;"
                    " use a directory that is no mount point"
                )
        foreign = self.current(record) is None and bool(old_names)
        record = replace(
            record,
            phase=MOVING,
            old_names=tuple(map(os.fsdecode, old_names)),
            new_names=tuple(map(os.fsdecode, new_names)),
            # what is not ours is kept: the old names stay where they are moved to
            aside="foreign" if foreign else "",
        )
        self._site.save(record)
        return self._move(record, tree)

    def previous(self, record: Record) -> Tree:
        """Nothing is kept inside of a mount. Raises ``RootfsError``."""
        raise RootfsError(
            f"{show(self._site.path)} is a mount point, where no earlier tree is kept; provision the earlier image again"
        )

    def restore_previous(self, record: Record) -> Record:
        """As ``previous``. Raises ``RootfsError``."""
        self.previous(record)
        return record

    def prune(self, record: Record) -> Record:
        """Nothing of ours is kept inside of a mount."""
        return record

    def has_content(self, record: Record) -> bool:
        """Return whether the mount holds a tree, ours or foreign."""
        dest = self._dest()
        try:
            return bool(self._content(dest, record))
        finally:
            os.close(dest)

    def has_something(self, record: Record, with_foreign: bool) -> bool:
        """Whether there is anything for ``remove`` to do."""
        if self.has_content(record):
            return True
        kept = record.generations if not with_foreign else ()
        return record != Record(generations=kept)

    def remove(self, record: Record, with_foreign: bool) -> list[str]:
        """Remove all content but ``lost+found``; returns where foreign content stays. Raises ``RootfsError``."""
        require_no_mount_below(self._site.path)
        kept = () if with_foreign else record.generations
        record = replace(record, removing=True, generations=kept)
        self._site.save(record)
        return self.path_of_kept(self._emptied(record))

    def path_of_kept(self, record: Record) -> list[str]:
        """Where foreign content is kept."""
        return [os.path.join(self._site.path, tree.name, "old") for tree in record.generations]

    # -- the parts

    def _dest(self) -> int:
        fd = self._site.open_dest()
        if fd is None:
            raise RootfsError(f"{show(self._site.path)} is gone; mount it and run again")
        return fd

    def _writable_dest(self) -> int:
        """The mount's own root, which a container may have made immutable or read-only."""
        fd = self._dest()
        try:
            unprotect(fd)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _content(self, dest: int, record: Record) -> list[bytes]:
        """The names that belong to the tree, not to the file system or to this module."""
        own = {tree.name.encode() for tree in (*record.generations, *record.trash)}
        if record.next is not None:
            own.add(record.next.name.encode())
        own.add(_LOST_AND_FOUND)
        own.update(_names_of_uploads(self._site))
        return [name for name in names_in(dest) if name not in own]

    def _open_staging(self, dest: int, tree: Tree) -> int:
        staging = open_or_none(dest, tree.name.encode())
        if staging is None:
            raise RootfsError(f"the staging of {show(self._site.path)} is gone; run again")
        return staging

    def _open_new(self, staging: int, tree: Tree) -> int:
        fd = open_or_none(staging, _NEW)
        if fd is not None and tree.binding.holds(fd):
            return fd
        if fd is not None:
            os.close(fd)
        raise RootfsError(
            f"the staging of {show(self._site.path)} is gone or another one; stop what uses the mount, and run again"
        )

    def _stopped(self, record: Record) -> Record:
        """The record of a tree that is there only in part: known as ours, and never as the one that is asked for."""
        staging = Tree(BY_NAME, name=record.next.name if record.next else "")
        dest = self._writable_dest()
        try:
            name = staging.name.encode()
            if name not in names_in(dest):
                # perhaps another file system is mounted today: nothing here is known to be ours
                return replace(record.without_next(), tree=None, trash=record.trash)
            kept = bool(record.aside) and self._save_foreign(dest, record, name)
            part = Tree(bind(dest), _IN_PART, mtime=os.fstat(dest).st_mtime_ns)
        finally:
            os.close(dest)
        return Record(
            tree=part,
            trash=record.trash if kept else (*record.trash, staging),
            generations=(*record.generations, staging) if kept else record.generations,
        )

    def _save_foreign(self, dest: int, record: Record, name: bytes) -> bool:
        """Put the rest of what was not ours with what was moved away of it already; false if that is gone."""
        try:
            staging = open_private(dest, name)
        except RootfsError:
            staging = None
        if staging is None:
            return False
        try:
            new = open_or_none(staging, _NEW)
            left: set[bytes] = set()
            if new is not None:
                left = set(names_in(new))
                os.close(new)
            if left == set(map(os.fsencode, record.new_names)):
                self._move_old(dest, record, staging)
            self._remove(staging, Tree(BY_NAME, name=os.fsdecode(_NEW)))
        except RootfsError:
            # a container changed it: what the user may want is never thrown away
            pass
        finally:
            os.close(staging)
        return True

    def _move_old(self, dest: int, record: Record, staging: int) -> None:
        """Move the old names away, as long as no new one is out."""
        old = make_private(staging, _OLD)
        try:
            there = set(names_in(dest))
            for name in map(os.fsencode, record.old_names):
                if name in there:
                    # a name that is there already was made by a container
                    with contextlib.suppress(FileExistsError):
                        move(dest, name, old, name)
            syncfs(dest)
        finally:
            os.close(old)

    def _move(self, record: Record, tree: Tree) -> Record:
        """Carry out the move that the record describes."""
        with contextlib.ExitStack() as stack:
            dest = self._dest()
            stack.callback(os.close, dest)
            staging = self._open_staging(dest, tree)
            stack.callback(os.close, staging)
            new = self._open_new(staging, tree)
            stack.callback(os.close, new)
            self._move_old(dest, record, staging)
            for name in map(os.fsencode, record.new_names):
                move(new, name, dest, name)
            _copy_metadata(new, dest)
            binding = move_token(tree.binding, dest)
            syncfs(dest)
        moved = Tree(BY_NAME, name=tree.name)
        kept = bool(record.aside)
        record = Record(
            tree=replace(tree, binding=binding, name=""),
            trash=record.trash if kept else (*record.trash, moved),
            generations=(*record.generations, moved) if kept else record.generations,
        )
        self._site.save(record)
        return self._clear(record)

    def _clear(self, record: Record) -> Record:
        """Remove the trash; what cannot be removed waits for the next run."""
        if not record.trash:
            return record
        dest = self._writable_dest()
        try:
            left = tuple(tree for tree in record.trash if self._remove(dest, tree))
            _restore_time(dest, record)
        finally:
            os.close(dest)
        if left != record.trash:
            record = replace(record, trash=left)
            self._save(record)
        return record

    def _remove(self, parent: int, tree: Tree) -> bool:
        """Remove what can be removed of a tree in the mount; true, and a warning, if something stays."""
        path = os.path.join(self._site.path, tree.name)
        return self._remove_tree(parent, tree, path)

    def _emptied(self, record: Record) -> Record:
        """Remove all but what is kept; what cannot be removed is put into a folder that waits for the next run."""
        kept = {tree.name.encode() for tree in record.generations}
        keep = frozenset(kept | {_LOST_AND_FOUND})
        dest = self._writable_dest()
        trash: tuple[Tree, ...] = ()
        try:
            remains = try_empty_directory(dest, keep)
            if remains:
                rest = Tree(BY_NAME, name="." + random_name())
                trash = (rest,)
                self._site.save(replace(record, trash=trash))
                self._put_together(dest, rest, keep)
                path = os.path.join(self._site.path, rest.name)
                why = f"{remains.describe(path)}; {remains.advice}"
                self._site.warn_kept(path, why)
            os.fsync(dest)
        finally:
            os.close(dest)
        record = Record(generations=record.generations, trash=trash)
        self._save(record)
        return record

    def _put_together(self, dest: int, rest: Tree, keep: frozenset[bytes]) -> None:
        """Move all names that are left into one folder. Raises ``OSError`` if one cannot be moved."""
        folder = make_private(dest, rest.name.encode())
        try:
            for name in names_in(dest):
                if name not in keep and name != rest.name.encode():
                    move(dest, name, folder, name)
        finally:
            os.close(folder)


def _names_of_uploads(site: Dest) -> list[bytes]:
    """Folders for blobs, which may lie in the mount as long as their transfer goes on."""
    if site.read(UPLOADS) is None:
        return []
    from .uploads import names_in_dest

    return names_in_dest(site)


def _restore_time(dest: int, record: Record) -> None:
    """What was made and removed in the mount's root shall not show."""
    if record.tree is not None and record.tree.binding.holds(dest):
        os.utime(dest, ns=(record.tree.mtime, record.tree.mtime))


def _copy_metadata(new: int, dest: int) -> None:
    """Give the mount's own root what the new root directory has; times last."""
    status = os.fstat(new)
    if os.geteuid() == 0:
        os.fchown(dest, status.st_uid, status.st_gid)
    os.fchmod(dest, stat.S_IMODE(status.st_mode))
    wanted = _xattrs(new)
    for name in _xattrs(dest):
        if name.startswith(_OURS) and name not in wanted:
            os.removexattr(dest, name)
    for name, value in wanted.items():
        os.setxattr(dest, name, value)
    os.utime(dest, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _xattrs(fd: int) -> dict[str, bytes]:
    try:
        names = os.listxattr(fd)
    except OSError:
        # a file system without any has none to copy
        return {}
    return {
        name: os.getxattr(fd, name)
        for name in names
        # the label of the host's own security module stays its business
        if not is_token(name) and name != "security.selinux"
    }
