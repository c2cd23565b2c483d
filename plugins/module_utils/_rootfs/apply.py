# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Apply the entries of layers to the root (docs/behaviour.md, sections 4 and 5)."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import typing as t

from .._errors import EntryError, LayerError, RootfsError, os_advice, os_phrase, show
from .._fs.descriptors import opened
from .._layer.budget import Budget
from .._layer.entry import BLOCK_DEVICE, CHARACTER_DEVICE, DIRECTORY, FIFO, FILE, HARD_LINK, SYMLINK, Entry
from .._layer.tar_entries import TarReader
from .._unpack_options import UnpackOptions
from .aside import ASIDE, Aside
from .attributes import Attributes, Policy, Writer, first_mode
from .candidates import Candidates
from . import journal as events
from .devices import SAFE_CHARACTER_DEVICES
from .root import WHITEOUT, Directory, Names, Root

_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."
_SET_IDS = stat.S_ISUID | stat.S_ISGID
# Errors of file systems without hard links, or with few links to one file.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)

# How the journal calls what is made by mknod.
_EVENTS = {stat.S_IFIFO: events.FIFO, stat.S_IFCHR: events.CHARACTER_DEVICE, stat.S_IFBLK: events.BLOCK_DEVICE}

# Last components that are not names.
_NO_NAMES = (b"", b".", b"..")
_LONGEST = 255
_TOO_LONG = f"its name has a component of over {_LONGEST} bytes"

# Directories keep their xattrs in memory until the end; each takes its size and what Python adds to it.
_MOST_HELD = 64 * 1024 * 1024
_XATTR_COST = 200


class Unstackable(Exception):
    """The image holds what an overlay would take for its own."""


