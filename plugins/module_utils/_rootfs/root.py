# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""File system operations inside the root, by directory descriptor.

Only this process writes to the root. It starts empty, or as the tree of lower layers, whose directories are learned when they
are met. So all directories that matter are known in memory: any other name is a file, a link, a node, or missing. The
kernel gets single path components only, and never follows one: links are resolved here, as if chrooted
(docs/behaviour.md, section 4).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import typing as t
from collections import OrderedDict

from .._errors import EntryError, show
from . import acl
from .aside import ASIDE
from .attributes import Attributes, CreationDefaults
from .journal import LOWER_DIRECTORY, MAKE_DIRECTORY, REMOVE, TOP, Journal
from .._fs.descriptors import opened
from .._fs.directories import some_names_in
from .._fs.walk import walk

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_EXISTING_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# The prefix of whiteouts.
WHITEOUT = b".wh."

# As many links as the kernel follows in one lookup.
_MOST_LINKS = 40
# Directories that are kept open at once.
_MOST_OPEN = 128
# Links followed and directories reopened that an image may cause: a base, and more for each entry.
_FREE_STEPS = 1_000_000
_STEPS_PER_ENTRY = 16
# Bytes of memory for directories, and for the names that a layer adds.
_MOST_REMEMBERED = 256 * 1024 * 1024
# What each takes beyond its name, and a directory's first child (64-bit CPython 3.8 to 3.14).
_DIRECTORY_COST = 480
_FIRST_CHILD_COST = 200
# A directory of lower layers until more of it is learned.
_LOWER_COST = 400
_NAME_COST = 144
# Names of one directory that are read at once.
_BATCH = 32_768
# The children of all directories without any: one empty dictionary, never written to.
_NO_CHILDREN: dict[bytes, Directory] = {}


# Components of a path, from the top.
Names = t.Sequence[bytes]


class Directory:
    """A directory of the root, the metadata that it will get, and what the current layer did to it.

    ``added`` holds the names that layer number ``layer`` put here. Directories above them have the same ``layer``, so
    that whiteouts of that layer leave them alone (section 5). A directory that the current layer made, see ``made_in``,
    holds nothing of other layers, so its names are not recorded. ``cleared`` is the layer that last whited it out.
    ``number`` is its number in the journal, ``source`` that of the entry which gave its attributes.
    """

    __slots__ = (
        "parent", "name", "children", "attributes", "made_in", "layer", "added", "cleared", "number", "source"
    )  # fmt: skip

    def __init__(self, parent: Directory | None, name: bytes, attributes: Attributes, made_in: int) -> None:
        self.parent = parent
        self.name = name
        self.attributes = attributes
        self.made_in = made_in
        self.children = _NO_CHILDREN
        self.layer = -1
        self.cleared = -1
        self.added: set[bytes] | None = None
        self.number = TOP
        self.source = 0

    @property
    def met(self) -> t.Iterable[Directory]:
        """The directories in it that may have to be finished."""
        return self.children.values()

    def prepare(self) -> None:
        """Do what entries that are made in it need first."""

    def clear_for(self, fd: int) -> bool:
        """Remove what its attributes do not replace; return whether they have to be written."""
        del fd
        return True


