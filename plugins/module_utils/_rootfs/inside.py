# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Replacing what a mount point holds: nothing can be exchanged from outside (docs/behaviour.md, section 7).

Staging is a random private directory inside of the mount, with C(new), the tree to be, and C(old), what
it replaces. The record lies outside. Names are moved one by one, and only those that the record lists:
not atomic, but every run that follows knows how to finish.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace

from ansible_collections.hypervisor.oci.plugins.module_utils._errors import (
    RootfsError,
    show,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.directories import (
    make_private,
    move,
    names_in,
    open_or_none,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.in_use import (
    require_no_mount_below,
    require_unused,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.place import (
    DROPS,
    Site,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.record import (
    MOVING,
    STAGED,
    UNPACKING,
    Binding,
    Record,
    Tree,
    is_token,
    move_token,
    random_name,
    unbind,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.removal import (
    empty_directory,
    remove_tree,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.syscalls import (
    syncfs,
)

_BY_NAME = Binding(None, 0, None)
_NEW = b"new"
_OLD = b"old"
_LOST_AND_FOUND = b"lost+found"

# What a new root directory may leave on the mount's own, and so what is cleared there first.
_OURS = ("user.", "security.capability", "system.posix_acl_")


class Inside:
    """The same steps as C(Beside) has, for a dest that is a mount point."""

    def __init__(self, site: Site, ignore_use: bool) -> None:
        self._site = site
        self._ignore_use = ignore_use

    def current(self, record: Record) -> Tree | None:
        """The tree of ours that fills the mount; C(None) where it is foreign or half moved."""
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
        """Raises C(RootfsError) that lists what uses the tree."""
        if self._ignore_use:
            return
        fd = self._dest()
        try:
            require_unused(fd, self._site.path)
        finally:
            os.close(fd)

    def recover(self, record: Record) -> Record:
        """Finish what an earlier run left, and clear its leftovers."""
        if record.removing:
            self.check_use()
            self._empty(record)
            record = Record(generations=record.generations)
            self._save(record)
            return record
        if record.phase == MOVING and record.next is not None:
            if self._has_next(record.next):
                self.check_use()
                return self._move(record)
            # the staging is gone, and with it what could be finished
            record = replace(record.without_next(), tree=None)
            self._site.save(record)
        elif record.phase == UNPACKING:
            record = record.without_next()
            self._site.save(record)
        return self._clear(record)

    def stage(self, record: Record) -> tuple[Record, int]:
        """A new, private, empty directory for the next tree, and a descriptor of it."""
        name = "." + random_name()
        record = replace(
            record.without_next(), next=Tree(_BY_NAME, name=name), phase=UNPACKING
        )
        self._site.save(record)
        dest = self._dest()
        try:
            staging = make_private(dest, name.encode())
        finally:
            os.close(dest)
        try:
            return record, make_private(staging, _NEW)
        finally:
            os.close(staging)

    def staged(self, record: Record, tree: Tree) -> Record:
        """Note that the next tree is whole and durable."""
        name = record.next.name if record.next is not None else ""
        record = replace(record, next=replace(tree, name=name), phase=STAGED)
        self._site.save(record)
        return record

    def has_staged(self, record: Record) -> bool:
        """Whether the next tree is there as the record says."""
        return (
            record.phase == STAGED
            and record.next is not None
            and self._has_next(record.next)
        )

    def discard_next(self, record: Record) -> Record:
        """Remove the next tree."""
        record = record.without_next()
        self._site.save(record)
        return self._clear(record)

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
            remove_tree(dest, record.next.name.encode())
            _restore_time(dest, record)
        finally:
            os.close(dest)
        record = replace(record.without_next(), trash=record.trash)
        self._save(record)
        return record

    def commit(self, record: Record) -> Record:
        """Move the old names away and the new ones in. Raises C(RootfsError)."""
        tree = record.next
        if tree is None:
            raise RootfsError("no tree is staged; run again")
        self.check_use()
        dest = self._dest()
        try:
            old_names = self._content(dest, record)
            new = self._open_in_staging(dest, tree, _NEW)
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
        return self._move(record)

    def previous(self, record: Record) -> Tree:
        """Nothing is kept inside of a mount. Raises C(RootfsError)."""
        raise RootfsError(
            f"{show(self._site.path)} is a mount point, where no earlier tree is kept; provision the earlier image again"
        )

    def restore_previous(self, record: Record) -> Record:
        """As C(previous). Raises C(RootfsError)."""
        self.previous(record)
        return record

    def prune(self, record: Record) -> Record:
        """Nothing of ours is kept inside of a mount."""
        return record

    def has_something(self, record: Record, with_foreign: bool) -> bool:
        """Whether there is anything for C(remove) to do."""
        dest = self._dest()
        try:
            if self._content(dest, record):
                return True
        finally:
            os.close(dest)
        kept = record.generations if not with_foreign else ()
        return record != Record(generations=kept)

    def remove(self, record: Record, with_foreign: bool) -> list[str]:
        """Remove all content but C(lost+found); returns where foreign content stays. Raises C(RootfsError)."""
        require_no_mount_below(self._site.path)
        kept = () if with_foreign else record.generations
        record = replace(record, removing=True, generations=kept)
        self._site.save(record)
        self._empty(record)
        record = Record(generations=kept)
        self._save(record)
        return self.path_of_kept(record)

    def path_of_kept(self, record: Record) -> list[str]:
        """Where foreign content is kept."""
        return [
            os.path.join(self._site.path, tree.name, "old")
            for tree in record.generations
        ]

    # -- the parts

    def _save(self, record: Record) -> None:
        if record.is_empty:
            self._site.forget()
        else:
            self._site.save(record)

    def _dest(self) -> int:
        fd = self._site.open_dest()
        if fd is None:
            raise RootfsError(
                f"{show(self._site.path)} is gone; mount it and run again"
            )
        return fd

    def _content(self, dest: int, record: Record) -> list[bytes]:
        """The names that belong to the tree, not to the file system or to this module."""
        own = {tree.name.encode() for tree in (*record.generations, *record.trash)}
        if record.next is not None:
            own.add(record.next.name.encode())
        own.add(_LOST_AND_FOUND)
        own.update(_names_of_drops(self._site))
        return [name for name in names_in(dest) if name not in own]

    def _open_in_staging(self, dest: int, tree: Tree, name: bytes) -> int:
        staging = open_or_none(dest, tree.name.encode())
        if staging is None:
            raise RootfsError(
                f"the staging of {show(self._site.path)} is gone; run again"
            )
        try:
            return (
                make_private(staging, name) if name == _OLD else self._open_new(staging)
            )
        finally:
            os.close(staging)

    def _open_new(self, staging: int) -> int:
        fd = open_or_none(staging, _NEW)
        if fd is None:
            raise RootfsError(
                f"the staging of {show(self._site.path)} is gone; run again"
            )
        return fd

    def _has_next(self, tree: Tree) -> bool:
        dest = self._dest()
        try:
            staging = open_or_none(dest, tree.name.encode())
            if staging is None:
                return False
            try:
                new = open_or_none(staging, _NEW)
            finally:
                os.close(staging)
            if new is None:
                return False
            try:
                return tree.binding.holds(new)
            finally:
                os.close(new)
        finally:
            os.close(dest)

    def _move(self, record: Record) -> Record:
        """Carry out, or carry on with, the move that the record describes."""
        tree = record.next
        if tree is None:
            return record
        dest = self._dest()
        try:
            new = self._open_in_staging(dest, tree, _NEW)
            old = self._open_in_staging(dest, tree, _OLD)
            try:
                left = set(names_in(new))
                if left == set(map(os.fsencode, record.new_names)):
                    # no new name is out yet, so what is outside is old
                    there = set(names_in(dest))
                    for name in map(os.fsencode, record.old_names):
                        if name in there:
                            move(dest, name, old, name)
                    syncfs(dest)
                for name in map(os.fsencode, record.new_names):
                    if name in left:
                        move(new, name, dest, name)
                _copy_metadata(new, dest)
                binding = move_token(tree.binding, dest)
            finally:
                os.close(new)
                os.close(old)
            syncfs(dest)
        finally:
            os.close(dest)
        moved = Tree(_BY_NAME, name=tree.name)
        kept = bool(record.aside)
        record = Record(
            tree=replace(tree, binding=binding, name=""),
            trash=record.trash if kept else (*record.trash, moved),
            generations=(*record.generations, moved) if kept else record.generations,
        )
        self._site.save(record)
        return self._clear(record)

    def _clear(self, record: Record) -> Record:
        if not record.trash:
            return record
        dest = self._dest()
        try:
            for tree in record.trash:
                remove_tree(dest, tree.name.encode())
            _restore_time(dest, record)
        finally:
            os.close(dest)
        record = replace(record, trash=())
        self._save(record)
        return record

    def _empty(self, record: Record) -> None:
        kept = {tree.name.encode() for tree in record.generations}
        dest = self._dest()
        try:
            empty_directory(dest, frozenset(kept | {_LOST_AND_FOUND}))
            os.fsync(dest)
        finally:
            os.close(dest)


def _names_of_drops(site: Site) -> list[bytes]:
    """Folders for blobs, which may lie in the mount as long as their transfer goes on."""
    if site.read(DROPS) is None:
        return []
    from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.drop import (
        names_in_dest,
    )

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