class Applier:
    """Applies layers, in order, to a root. Raises ``LayerError``, which names the layer and the entry.

    In a ``stacked`` root, a layer of an overlay, it also raises ``Unstackable``.
    """

    def __init__(
        self, root: Root, policy: Policy, budget: Budget, options: UnpackOptions, stacked: bool = False
    ) -> None:
        self._stacked = stacked
        self._root = root
        self._policy = policy
        defaults = root.probe_defaults()
        self._writer = Writer(policy, defaults)
        self._journal = root.journal
        if not policy.preserve:
            self._journal.owner = (defaults.uid, defaults.gid)
        self._report = policy.report
        self._budget = budget
        self._devices = options.devices
        self._keep_dirlinks = options.keep_dirlinks
        self._held = 0
        self._aside = Aside(root.fd(root.top))
        # what may belong into the inventory of the finished tree
        self.candidates = Candidates()

    def apply_layer(self, chunks: t.Iterable[bytes], digest: str) -> None:
        """Apply one layer, whose tar archive comes in ``chunks``; read them to their end."""
        root = self._root
        report = self._report
        reader = TarReader(chunks, digest, report, self._budget)
        root.begin_layer()
        journal = self._journal
        journal.begin_layer(report.entries)
        entry: Entry | None = None
        entries = iter(reader)
        try:
            with contextlib.closing(self._aside):
                while True:
                    # errors of the reader name their position themselves
                    entry = None
                    entry = next(entries, None)
                    if entry is None:
                        root.end_layer()
                        return
                    report.entries = journal.entry = report.entries + 1
                    self._apply(entry, reader)
        except EntryError as error:
            name = entry.name if entry is not None else None
            raise LayerError(error.what, digest, name, error.advice) from error
        except OSError as error:
            if entry is None:
                raise
            raise LayerError(f"cannot be written: {os_phrase(error)}", digest, entry.name, os_advice(error)) from error

    def finish(self) -> None:
        """Give all directories their owner, mode, xattrs and times, children first.

        Raises ``RootfsError``.
        """
        root = self._root
        writer = self._writer
        for directory in root.directories():
            # the top, and directories of lower layers, have existed before
            is_new = directory.made_in >= 0
            try:
                fd = root.fd(directory)
                if directory.clear_for(fd):
                    (writer.to_new_directory if is_new else writer.to_fd)(fd, directory.attributes)
                    self._note_directory(directory, fd)
            except (EntryError, OSError) as error:
                raise _directory_error(directory, error) from error

    def _apply(self, entry: Entry, reader: TarReader) -> None:
        above, name = split_name(entry.name)
        if not name:
            self._apply_to_top(entry)
            return
        if WHITEOUT in entry.name and (
            self._keep_aside(entry, above, name, reader) or self._apply_whiteout(above, name)
        ):
            return
        kind = entry.type
        if kind == FILE:
            self._make_file(entry, above, name, reader)
        elif kind == DIRECTORY:
            self._make_directory(entry, above, name)
        elif kind == SYMLINK:
            self._make_symlink(entry, above, name)
        elif kind == HARD_LINK:
            self._make_hard_link(entry, above, name)
        elif kind == FIFO:
            self._make_node(entry, above, name, stat.S_IFIFO, 0)
        else:
            self._make_device(entry, above, name)

    def _apply_to_top(self, entry: Entry) -> None:
        if entry.type != DIRECTORY:
            raise EntryError("the root itself must be a directory")
        self._root.top.attributes = self._of_directory(entry)
        self._root.top.source = self._journal.entry

    def _of_directory(self, entry: Entry) -> Attributes:
        attributes = self._policy.for_entry(entry)
        if not attributes.xattrs:
            return attributes
        size = sum(len(name) + len(value) + _XATTR_COST for name, value in attributes.xattrs.items())
        self._root.remember(size)
        self._held += size
        if self._held > _MOST_HELD:
            raise EntryError(
                f"the extended attributes of the image's directories take more than {_MOST_HELD} bytes, a fixed limit"
            )
        return attributes

    def _keep_aside(self, entry: Entry, above: Names, name: bytes, reader: TarReader) -> bool:
        """Keep a file of AUFS's links for the hard links of this layer; return false for anything else."""
        if entry.type != FILE or list(above) != [ASIDE]:
            return False
        attributes = self._policy.for_entry(entry)
        with opened(self._aside.create(name, first_mode(attributes))) as fd:
            write_content(fd, entry, reader)
            self._writer.to_new_file(fd, attributes)
            self._note_file(events.ASIDE_PLACE, name, entry, attributes, fd)
        self._report.count("aufs_leftovers")
        if attributes.mode & _SET_IDS:
            self._report.count("setid_files")
        return True

    # -- whiteouts

    def _apply_whiteout(self, above: Names, last: bytes) -> bool:
        """Apply an entry if it is a whiteout; return false otherwise."""
        for part in above:
            if part.startswith(_AUFS) and part != _OPAQUE:
                self._report.count("aufs_leftovers")
                return True
            if part.startswith(WHITEOUT):
                raise EntryError(f"it lies below the whiteout {show(part)}")
        if not last.startswith(WHITEOUT):
            return False
        if last == _OPAQUE:
            self._report.whiteouts += 1
            directory = self._root.find(above)
            if directory is None or not self._root.white_out_all(directory):
                self._report.count("whiteouts_of_nothing")
            return True
        if last.startswith(_AUFS):
            self._report.count("aufs_leftovers")
            return True
        self._white_out(above, last[len(WHITEOUT) :])
        return True

    def _white_out(self, above: Names, name: bytes) -> None:
        if not name:
            raise EntryError("the whiteout names nothing")
        if name == b"..":
            self._report.count("whiteouts_of_parent")
            return
        self._report.whiteouts += 1
        parent = self._root.find(above)
        if name == b"." and parent is not None:
            if parent.parent is None:
                self._report.count("whiteouts_of_root")
                return
            name = parent.name
            parent = parent.parent
        if parent is None or not self._root.white_out(parent, name):
            self._report.count("whiteouts_of_nothing")

    # -- entries

    def _make_file(self, entry: Entry, above: Names, name: bytes, reader: TarReader) -> None:
        root = self._root
        attributes = self._policy.for_entry(entry)
        parent = root.make_parent(above)
        fd = root.create_file(parent, name, first_mode(attributes))
        # not in a with statement, which costs 1 % of the time for each small file
        try:
            written = write_content(fd, entry, reader)
            self._writer.to_new_file(fd, attributes)
            if attributes.xattrs:
                self._note_file(parent.number, name, entry, attributes, fd)
            else:
                self._journal.note(events.FILE, parent.number, name, attributes, entry.size)
        finally:
            os.close(fd)
        root.add(parent, name)
        self.candidates.note(parent, name, entry)
        report = self._report
        report.files += 1
        report.bytes += written
        if attributes.mode & _SET_IDS:
            report.count("setid_files")

    def _make_directory(self, entry: Entry, above: Names, name: bytes) -> None:
        root = self._root
        attributes = self._of_directory(entry)
        parent = root.make_parent(above)
        known = parent.children.get(name)
        if known is None and self._keep_dirlinks:
            known = root.follow_directory_link(parent, name)
            if known is not None and known.parent is not None:
                # whiteouts of this layer must leave alone both the directory and the link
                root.add(known.parent, known.name)
        if known is not None:
            known.attributes = attributes
        else:
            try:
                known = root.make_directory(parent, name, attributes)
            except FileExistsError:
                root.remove(parent, name)
                known = root.make_directory(parent, name, attributes)
        known.source = self._journal.entry
        root.add(parent, name)
        self.candidates.note(known.parent or parent, known.name, entry)

    def _make_symlink(self, entry: Entry, above: Names, name: bytes) -> None:
        root = self._root
        if not entry.link:
            raise EntryError("the target of the symbolic link is empty")
        attributes = self._policy.for_entry(entry)
        parent = root.make_parent(above)
        try:
            os.symlink(entry.link, name, dir_fd=root.fd(parent))
        except FileExistsError:
            root.remove(parent, name)
            os.symlink(entry.link, name, dir_fd=root.fd(parent))
        self._writer.to_symlink(root.fd(parent), name, attributes)
        self._note_node(events.SYMLINK, parent, name, attributes, entry.link)
        root.add(parent, name)
        self.candidates.note(parent, name, entry)

    def _make_hard_link(self, entry: Entry, above: Names, name: bytes) -> None:
        root = self._root
        target = [part for part in entry.link.split(b"/") if part not in (b"", b".")]
        if not target or target[-1] == b"..":
            raise EntryError(f"it is a hard link to {show(entry.link)}, which is a directory")
        parent = root.make_parent(above)
        if target[:-1] == [ASIDE] and len(target[-1]) <= _LONGEST and self._aside.has(target[-1]):
            root.remove(parent, name)
            with _linkable():
                self._aside.link(target[-1], root.fd(parent), name)
            self._journal.link(events.ASIDE_PLACE, target[-1], parent.number, name)
            self._note_link(parent, name)
            return
        source = root.find(target[:-1])
        old = target[-1]
        if source is None or len(old) > _LONGEST or old == ASIDE:
            raise EntryError(f"it is a hard link to {show(entry.link)}, which does not exist")
        if source is parent and old == name:
            raise EntryError("it is a hard link to itself")
        if old in source.children:
            raise EntryError(f"it is a hard link to {show(entry.link)}, which is a directory")
        try:
            with _linkable():
                root.link_file(source, old, parent, name)
        except FileNotFoundError:
            raise EntryError(f"it is a hard link to {show(entry.link)}, which does not exist") from None
        self._journal.link(source.number, old, parent.number, name)
        self._note_link(parent, name)

    def _note_link(self, parent: Directory, name: bytes) -> None:
        self._root.add(parent, name)
        self.candidates.note_link(parent, name)

    def _make_device(self, entry: Entry, above: Names, name: bytes) -> None:
        choice = self._devices
        safe = entry.type == CHARACTER_DEVICE and entry.device in SAFE_CHARACTER_DEVICES
        if choice == "fail":
            raise EntryError("it is a device, and devices are set to fail", "set devices to safe, create or skip")
        if choice == "skip" or (choice == "safe" and not safe):
            self._report.count("devices_skipped")
            # a skipped device still replaces what lower layers have there
            parent = self._root.find(above)
            if parent is not None:
                self._root.remove(parent, name)
            return
        kind = stat.S_IFBLK if entry.type == BLOCK_DEVICE else stat.S_IFCHR
        try:
            number = os.makedev(*entry.device)
        except (OverflowError, ValueError):
            raise EntryError("its device number is too large") from None
        if self._stacked and number == 0 and kind == stat.S_IFCHR:
            # a whiteout
            raise Unstackable
        self._make_node(entry, above, name, kind, number)
        self._report.count("devices_created")

    def _make_node(self, entry: Entry, above: Names, name: bytes, kind: int, number: int) -> None:
        root = self._root
        attributes = self._policy.for_entry(entry)
        parent = root.make_parent(above)
        root.remove(parent, name)
        os.mknod(name, kind | 0o600, number, dir_fd=root.fd(parent))
        self._writer.to_node(root.fd(parent), name, attributes)
        self._note_node(_EVENTS[kind], parent, name, attributes, number)
        root.add(parent, name)
        self.candidates.note(parent, name, entry)

    # -- the journal

    def _note_file(self, place: int, name: bytes, entry: Entry, attributes: Attributes, fd: int) -> None:
        xattrs = attributes.xattrs
        if xattrs:
            attributes = events.as_found(os.fstat(fd), attributes)
        self._journal.note(events.FILE, place, name, attributes, entry.size)
        if xattrs:
            self._journal.xattrs(place, self._writer.stored(fd, xattrs))

    def _note_node(
        self, kind: int, parent: Directory, name: bytes, attributes: Attributes, detail: int | bytes
    ) -> None:
        """Note a symlink, whose ``detail`` is its text, or a node with its device number."""
        shown, size = (name, detail) if isinstance(detail, int) else (name + b"/" + detail, 0)
        xattrs = attributes.xattrs
        fd = self._root.fd(parent) if xattrs else -1
        if xattrs:
            attributes = events.as_found(os.stat(name, dir_fd=fd, follow_symlinks=False), attributes)
        self._journal.note(kind, parent.number, shown, attributes, size)
        if xattrs:
            self._journal.xattrs(parent.number, self._writer.stored(b"/proc/self/fd/%d/%b" % (fd, name), xattrs))

    def _note_directory(self, directory: Directory, fd: int) -> None:
        attributes = directory.attributes
        if not attributes.xattrs:
            self._journal.finish_directory(directory, attributes)
            return
        self._journal.finish_directory(directory, events.as_found(os.fstat(fd), attributes))
        self._journal.xattrs(directory.number, self._writer.stored(fd, attributes.xattrs))


