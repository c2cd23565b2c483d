# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An executable specification: changesets applied to a tree in memory.

Read it beside docs/behaviour.md: each rule stands with its section ("4" is section 4). It shares no code with
plugins/, opens no file, and prefers the plainest way to say a rule over any speed.
"""

from __future__ import annotations

import struct
import typing as t
from collections import Counter
from dataclasses import dataclass, field

FILE = "file"
DIRECTORY = "directory"
SYMLINK = "symlink"
HARD_LINK = "hardlink"
CHAR = "char"
BLOCK = "block"
FIFO = "fifo"
SOCKET = "socket"

CAPABILITY = b"security.capability"
LAST_ID = 2**32 - 2
LONGEST_NAME = 255
LONGEST_LINK = 4095
MOST_LINKS = 40

# 4, devices: what `safe` creates
SAFE_DEVICES = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (0, 0)]

Range = t.Tuple[int, int, int]
Xattrs = t.Tuple[t.Tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Thing:
    """One entry of a layer, as the archive states it. ``mtime`` is in nanoseconds."""

    kind: str
    name: bytes
    data: bytes = b""
    link: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    device: tuple[int, int] = (0, 0)
    xattrs: Xattrs = ()


@dataclass(frozen=True)
class Options:
    """What changes the tree. ``caller`` are the ids that `ownership: ignore` gives to everything."""

    devices: str = "safe"
    keep_dirlinks: bool = False
    preserve: bool = True
    xattrs: tuple[bytes, ...] = ()
    uid_map: tuple[Range, ...] = ()
    gid_map: tuple[Range, ...] = ()
    caller: tuple[int, int] = (0, 0)


Layer = t.Sequence[Thing]


class ModelError(Exception):
    """The image is to be refused, because of this entry; ``kind`` is a few words without names."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.layer = -1
        self.entry: bytes | None = None


@dataclass(frozen=True)
class Meta:
    """Owner, mode, time and xattrs as they are to be on disk."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: Xattrs = ()


@dataclass(eq=False)
class Inode:
    """A thing in the tree; several names can share one that is no directory."""

    kind: str
    meta: Meta
    content: t.Any = None


@dataclass(eq=False)
class Directory(Inode):
    """A directory; the root is its own parent. ``layer`` is the last that put anything into it, at any depth."""

    layer: int = -1
    parent: Directory = field(init=False)
    children: dict[bytes, Slot] = field(default_factory=dict)


@dataclass(eq=False)
class Slot:
    """A name in a directory: what it names, and the layer that put it there."""

    inode: Inode
    layer: int


class Record(t.NamedTuple):
    """One path of a finished tree. ``group`` is the first of the paths that name the same inode."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: Xattrs
    content: t.Any
    group: bytes


Tree = t.Dict[bytes, Record]


def apply(layers: t.Sequence[Layer], options: Options, watch: Watch) -> Model:
    """The tree that these layers make. Raises ``ModelError`` that says where."""
    model = Model(options, watch)
    for number, layer in enumerate(layers):
        model.layer = number
        for thing in layer:
            try:
                model.apply(thing)
            except ModelError as error:
                error.layer = number
                error.entry = thing.name
                raise
    return model


Watch = t.Callable[[str, str], None]


def unwatched(kind: str, what: str) -> None:
    """For those who do not count what the images reach."""