class LowerDirectory(Directory):
    """A directory of lower layers: what it holds and its attributes are learned when they are asked for.

    An untouched one is never written to, because an overlay would copy it.
    """

    __slots__ = ("_root", "_children", "_attributes", "_found", "_prepared", "_number")

    def __init__(self, root: Root, parent: Directory | None, name: bytes) -> None:
        self._root = root
        self._children: dict[bytes, Directory] | None = None
        self._found: Attributes | None = None
        self._attributes: Attributes | None = None
        self._prepared = False
        self._number = TOP
        self.source = 0
        self.parent = parent
        self.name = name
        self.made_in = -1
        self.layer = -1
        self.cleared = -1
        self.added = None

    @property
    def children(self) -> dict[bytes, Directory]:  # type: ignore[override]
        """The directories in it, by name."""
        if self._children is None:
            # before anything in it changes
            self._learn()
            self._children = self._root.learn_children(self)
        return self._children

    @children.setter
    def children(self, children: dict[bytes, Directory]) -> None:
        self._children = children

    @property
    def attributes(self) -> Attributes:  # type: ignore[override]
        """What an entry of this process's layers gives it, or what lower layers gave it."""
        return self._attributes or self.found

    @attributes.setter
    def attributes(self, attributes: Attributes) -> None:
        # what is on disk is needed when they are written
        self._learn()
        self._attributes = attributes

    @property
    def number(self) -> int:  # type: ignore[override]
        """Its number in the journal, which it gets when it is first asked for."""
        if self.parent is not None and self._number == TOP:
            self._number = self._root.journal.directory(LOWER_DIRECTORY, self.parent.number, self.name)
        return self._number

    @property
    def found(self) -> Attributes:
        """The attributes that lower layers gave it."""
        return self._learn()

    def _learn(self) -> Attributes:
        if self._found is None:
            self._found = self._root.learn_attributes(self)
        return self._found

    @property
    def met(self) -> t.Iterable[Directory]:
        """The directories in it that were met."""
        return () if self._children is None else self._children.values()

    def prepare(self) -> None:
        """Keep new entries from inheriting the group, the bit that does so, and default ACLs."""
        found = self._learn()
        if self._prepared or not (found.mode & stat.S_ISGID or acl.DEFAULT in found.xattrs):
            return
        self._prepared = True
        fd = self._root.fd(self)
        os.fchmod(fd, 0o700)
        if acl.DEFAULT in found.xattrs:
            os.removexattr(fd, acl.DEFAULT)
        if self._attributes is None:
            self._attributes = found

    def clear_for(self, fd: int) -> bool:
        """Remove xattrs that it must not keep; return whether it was touched."""
        if self._found is None:
            return False
        if self._attributes is None:
            return os.fstat(fd).st_mtime_ns != self._found.mtime
        for name in self._found.xattrs:
            if name not in self._attributes.xattrs:
                with contextlib.suppress(OSError):
                    os.removexattr(fd, name)
        return True