def split_name(name: bytes) -> tuple[Names, bytes]:
    """Split an entry's name into the components above it and its own, which is empty for the root itself.

    Raises ``EntryError``.
    """
    above, _slash, last = name.rpartition(b"/")
    if not last:
        # most writers end a directory with a slash
        above, _slash, last = name.rstrip(b"/").rpartition(b"/")
    if last in _NO_NAMES:
        names = _components(name)
        return names[:-1], names[-1] if names else b""
    if len(last) > _LONGEST:
        raise EntryError(_TOO_LONG)
    return _components(above) if above else (), last


# most entries lie in the same directory as the one before; only one is cached, because a path may take a megabyte
@functools.lru_cache(maxsize=1)
def _components(path: bytes) -> Names:
    names = path.split(b"/")
    if b"" in names or b"." in names:
        names = [name for name in names if name and name != b"."]
    if b".." in names:
        raise EntryError("its name has a '..' component")
    if not path:
        raise EntryError("its name is empty")
    if len(path) > _LONGEST and max(map(len, names), default=0) > _LONGEST:
        raise EntryError(_TOO_LONG)
    return tuple(names)


def write_content(fd: int, entry: Entry, reader: TarReader) -> int:
    """Write a file's content, and return how many bytes that took."""
    if entry.regions is not None:
        return _write_sparse(fd, entry, reader)
    whole = reader.whole()
    # most files are small and need a single write
    for data in reader.data() if whole is None else (whole,):
        done = os.write(fd, data) if data else 0
        # a write may be short
        while done < len(data):
            done += os.write(fd, memoryview(data)[done:])
    return entry.size