class Model:
    """A tree under construction. ``watch`` is told which rules are used, for the generator's coverage."""

    def __init__(self, options: Options, watch: Watch = unwatched) -> None:
        self.options = options
        self.watch = watch
        self.layer = 0
        self.counts: Counter[str] = Counter()
        self.top = Directory(DIRECTORY, self.missing_parent())
        self.top.parent = self.top
        # 5: what AUFS's folder of links holds in a layer, by number of the layer and name
        self.aside: dict[tuple[int, bytes], Inode] = {}

    # -- 4: entries

    def apply(self, thing: Thing) -> None:
        """Apply one entry."""
        if thing.kind == SOCKET:
            raise ModelError("unknown type")
        if thing.uid > LAST_ID or thing.gid > LAST_ID:
            # 3: an overflowing number
            raise ModelError("id too large")
        parts = clean(thing.name)
        if not parts:
            # 4: an entry for the root itself
            if thing.kind != DIRECTORY:
                raise ModelError("root is no directory")
            self.top.meta = self.metadata(thing)
            self.watch("entry", "root")
            return
        if parts[:-1] == [b".wh..wh.plnk"] and thing.kind == FILE:
            # 5: kept for the hard links of this layer
            self.aside[self.layer, parts[-1]] = Inode(FILE, self.metadata(thing), thing.data)
            self.ignored("aufs_leftovers")
            return
        if self.whiteout(parts):
            return
        make = {
            DIRECTORY: self.make_directory,
            HARD_LINK: self.make_hard_link,
            CHAR: self.make_device,
            BLOCK: self.make_device,
        }
        make.get(thing.kind, self.make)(thing, parts)

    def make(self, thing: Thing, parts: list[bytes]) -> None:
        """4: a file, link or node over anything: the old one goes first, a directory with its content."""
        content: t.Any = None
        if thing.kind == FILE:
            content = thing.data
        elif thing.kind == SYMLINK:
            # the text is stored verbatim; what no file system can store is an error
            if not thing.link or len(thing.link) > LONGEST_LINK:
                raise ModelError("impossible link text")
            content = thing.link
        elif thing.kind in (CHAR, BLOCK):
            content = thing.device
        inode = Inode(thing.kind, self.metadata(thing), content)
        parent = self.make_parents(parts)
        self.watch_over(parent, parts[-1], thing.kind)
        self.put(parent, parts[-1], inode)

    def make_directory(self, thing: Thing, parts: list[bytes]) -> None:
        """4: over a directory: kept, metadata replaced; over anything else: in its place."""
        meta = self.metadata(thing)
        parent, name = self.make_parents(parts), parts[-1]
        self.watch_over(parent, name, thing.kind)
        slot = parent.children.get(name)
        if slot is not None and slot.inode.kind == SYMLINK:
            link = slot
            slot = self.behind(parent, name) if self.options.keep_dirlinks else None
            if slot is not None:
                # 4, keep_dirlinks: the entry speaks of the directory behind the link; 5: this layer brings both
                self.watch("keep_dirlinks", "kept")
                link.layer = self.layer
                self.touch(parent)
        if slot is not None and isinstance(slot.inode, Directory):
            slot.inode.meta = meta
            slot.layer = self.layer
            self.touch(slot.inode.parent)
        else:
            self.new_directory(parent, name, meta)

    def make_hard_link(self, thing: Thing, parts: list[bytes]) -> None:
        """4: the target's parent is resolved, the target not followed; the entry's metadata counts for nothing."""
        parent, name = self.make_parents(parts), parts[-1]
        target = [part for part in thing.link.split(b"/") if part not in (b"", b".")]
        if not target or target[-1] == b"..":
            raise ModelError("hard link to a directory")
        aside = self.aside.get((self.layer, target[-1])) if target[:-1] == [b".wh..wh.plnk"] else None
        if aside is not None:
            self.watch("hard link to", "file kept aside")
            self.put(parent, name, aside)
            return
        folder = self.resolve(target[:-1])
        slot = folder.children.get(target[-1]) if folder is not None else None
        if folder is None or slot is None:
            raise ModelError("hard link to nothing")
        if isinstance(slot.inode, Directory):
            raise ModelError("hard link to a directory")
        if folder is parent and target[-1] == name:
            raise ModelError("hard link to itself")
        old = parent.children.get(name)
        if old is not None and is_below(folder, old.inode):
            # the old one goes first, and the target with it
            raise ModelError("hard link into what it replaces")
        self.watch("hard link to", slot.inode.kind)
        self.watch_over(parent, name, HARD_LINK)
        self.put(parent, name, slot.inode)

    def make_device(self, thing: Thing, parts: list[bytes]) -> None:
        """4, devices; 6: without owners a device would be the caller's, so it is skipped."""
        choice = self.options.devices
        if choice == "fail":
            raise ModelError("device")
        safe = thing.kind == CHAR and thing.device in SAFE_DEVICES
        if choice == "create" or (choice == "safe" and safe):
            self.make(thing, parts)
            self.counts["devices_created"] += 1
            return
        self.counts["devices_skipped"] += 1
        # a skipped device still hides what is at its path
        parent = self.resolve(parts[:-1])
        if parent is not None:
            self.watch_over(parent, parts[-1], "skipped device")
            parent.children.pop(parts[-1], None)

    # -- 4: paths

    def resolve(self, parts: t.Sequence[bytes], create: bool = False) -> Directory | None:
        """4: the directory that these components lead to, as if chrooted; with ``create`` always one.

        Missing ones are made, and other non-directories replaced, also where a link leads through them.
        """
        here = self.top
        todo = list(parts)
        links = 0
        while todo:
            name = todo.pop(0)
            if name in (b"", b"."):
                continue
            if name == b"..":
                self.watch("path", "above the root" if here is self.top else "..")
                here = here.parent
                continue
            if len(name) > LONGEST_NAME:
                raise ModelError("name too long")
            slot = here.children.get(name)
            if slot is not None and isinstance(slot.inode, Directory):
                here = slot.inode
            elif slot is not None and slot.inode.kind == SYMLINK:
                links += 1
                if links > MOST_LINKS:
                    raise ModelError("loop of links")
                text: bytes = slot.inode.content
                self.watch_link(text, links)
                todo = text.split(b"/") + todo
                if text.startswith(b"/"):
                    here = self.top
            elif not create:
                return None
            elif name.startswith(b".wh."):
                # 5: no marker lands in the tree, also not as a directory that a link names
                raise ModelError("through a whiteout")
            else:
                what = "nothing" if slot is None else slot.inode.kind
                self.watch("parent made", what + (" behind a link" if links else ""))
                here = self.new_directory(here, name, self.missing_parent())
        return here

    def make_parents(self, parts: list[bytes]) -> Directory:
        """4: the directory that an entry belongs into."""
        parent = self.resolve(parts[:-1], create=True)
        assert parent is not None
        return parent

    def behind(self, parent: Directory, name: bytes) -> Slot | None:
        """The directory behind a link, as its own parent names it; ``None`` where it leads to none."""
        try:
            found = self.resolve([*path_of(parent), name])
        except ModelError:
            return None
        if found is None:
            return None
        if found is self.top:
            return Slot(found, self.layer)
        return found.parent.children[name_of(found)]

    def new_directory(self, parent: Directory, name: bytes, meta: Meta) -> Directory:
        """An empty directory in the place of whatever was there."""
        made = Directory(DIRECTORY, meta)
        made.parent = parent
        self.put(parent, name, made)
        return made

    def put(self, parent: Directory, name: bytes, inode: Inode) -> None:
        """Put a thing into a directory, in the place of whatever was there."""
        parent.children[name] = Slot(inode, self.layer)
        self.touch(parent)

    def touch(self, directory: Directory) -> None:
        """5: this layer brings something in this directory, and so in all above."""
        directory.layer = self.layer
        while directory is not self.top:
            directory = directory.parent
            directory.layer = self.layer

    # -- 5: whiteouts

    def whiteout(self, parts: list[bytes]) -> bool:
        """5: whether this is a whiteout, of whatever type its entry is; if so, it is done."""
        for part in parts[:-1]:
            if is_leftover(part):
                return self.ignored("aufs_leftovers")
            if part.startswith(b".wh."):
                raise ModelError("below a whiteout")
        last = parts[-1]
        if not last.startswith(b".wh."):
            return False
        if is_leftover(last):
            return self.ignored("aufs_leftovers")
        if last == b".wh.":
            raise ModelError("whiteout of an empty name")
        if last == b".wh...":
            # never anything above
            return self.ignored("whiteouts_of_parent")
        # the parent is resolved inside the root, what is removed is not followed
        directory = self.resolve(parts[:-1])
        if directory is None:
            self.watch("whiteout", "in nothing")
            return self.ignored("whiteouts_of_nothing")
        if last == b".wh..wh..opq":
            self.watch("opaque", self.watched_state(directory))
            self.empty(directory)
        elif last == b".wh..":
            if directory is self.top:
                return self.ignored("whiteouts_of_root")
            self.watch("whiteout of .", self.watched_state(directory))
            self.hide(directory.parent, name_of(directory))
        else:
            self.hide_name(directory, last[len(b".wh.") :])
        return True

    def hide_name(self, directory: Directory, name: bytes) -> None:
        """5: a plain whiteout."""
        slot = directory.children.get(name)
        if slot is None:
            self.watch("whiteout", "of nothing")
            self.ignored("whiteouts_of_nothing")
            return
        whose = "own" if slot.layer == self.layer else "lower"
        state = slot.inode.kind
        if isinstance(slot.inode, Directory):
            state += ", " + self.watched_state(slot.inode)
        self.watch("whiteout", f"of {whose} {state}")
        self.hide(directory, name)

    def hide(self, directory: Directory, name: bytes) -> None:
        """5: take away what lower layers have at this name; what this layer brought there stays.

        A directory that holds things of this layer stays for them, with the layer's own metadata or else
        the defaults of a missing parent. It stays as well where a skipped device took the last of them away, since
        it would be there if the whiteout had come first.
        """
        slot = directory.children[name]
        inside = slot.inode
        if isinstance(inside, Directory):
            self.empty(inside)
            if inside.layer == self.layer and slot.layer != self.layer:
                inside.meta = self.missing_parent()
                slot.layer = self.layer
        if slot.layer != self.layer:
            del directory.children[name]

    def empty(self, directory: Directory) -> None:
        """5: take away all that lower layers put into a directory, at every depth."""
        for name in list(directory.children):
            self.hide(directory, name)

    def ignored(self, kind: str) -> bool:
        """5: ignored and counted."""
        self.counts[kind] += 1
        self.watch("ignored", kind)
        return True

    # -- 4, 6: metadata

    def missing_parent(self) -> Meta:
        """4: 0755, owned by the mapped root, from the epoch."""
        return Meta(0o755, *self.owner(0, 0), 0)

    def metadata(self, thing: Thing) -> Meta:
        """4, 6: what an entry's metadata becomes on this host."""
        uid, gid = self.owner(thing.uid, thing.gid)
        mode = thing.mode & 0o7777
        if not self.options.preserve and mode & 0o6000:
            self.counts["setid_bits_dropped"] += 1
            mode &= ~0o6000
        xattrs = {}
        for name, value in thing.xattrs:
            kept = self.xattr(thing.kind, name, value)
            if kept is not None:
                xattrs[name] = kept
        return Meta(mode, uid, gid, thing.mtime, tuple(sorted(xattrs.items())))

    def owner(self, uid: int, gid: int) -> tuple[int, int]:
        """6: the numbers in the archive, through the maps where there are any."""
        if not self.options.preserve:
            return self.options.caller
        return mapped(uid, self.options.uid_map), mapped(gid, self.options.gid_map)

    def xattr(self, kind: str, name: bytes, value: bytes) -> bytes | None:
        """6: the value to write; ``None`` for what is counted and not written."""
        if name == CAPABILITY:
            value = self.capability(value)
            if not self.options.preserve:
                self.counts["capabilities_dropped"] += 1
                return None
            return value
        named = name in self.options.xattrs
        user = name.startswith(b"user.")
        if not named and (not user or name.startswith(b"user.overlay.")):
            self.counts["xattrs_filtered"] += 1
            return None
        if user and kind not in (FILE, DIRECTORY):
            # the kernel forbids it
            self.counts["user_xattrs_forbidden"] += 1
            return None
        return value

    def capability(self, value: bytes) -> bytes:
        """6: version 2 without a map; with one version 3, rootid the host's id of the container's."""
        version = value[3:4]
        if (version, len(value)) not in ((b"\x02", 20), (b"\x03", 24)):
            raise ModelError("impossible capability")
        flags_and_sets = value[:3], value[4:20]
        if not self.options.uid_map:
            return b"\x02".join(flags_and_sets)
        rootid = struct.unpack("<I", value[20:])[0] if version == b"\x03" else 0
        host = mapped(rootid, self.options.uid_map)
        return b"\x03".join(flags_and_sets) + struct.pack("<I", host)

    # -- the outcome

    def tree(self) -> Tree:
        """Every path with all that can be compared; the root is the empty path."""
        found: Tree = {}
        inodes: dict[bytes, int] = {}

        def visit(path: bytes, inode: Inode) -> None:
            meta = inode.meta
            mode = 0o777 if inode.kind == SYMLINK else meta.mode
            found[path] = Record(inode.kind, mode, meta.uid, meta.gid, meta.mtime, meta.xattrs, inode.content, path)
            if not isinstance(inode, Directory):
                inodes[path] = id(inode)
                return
            for name, slot in inode.children.items():
                visit(path + b"/" + name if path else name, slot.inode)

        visit(b"", self.top)
        groups: dict[int, bytes] = {}
        for path in sorted(inodes):
            found[path] = found[path]._replace(group=groups.setdefault(inodes[path], path))
        return found

    # -- what the generator's coverage is told

    def watch_over(self, parent: Directory, name: bytes, kind: str) -> None:
        slot = parent.children.get(name)
        if slot is None:
            self.watch("new over old", f"{kind} over nothing")
            return
        whose = "own" if slot.layer == self.layer else "lower"
        old = slot.inode.kind
        if isinstance(slot.inode, Directory) and slot.inode.children:
            old = "full directory"
        self.watch("new over old", f"{kind} over {whose} {old}")

    def watch_link(self, text: bytes, links: int) -> None:
        shape = "absolute" if text.startswith(b"/") else "relative"
        if b".." in text.split(b"/"):
            shape += " with .."
        self.watch("link followed", shape + (", then another" if links > 1 else ""))

    def watched_state(self, directory: Directory) -> str:
        """Of which layers the things in a directory are: their order in the layer shows in this."""
        layers = set()
        todo = [directory]
        while todo:
            for slot in todo.pop().children.values():
                layers.add("own" if slot.layer == self.layer else "lower")
                if isinstance(slot.inode, Directory):
                    todo.append(slot.inode)
        return "holding " + (" and ".join(sorted(layers)) or "nothing")


