# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Every file-system operation inside the root, by directory descriptor.

The root starts as an empty directory that only this process fills, so all of its directories are known in
memory: what is not a known directory is a file, a link, a node or nothing. No path string ever reaches
the kernel with more than one component, and no component is followed by it: links are resolved here, as
if chrooted (docs/behaviour.md, section 4).
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import typing as t
from collections import OrderedDict

from .._errors import EntryError, show
from .attributes import Attributes, CreationDefaults
from .._fs.directories import some_names_in

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_EXISTING_FILE = (
    os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
)

# What a name that hides another begins with.
WHITEOUT = b".wh."

# As many links as the kernel follows in one lookup.
_MOST_LINKS = 40
# Descriptors of directories that are held open at once.
_MOST_OPEN = 128
# Steps through links and reopened levels that an image may cause: some, and more with every entry.
_FREE_STEPS = 1_000_000
_STEPS_PER_ENTRY = 16
# What may be remembered of directories and of names that a layer brings, in bytes of memory.
_MOST_REMEMBERED = 256 * 1024 * 1024
# What Python takes for each beyond the name itself, and for a directory's first child (64-bit CPython 3.8 to 3.14).
_DIRECTORY_COST = 480
_FIRST_CHILD_COST = 200
_NAME_COST = 144
# Names of one directory that are held at once.
_BATCH = 32_768
# The children of a directory without any: one empty dictionary for all of them, which nothing is put into.
_NO_CHILDREN: dict[bytes, Directory] = {}


# Components of a path, from the top.
Names = t.Sequence[bytes]


class Directory:
    """A directory of the root: its place, its metadata to be, and what the layer at hand did to it.

    ``brought`` holds the names that layer number ``layer`` put here, and a directory above something that
    was added has the same ``layer``: whiteouts must leave those alone (section 5). In a directory that
    layer number ``born`` made there is nothing else, and so no name to remember.
    """

    __slots__ = (
        "parent",
        "name",
        "children",
        "attributes",
        "made_in",
        "layer",
        "added",
        "cleared",
    )

    def __init__(
        self,
        parent: Directory | None,
        name: bytes,
        attributes: Attributes,
        made_in: int,
    ) -> None:
        self.parent = parent
        self.name = name
        self.attributes = attributes
        self.made_in = made_in
        self.children = _NO_CHILDREN
        self.layer = -1
        self.cleared = -1
        self.added: set[bytes] | None = None