def _write_sparse(fd: int, entry: Entry, reader: TarReader) -> int:
    """Write the regions of a sparse file, leave the holes, and return how many bytes were written."""
    os.ftruncate(fd, entry.size)
    regions = iter(entry.regions or ())
    offset = length = 0
    written = 0
    for data in reader.data():
        rest = memoryview(data)
        while rest:
            while not length:
                offset, length = next(regions)
            done = os.pwrite(fd, rest[:length], offset)
            offset += done
            length -= done
            written += done
            rest = rest[done:]
    return written


@contextlib.contextmanager
def _linkable() -> t.Iterator[None]:
    """Say that the file system, not the image, is why a hard link cannot be made. Raises ``EntryError``."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise EntryError(
            f"the file system of dest cannot make this hard link ({os_phrase(error)})",
            "choose a dest on another file system",
        ) from error


def _directory_error(directory: Directory, error: EntryError | OSError) -> RootfsError:
    parts = []
    above: Directory | None = directory
    while above is not None:
        parts.append(above.name)
        above = above.parent
    path = b"/".join(reversed(parts)) or b"/"
    if isinstance(error, OSError):
        what, advice = f"cannot be finished: {os_phrase(error)}", os_advice(error)
    else:
        what, advice = error.what, error.advice
    return RootfsError(f"the directory {show(path)} of the image: {what}" + (f"; {advice}" if advice else ""))