def clean(name: bytes) -> list[bytes]:
    """4: the components of an entry's name; none for the root."""
    if not name:
        raise ModelError("empty name")
    if b"\0" in name:
        raise ModelError("NUL in a name")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ModelError(".. in a name")
    if any(len(part) > LONGEST_NAME for part in parts):
        raise ModelError("name too long")
    return parts


def is_leftover(name: bytes) -> bool:
    """5: AUFS's own names, without the opaque mark."""
    return name.startswith(b".wh..wh.") and name != b".wh..wh..opq"


def mapped(number: int, ranges: tuple[Range, ...]) -> int:
    """6: the host's id; outside every range is an error, without ranges all stay as they are."""
    for container, host, count in ranges:
        if container <= number < container + count:
            return host + number - container
    if ranges:
        raise ModelError("id outside every range")
    return number


def is_below(directory: Directory, inode: Inode) -> bool:
    """Whether a directory is another one or lies in it."""
    while directory is not inode:
        if directory is directory.parent:
            return False
        directory = directory.parent
    return True


def name_of(directory: Directory) -> bytes:
    """The name of a directory that is not the root."""
    for name, slot in directory.parent.children.items():
        if slot.inode is directory:
            return name
    raise AssertionError("a directory that is not in its parent")


def path_of(directory: Directory) -> list[bytes]:
    """The components of a directory's path."""
    parts: list[bytes] = []
    while directory is not directory.parent:
        parts.insert(0, name_of(directory))
        directory = directory.parent
    return parts