class Root:
    """A tree under construction in the directory behind ``fd``, which must be empty.

    ``count_directory`` is called for every directory that no entry asked for, so that links and names
    cannot make more of them than ``max_entries``. Methods raise ``EntryError`` for what the image causes
    and ``OSError`` for what the system does. The descriptor stays the caller's.
    """

    def __init__(
        self,
        fd: int,
        missing: Attributes,
        count_directory: t.Callable[[], None] = lambda: None,
    ) -> None:
        self.top = Directory(None, b"", missing, -1)
        self._missing = missing
        self._count_directory = count_directory
        self._top_fd = fd
        self._fds: OrderedDict[Directory, int] = OrderedDict()
        self._memo: tuple[Names, Directory] = ((), self.top)
        self._steps = _FREE_STEPS
        self._layer = -1
        self._tracked = False
        self._remembered = 0
        # directories in which the layer at hand added names, and what these take of _remembered
        self._noted: list[Directory] = []
        self._noted_size = 0

    def close(self) -> None:
        """Close what is held open."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    def probe_defaults(self) -> CreationDefaults:
        """What a new file of this process is like in the tree, seen once: the root must be empty yet."""
        name = b"probe"
        fd = os.open(name, _NEW_FILE, 0o777, dir_fd=self._top_fd)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
            os.unlink(name, dir_fd=self._top_fd)
        keeps_mode = stat.S_IMODE(status.st_mode) == 0o777
        return CreationDefaults(status.st_uid, status.st_gid, keeps_mode)

    # -- layers: what is added by the one at hand, and what lies below it

    def begin_layer(self) -> None:
        """From here on, what is added belongs to a new layer."""
        self._layer += 1
        # below nothing there is nothing to hide, and so nothing to tell apart
        self._tracked = bool(some_names_in(self._top_fd, 1, frozenset()))
        for directory in self._noted:
            directory.added = None
        self._noted = []
        self._remembered -= self._noted_size
        self._noted_size = 0

    def add(self, parent: Directory, name: bytes) -> None:
        """Note that the layer at hand put ``name`` into ``parent``."""
        self._steps += _STEPS_PER_ENTRY
        if self._tracked:
            self._note_added(parent, name)

    def _note_added(self, parent: Directory, name: bytes) -> None:
        layer = self._layer
        if parent.made_in == layer:
            return
        added = parent.added
        if added is None:
            added = parent.added = set()
            self._noted.append(parent)
        elif name in added:
            return
        added.add(name)
        size = _NAME_COST + len(name)
        self._noted_size += size
        self.remember(size)
        above: Directory | None = parent
        while above is not None and above.layer != layer:
            above.layer = layer
            above = above.parent

    def remember(self, size: int) -> None:
        """Count bytes that stay in memory until the tree is finished, or the layer. Raises ``EntryError``."""
        self._remembered += size
        if self._remembered > _MOST_REMEMBERED:
            raise EntryError(
                "the image's directories, and the names that one layer adds to directories of others, take more than"
                f" {_MOST_REMEMBERED} bytes of memory, a fixed limit",
                "build the image with fewer of them",
            )

    def _is_added(self, parent: Directory, name: bytes) -> bool:
        return parent.made_in == self._layer or (
            parent.layer == self._layer
            and parent.added is not None
            and name in parent.added
        )

    def white_out(self, parent: Directory, name: bytes) -> bool:
        """Remove what lower layers have at ``name``; false where there was nothing."""
        if not self._tracked:
            return False
        child = parent.children.get(name)
        added = self._is_added(parent, name)
        if child is None:
            return not added and self._unlink_if_there(parent, name)
        self._memo = ((), self.top)
        self._white_out_directory(child, added)
        return True

    def white_out_all(self, directory: Directory) -> bool:
        """Remove what lower layers put into ``directory``; false where there was nothing to look at."""
        if not self._tracked or directory.cleared == self._layer:
            return False
        self._memo = ((), self.top)
        pending = [directory]
        while pending:
            above = pending.pop()
            if self._layer in (above.cleared, above.made_in):
                continue
            above.cleared = self._layer
            for names in self._names(above):
                for name in names:
                    self._white_out_lower(above, name, pending)
        return True

    def _white_out_lower(
        self, above: Directory, name: bytes, pending: list[Directory]
    ) -> None:
        """Remove what lower layers have at a name; what holds things of this layer is left to ``pending``."""
        child = above.children.get(name)
        added = self._is_added(above, name)
        if child is None:
            if not added:
                os.unlink(name, dir_fd=self.fd(above))
        elif added or child.layer == self._layer:
            if not added:
                child.attributes = self._missing
            pending.append(child)
        else:
            self.remove_tree(child)

    def _white_out_directory(self, child: Directory, added: bool) -> None:
        if not added and child.layer != self._layer:
            self.remove_tree(child)
            return
        if not added:
            child.attributes = self._missing
        self.white_out_all(child)

    # -- looking up

    def fd(self, directory: Directory) -> int:
        """A descriptor of the directory, good until the next call."""
        if directory.parent is None:
            return self._top_fd
        fds = self._fds
        fd = fds.get(directory)
        if fd is not None:
            fds.move_to_end(directory)
            return fd
        chain = []
        above: Directory | None = directory
        while above is not None and above.parent is not None and above not in fds:
            chain.append(above)
            above = above.parent
        self._step(len(chain) - 1)
        fd = self._top_fd
        if above is not None and above.parent is not None:
            fd = fds[above]
            fds.move_to_end(above)
        while chain:
            below = chain.pop()
            fd = os.open(below.name, _DIRECTORY, dir_fd=fd)
            fds[below] = fd
            if len(fds) > _MOST_OPEN:
                os.close(fds.popitem(last=False)[1])
        return fd

    def make_parent(self, above: Names) -> Directory:
        """The directory that ``above`` lead to, as ``find`` has it, but made where it is missing."""
        known, directory = self._memo
        if above is known or above == known:
            return directory
        made = self._walk(above, True)
        if made is None:
            raise EntryError("its parent cannot be made")
        self._memo = (above, made)
        return made

    def find(self, names: Names) -> Directory | None:
        """The directory that ``names`` lead to, links followed; ``None`` where there is none."""
        return self._walk(names, False)

    def _walk(
        self, names: Names, create: bool, start: Directory | None = None
    ) -> Directory | None:
        directory = start or self.top
        pending = list(reversed(names))
        links = 0
        while pending:
            part = pending.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                directory = directory.parent or directory
                continue
            known = directory.children.get(part)
            if known is not None:
                directory = known
                continue
            if len(part) > 255:
                raise EntryError("its path leads through a name of over 255 bytes")
            target = self._link_text(directory, part)
            if target:
                links += 1
                if links > _MOST_LINKS:
                    raise EntryError(
                        "its path leads through a loop of symbolic links",
                        "build the image without it",
                    )
                further = target.split(b"/")
                self._step(len(further))
                if target[:1] == b"/":
                    directory = self.top
                pending += further[::-1]
                continue
            if not create:
                return None
            if part.startswith(WHITEOUT):
                raise EntryError(f"its path leads through the whiteout {show(part)}")
            if target is not None:
                self._unlink(directory, part)
            self._count_directory()
            if self._tracked:
                # a link may lead through it and out again, and no entry would tell whose it is
                self._note_added(directory, part)
            directory = self.make_directory(directory, part, self._missing)
        return directory

    def _link_text(self, parent: Directory, name: bytes) -> bytes | None:
        """The text of a symlink, nothing for another non-directory, ``None`` where nothing is."""
        try:
            return os.readlink(name, dir_fd=self.fd(parent))
        except OSError as error:
            if error.errno == errno.EINVAL:
                return b""
            if error.errno == errno.ENOENT:
                return None
            raise

    def follow_directory_link(self, parent: Directory, name: bytes) -> Directory | None:
        """The directory that a symlink of this name leads to; ``None`` if it is no such link."""
        target = self._link_text(parent, name)
        if not target:
            return None
        start = self.top if target[:1] == b"/" else parent
        try:
            return self._walk(target.split(b"/"), False, start)
        except EntryError:
            # a loop leads nowhere
            return None

    def open_file(self, path: bytes) -> int | None:
        """A descriptor of a regular file for reading, links followed inside the root, nothing waited for."""
        parts = [part for part in path.split(b"/") if part]
        for _link in range(_MOST_LINKS):
            if not parts:
                return None
            parent = self._walk(parts[:-1], False)
            name = parts[-1]
            if parent is None or name in parent.children or name in (b".", b".."):
                return None
            if len(name) > 255:
                return None
            target = self._link_text(parent, name)
            if target is None:
                return None
            if target:
                parts = parts[:-1] if target[:1] != b"/" else []
                parts += [part for part in target.split(b"/") if part]
                continue
            if not stat.S_ISREG(
                os.stat(name, dir_fd=self.fd(parent), follow_symlinks=False).st_mode
            ):
                return None
            return os.open(name, _EXISTING_FILE, dir_fd=self.fd(parent))
        return None

    # -- making

    def make_directory(
        self, parent: Directory, name: bytes, attributes: Attributes
    ) -> Directory:
        """A new directory, closed to others until ``finish`` gives it its mode."""
        os.mkdir(name, 0o700, dir_fd=self.fd(parent))
        child = Directory(parent, name, attributes, self._layer)
        if parent.children is _NO_CHILDREN:
            parent.children = {name: child}
            self.remember(_FIRST_CHILD_COST)
        else:
            parent.children[name] = child
        self.remember(_DIRECTORY_COST + len(name))
        return child

    def create_file(self, parent: Directory, name: bytes, mode: int = 0o600) -> int:
        """A descriptor of a new, empty file, for writing; what was there is removed."""
        fd = self.fd(parent)
        try:
            return os.open(name, _NEW_FILE, mode, dir_fd=fd)
        except FileExistsError:
            self.remove(parent, name)
            return os.open(name, _NEW_FILE, mode, dir_fd=self.fd(parent))

    def link_file(
        self, source: Directory, old: bytes, parent: Directory, name: bytes
    ) -> None:
        """A hard link to a non-directory, which is not followed; what was at ``name`` is removed."""
        self.remove(parent, name)
        # a copy, since looking the other directory up may close this one's descriptor
        source_fd = os.dup(self.fd(source))
        try:
            os.link(
                old,
                name,
                src_dir_fd=source_fd,
                dst_dir_fd=self.fd(parent),
                follow_symlinks=False,
            )
        finally:
            os.close(source_fd)

    # -- removing

    def remove(self, parent: Directory, name: bytes) -> None:
        """Remove whatever has this name, if anything has."""
        child = parent.children.get(name)
        if child is not None:
            self.remove_tree(child)
        else:
            self._unlink_if_there(parent, name)

    def remove_tree(self, directory: Directory) -> None:
        """Remove a directory with all that it holds; only ever its own content."""
        above = directory.parent
        if above is None:
            raise EntryError("the root itself cannot be removed")
        self._memo = ((), self.top)
        # lists, since a dictionary takes ever longer to find its first item when those before are gone
        pending = [(directory, list(directory.children.values()))]
        while pending:
            current, below = pending[-1]
            if below:
                child = below.pop()
                pending.append((child, list(child.children.values())))
                continue
            self._unlink_all(current)
            self._forget(current)
            pending.pop()

    def _unlink_all(self, directory: Directory) -> None:
        count = _BATCH
        while count == _BATCH:
            names = some_names_in(self.fd(directory), _BATCH, frozenset())
            for name in names:
                os.unlink(name, dir_fd=self.fd(directory))
            count = len(names)

    def _forget(self, directory: Directory) -> None:
        fd = self._fds.pop(directory, None)
        if fd is not None:
            os.close(fd)
        parent = directory.parent
        if parent is not None:
            os.rmdir(directory.name, dir_fd=self.fd(parent))
            del parent.children[directory.name]
            self._remembered -= _DIRECTORY_COST + len(directory.name)
            if directory.children is not _NO_CHILDREN:
                self._remembered -= _FIRST_CHILD_COST

    def _unlink(self, parent: Directory, name: bytes) -> None:
        self._memo = ((), self.top)
        os.unlink(name, dir_fd=self.fd(parent))

    def _unlink_if_there(self, parent: Directory, name: bytes) -> bool:
        try:
            self._unlink(parent, name)
        except FileNotFoundError:
            return False
        return True

    # -- finishing

    def directories(self) -> t.Iterator[Directory]:
        """All directories, children before their parents."""
        pending = [(self.top, iter(list(self.top.children.values())))]
        while pending:
            directory, children = pending[-1]
            child = next(children, None)
            if child is None:
                pending.pop()
                yield directory
            else:
                pending.append((child, iter(list(child.children.values()))))

    def _names(self, directory: Directory) -> t.Iterator[list[bytes]]:
        """The names in a directory, some at a time: those may be removed before the next are asked for."""
        fd = self.fd(directory)
        # btrfs shows what was there when the descriptor was opened or set back
        os.lseek(fd, 0, os.SEEK_SET)
        with os.scandir(fd) as entries:
            while names := [
                os.fsencode(entry.name) for entry in itertools.islice(entries, _BATCH)
            ]:
                yield names

    def _step(self, number: int) -> None:
        if number > 0:
            self._steps -= number
            if self._steps < 0:
                raise EntryError(
                    f"the image's paths lead through more than {_FREE_STEPS} links and levels, and {_STEPS_PER_ENTRY} for each"
                    " entry, a fixed limit",
                    "build the image with shorter ways",
                )