class Root:
    """A tree under construction in the directory ``fd``, which the caller closes.

    It is empty, or, with ``keeps``, holds the tree of lower layers; ``keeps`` says which xattrs of its directories were the
    image's. If it is ``stacked``, an overlay of them, files with several names are copied as one. Directories that no entry
    describes get the attributes ``missing``. ``count_directory`` is called for each of them, so that links and names cannot
    make more than ``max_entries``. ``journal`` notes what is made and removed. Methods raise ``EntryError`` for faults of the
    image and ``OSError`` for those of the system.
    """

    def __init__(
        self,
        fd: int,
        missing: Attributes,
        count_directory: t.Callable[[], None] = lambda: None,
        keeps: t.Callable[[str], bool] | None = None,
        stacked: bool = False,
    ) -> None:
        self._keeps = keeps
        self.journal = Journal()
        # only what lies on lower layers can be taken apart
        self._stacked = stacked and keeps is not None
        # paths of files with several names by inode number, once a layer links to one; those that have lost a name
        self._groups: dict[int, list[bytes]] | None = None
        self._shrunk: set[int] = set()
        self.top = Directory(None, b"", missing, -1) if keeps is None else LowerDirectory(self, None, b"")
        self._missing = missing
        self._count_directory = count_directory
        self._top_fd = fd
        self._fds: OrderedDict[Directory, int] = OrderedDict()
        self._memo: tuple[Names, Directory] = ((), self.top)
        self._steps = _FREE_STEPS
        self._layer = -1
        self._tracked = False
        self._remembered = 0
        # directories that the current layer added names to, and the part of _remembered that these take
        self._noted: list[Directory] = []
        self._noted_size = 0

    def close(self) -> None:
        """Close all directories."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    def learn_children(self, directory: Directory) -> dict[bytes, Directory]:
        """Return the directories in a directory of lower layers."""
        found: dict[bytes, Directory] = {}
        for names in self._names(directory, only_directories=True):
            for name in names:
                # the current layer's own, which goes with it
                if name != ASIDE:
                    found[name] = LowerDirectory(self, directory, name)
                    self.remember(_LOWER_COST + len(name))
        return found

    def learn_attributes(self, directory: Directory) -> Attributes:
        """Return the attributes of a directory of lower layers, with the image's xattrs alone."""
        fd = self.fd(directory)
        status = os.fstat(fd)
        keeps = self._keeps or (lambda _name: False)
        xattrs = {name: os.getxattr(fd, name) for name in _xattrs_of(fd) if keeps(name)}
        return Attributes(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, xattrs)

    def probe_defaults(self) -> CreationDefaults:
        """Probe the owner and mode that new files get in this tree, before anything is applied to it."""
        self.top.prepare()
        name = b"probe-" + os.urandom(16).hex().encode()
        with opened(os.open(name, _NEW_FILE, 0o777, dir_fd=self._top_fd)) as fd:
            os.unlink(name, dir_fd=self._top_fd)
            status = os.fstat(fd)
        keeps_mode = stat.S_IMODE(status.st_mode) == 0o777
        return CreationDefaults(status.st_uid, status.st_gid, keeps_mode)

    # -- layers: what the current one adds, and what those below it hold

    def begin_layer(self) -> None:
        """Begin a layer; what is added from now on belongs to it."""
        self._layer += 1
        # above an empty root there is nothing to white out
        self._tracked = bool(some_names_in(self._top_fd, 1, frozenset()))
        for directory in self._noted:
            directory.added = None
        self._noted = []
        self._remembered -= self._noted_size
        self._noted_size = 0

    def add(self, parent: Directory, name: bytes) -> None:
        """Record that the current layer put ``name`` into ``parent``."""
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
        """Count bytes that stay in memory until the layer or the tree is finished. Raises ``EntryError``."""
        self._remembered += size
        if self._remembered > _MOST_REMEMBERED:
            raise EntryError(
                "the image's directories, and the names that one layer adds to directories of others, take more than"
                f" {_MOST_REMEMBERED} bytes of memory, a fixed limit",
                "build the image with fewer of them",
            )

    def _is_added(self, parent: Directory, name: bytes) -> bool:
        return parent.made_in == self._layer or (
            parent.layer == self._layer and parent.added is not None and name in parent.added
        )

    def white_out(self, parent: Directory, name: bytes) -> bool:
        """Remove what lower layers put at ``name``; return false if there was nothing."""
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
        """Remove what lower layers put into ``directory``; return false if it was not looked at."""
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

    def _white_out_lower(self, above: Directory, name: bytes, pending: list[Directory]) -> None:
        """Remove what lower layers put at a name; a directory with names of this layer goes to ``pending``."""
        child = above.children.get(name)
        added = self._is_added(above, name)
        if child is None:
            if not added and name != ASIDE:
                self._remove_name(name, self.fd(above))
                self.journal.note(REMOVE, above.number, name)
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
        """Return a descriptor of the directory, valid until the next call."""
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
        """Return the directory that ``above`` leads to, links followed, and make what is missing."""
        known, directory = self._memo
        if above is known or above == known:
            return directory
        made = self._walk(above, True)
        if made is None:
            raise EntryError("its parent directory cannot be made")
        made.prepare()
        self._memo = (above, made)
        return made

    def find(self, names: Names) -> Directory | None:
        """Return the directory that ``names`` lead to, links followed, or ``None``."""
        return self._walk(names, False)

    def _walk(self, names: Names, create: bool, start: Directory | None = None) -> Directory | None:
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
                    raise EntryError("its path leads through a loop of symbolic links", "build the image without it")
                further = target.split(b"/")
                self._step(len(further))
                if target[:1] == b"/":
                    directory = self.top
                pending += further[::-1]
            elif not create:
                return None
            else:
                directory = self._make_missing(directory, part, target is not None)
        return directory

    def _make_missing(self, parent: Directory, name: bytes, is_other: bool) -> Directory:
        """Make a directory that no entry describes; ``is_other`` tells that a file has its name."""
        if name.startswith(WHITEOUT):
            raise EntryError(f"its path leads through the whiteout {show(name)}")
        if is_other:
            self._unlink(parent, name)
        self._count_directory()
        if self._tracked:
            # a link may lead through it and out again, so no entry would record it
            self._note_added(parent, name)
        return self.make_directory(parent, name, self._missing)

    def _link_text(self, parent: Directory, name: bytes) -> bytes | None:
        """Return a symlink's text, an empty text for another file, or ``None`` if the name is missing."""
        try:
            return os.readlink(name, dir_fd=self.fd(parent))
        except OSError as error:
            if error.errno == errno.EINVAL:
                return b""
            if error.errno == errno.ENOENT:
                return None
            raise

    def follow_directory_link(self, parent: Directory, name: bytes) -> Directory | None:
        """Return the directory that the symlink ``name`` leads to, or ``None`` if it is not such a link."""
        target = self._link_text(parent, name)
        if not target:
            return None
        start = self.top if target[:1] == b"/" else parent
        try:
            return self._walk(target.split(b"/"), False, start)
        except EntryError:
            # a loop of links
            return None

    def open_file(self, path: bytes) -> int | None:
        """Open a regular file for reading, links followed inside the root; return ``None`` if it is missing."""
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
            if not stat.S_ISREG(os.stat(name, dir_fd=self.fd(parent), follow_symlinks=False).st_mode):
                return None
            return os.open(name, _EXISTING_FILE, dir_fd=self.fd(parent))
        return None

    # -- making

    def make_directory(self, parent: Directory, name: bytes, attributes: Attributes) -> Directory:
        """Make a directory, closed to others until it gets its mode at the end."""
        parent.prepare()
        os.mkdir(name, 0o700, dir_fd=self.fd(parent))
        child = Directory(parent, name, attributes, self._layer)
        child.number = self.journal.directory(MAKE_DIRECTORY, parent.number, name)
        if parent.children is _NO_CHILDREN:
            parent.children = {name: child}
            self.remember(_FIRST_CHILD_COST)
        else:
            parent.children[name] = child
        self.remember(_DIRECTORY_COST + len(name))
        return child

    def create_file(self, parent: Directory, name: bytes, mode: int = 0o600) -> int:
        """Create a file and open it for writing; whatever had the name is removed."""
        fd = self.fd(parent)
        try:
            return os.open(name, _NEW_FILE, mode, dir_fd=fd)
        except FileExistsError:
            self.remove(parent, name)
            return os.open(name, _NEW_FILE, mode, dir_fd=self.fd(parent))

    def link_file(self, source: Directory, old: bytes, parent: Directory, name: bytes) -> None:
        """Make a hard link to a file without following it; whatever had the name is removed."""
        self.remove(parent, name)
        # a copy, because opening the other directory may close this descriptor
        with opened(os.dup(self.fd(source))) as source_fd:
            before = os.stat(old, dir_fd=source_fd, follow_symlinks=False)
            linked = self._linked(before)
            os.link(old, name, src_dir_fd=source_fd, dst_dir_fd=self.fd(parent), follow_symlinks=False)
        if linked:
            self._keep_linked(before, linked, (parent, name))

    def _linked(self, status: os.stat_result) -> t.Sequence[bytes]:
        """Return the paths of a file of lower layers with several names, which an overlay would take apart."""
        if not self._stacked or status.st_nlink < 2 or stat.S_ISDIR(status.st_mode):
            return ()
        if self._groups is None:
            self._groups = self._find_groups()
        return self._groups.get(status.st_ino, ())

    def _find_groups(self) -> dict[int, list[bytes]]:
        """Return the paths of all files with several names, by inode number."""
        groups: dict[int, list[bytes]] = {}
        for seen in walk(self._top_fd, "to find names of its files"):
            if seen.status.st_nlink > 1 and not stat.S_ISDIR(seen.status.st_mode):
                path = seen.path + b"/" + seen.name
                groups.setdefault(seen.status.st_ino, []).append(path)
                self.remember(_NAME_COST + len(path))
        return groups

    def end_layer(self) -> None:
        """Give files of lower layers that have lost a name the right number of them: copies with the names that are left."""
        if not self._shrunk:
            return
        groups = self._find_groups()
        for inode in self._shrunk & groups.keys():
            paths = groups[inode]
            above, _slash, name = paths[0].rpartition(b"/")
            directory = self.find(above.split(b"/"))
            if directory is None:
                continue
            directory.prepare()
            fd = self.fd(directory)
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if status.st_nlink == len(paths):
                # made by this layer
                continue
            spare = b"copy-" + os.urandom(16).hex().encode()
            # whoever links to a lower file has a copy of it
            os.link(name, spare, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
            os.unlink(spare, dir_fd=fd)
            self._keep_linked(status, paths[1:], (directory, name))
        self._shrunk = set()

    def _note_unlinked(self, name: bytes, fd: int) -> None:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            self._shrunk.add(status.st_ino)

    def _keep_linked(self, before: os.stat_result, paths: t.Sequence[bytes], new: tuple[Directory, bytes]) -> None:
        """Link the other names of a file to its copy, if an overlay has made one for its new name."""
        parent, name = new
        with opened(os.dup(self.fd(parent))) as parent_fd:
            if os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_ino == before.st_ino:
                return
            for path in paths:
                above, _slash, other = path.rpartition(b"/")
                directory = self.find(above.split(b"/"))
                if directory is None or not self._is_same(directory, other, before):
                    continue
                # the journal knows the names, and that they are of one file
                os.unlink(other, dir_fd=self.fd(directory))
                os.link(name, other, src_dir_fd=parent_fd, dst_dir_fd=self.fd(directory), follow_symlinks=False)

    def _is_same(self, directory: Directory, name: bytes, status: os.stat_result) -> bool:
        directory.prepare()
        try:
            return os.stat(name, dir_fd=self.fd(directory), follow_symlinks=False).st_ino == status.st_ino
        except FileNotFoundError:
            return False

    # -- removing

    def remove(self, parent: Directory, name: bytes) -> None:
        """Remove whatever has this name."""
        child = parent.children.get(name)
        if child is not None:
            self.remove_tree(child)
        else:
            self._unlink_if_there(parent, name)

    def remove_tree(self, directory: Directory) -> None:
        """Remove a directory with its content."""
        above = directory.parent
        if above is None:
            raise EntryError("the root itself cannot be removed")
        self._memo = ((), self.top)
        # lists, because finding the first item of a dictionary takes longer the more items were deleted before it
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
        self.journal.note(REMOVE, above.number, directory.name)

    def _unlink_all(self, directory: Directory) -> None:
        count = _BATCH
        while count == _BATCH:
            names = some_names_in(self.fd(directory), _BATCH, frozenset())
            for name in names:
                self._remove_name(name, self.fd(directory))
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
        self._remove_name(name, self.fd(parent))
        self.journal.note(REMOVE, parent.number, name)

    def _remove_name(self, name: bytes, fd: int) -> None:
        if self._stacked:
            self._note_unlinked(name, fd)
        os.unlink(name, dir_fd=fd)

    def _unlink_if_there(self, parent: Directory, name: bytes) -> bool:
        try:
            self._unlink(parent, name)
        except FileNotFoundError:
            return False
        return True

    # -- finishing

    def directories(self) -> t.Iterator[Directory]:
        """Yield all directories, children before their parents."""
        pending = [(self.top, iter(list(self.top.met)))]
        while pending:
            directory, children = pending[-1]
            child = next(children, None)
            if child is None:
                pending.pop()
                yield directory
            else:
                pending.append((child, iter(list(child.met))))

    def _names(self, directory: Directory, only_directories: bool = False) -> t.Iterator[list[bytes]]:
        """Yield the names in a directory in batches; a batch may be removed before the next one is requested."""
        fd = self.fd(directory)
        # btrfs lists what the directory held when the descriptor was opened or rewound
        os.lseek(fd, 0, os.SEEK_SET)
        with os.scandir(fd) as scanned:
            entries: t.Iterator[os.DirEntry[str]] = scanned
            if only_directories:
                entries = (entry for entry in scanned if entry.is_dir(follow_symlinks=False))
            while names := [os.fsencode(entry.name) for entry in itertools.islice(entries, _BATCH)]:
                yield names

    def _step(self, number: int) -> None:
        if number > 0:
            self._steps -= number
            if self._steps < 0:
                raise EntryError(
                    f"the image's paths lead through more than {_FREE_STEPS} links and levels, and {_STEPS_PER_ENTRY} for each"
                    " entry, a fixed limit",
                    "build the image with shorter paths",
                )


def _xattrs_of(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EOPNOTSUPP):
            return []
        raise
