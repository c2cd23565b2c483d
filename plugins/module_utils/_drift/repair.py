# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put back what is missing or changed in a tree, from verified layers (docs/behaviour.md, section 17).

New objects are made in a private folder at the top of the tree, and moved to their names when the layers are verified. So each
name has either what was there or what the image has. What is not in a finding keeps its inode and its times.
"""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from .._errors import EntryError, RootfsError, os_advice, os_phrase, show
from .._fs.beneath import Beneath
from .._fs.descriptors import opened
from .._fs.directories import DIRECTORY
from .._fs.removal import try_remove_tree
from .._fs.syscalls import syncfs
from .._fs.xattrs import list_xattrs
from .._layer.entry import FILE, Entry
from .._layer.tar_entries import TarReader
from .._rootfs import journal as events
from .._rootfs.apply import write_content
from .._rootfs.attributes import Attributes, CreationDefaults, Policy, Writer
from .content import Layers
from .findings import Finding
from .exclusions import Rules
from .proven import Proven
from .recorded import Recorded

_STAGING = b".oci_rootfs-repair"
_TEMPORARY = b"new"
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# What can be put back on the object that is there; anything else needs a new one.
_IN_PLACE = frozenset(["mode", "owner", "capabilities", "acl", "xattrs"])
_XATTRS = frozenset(["capabilities", "acl", "xattrs"])
# New files have none of the image's attributes yet.
_DEFAULTS = CreationDefaults(-1, -1, False)


class Plan:
    """What has to be put back: ``anew`` has paths and objects to make, ``in_place`` those to give their attributes.

    ``needed`` has the objects whose entries in the layers are read, by the numbers of these entries. ``equal`` has the times of files
    whose content was compared, and is the image's.
    """

    def __init__(self, recorded: Recorded, rules: Rules, findings: t.Iterable[Finding], equal: Proven) -> None:
        self.anew: dict[str, int] = {}
        self.in_place: dict[str, int] = {}
        self.needed: dict[int, int] = {}
        self.equal = equal
        self._recorded = recorded
        self._rules = rules
        whole: set[int] = set()
        for finding in findings:
            number = finding.number
            if finding.differs and _IN_PLACE.issuperset(finding.differs):
                self.in_place["" if finding.path == "/" else finding.path] = number
                if _XATTRS.intersection(finding.differs):
                    self._need(number)
            else:
                whole.update(self._below(number))
        self._name(whole)

    def _below(self, number: int) -> t.Iterator[int]:
        """Yield an object and all below it."""
        pending = [number]
        while pending:
            above = pending.pop()
            yield above
            pending.extend(self._recorded.folders.get(above, {}).values())

    def _name(self, whole: set[int]) -> None:
        """Find all names of the objects that are made anew."""
        recorded = self._recorded
        pending = [("", recorded.top)]
        while pending:
            folder, above = pending.pop()
            omitted = self._rules.names_in(folder)
            for name, number in recorded.folders[above].items():
                path = f"{folder}/{name}"
                if name in omitted or (self._rules.has_patterns and self._rules.excludes(path)):
                    continue
                if number in whole:
                    _require_name(name)
                    self.anew[path] = number
                    self.in_place.pop(path, None)
                    self._need(number)
                if number in recorded.folders:
                    pending.append((path, number))

    def _need(self, number: int) -> None:
        recorded = self._recorded
        source = recorded.sources[number]
        if source and (recorded.kinds[number] == events.FILE or number in recorded.xattrs):
            self.needed[source] = number


def _require_name(name: str) -> None:
    if name in ("", ".", "..") or "/" in name:
        raise RootfsError(f"what is recorded of the tree is damaged: {show(name)} is not a name; set recreate: true")


class Repair:
    """Repairs one tree, whose root is open as ``top``. Raises ``OciError``, ``OSError``."""

    def __init__(self, top: int, recorded: Recorded, policy: Policy, plan: Plan) -> None:
        self._top = top
        self._recorded = recorded
        self._policy = policy
        self._plan = plan
        self._anew = frozenset(plan.anew.values())
        self._writer = Writer(policy, _DEFAULTS)
        self._beneath = Beneath(top)
        self._staging = -1
        # what the entries of layers give objects with xattrs
        self._xattrs: dict[int, dict[str, bytes]] = {}
        self._folders: dict[str, int] = {}
        self._made: dict[str, int] = {}
        self._sound = set(self._anew)

    def run(self, layers: Layers) -> set[int]:
        """Read the layers, then put everything back; return the files of which the content is the image's."""
        path = ""
        umask = os.umask(0)
        try:
            with self._opened_staging():
                self._read(layers)
                for path, number in sorted(self._plan.anew.items()):
                    self._restore(path, number)
                for path, number in sorted(self._plan.in_place.items()):
                    self._correct(path, number)
            self._finish()
            syncfs(self._top)
            return self._sound
        except EntryError as error:
            raise RootfsError(f"{show(path or '/')} cannot be put back: {error.what}; {error.advice}") from error
        except OSError as error:
            advice = os_advice(error) or "stop what uses the tree and run again, or set repair: recreate"
            raise RootfsError(f"{show(path or '/')} cannot be put back: {os_phrase(error)}; {advice}") from error
        finally:
            os.umask(umask)

    # -- from the layers

    @contextlib.contextmanager
    def _opened_staging(self) -> t.Iterator[None]:
        if os.fsdecode(_STAGING) in self._recorded.folders[self._recorded.top]:
            raise RootfsError(f"the image itself has {show(_STAGING)}, which a repair needs; set repair: recreate")
        times = os.fstat(self._top)
        self._remove_staging()
        os.mkdir(_STAGING, 0o700, dir_fd=self._top)
        try:
            with opened(os.open(_STAGING, DIRECTORY, dir_fd=self._top)) as staging:
                self._staging = staging
                yield
        finally:
            self._remove_staging()
            os.utime(self._top, ns=(times.st_atime_ns, times.st_mtime_ns))

    def _remove_staging(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            remains = try_remove_tree(self._top, _STAGING)
            if remains:
                raise RootfsError(f"{show(_STAGING)} at the top of the tree cannot be removed; remove it and run again")

    def _read(self, layers: Layers) -> None:
        """Make the files that are needed, and keep the xattrs of other objects."""
        starts = self._recorded.layers
        by_layer: dict[int, dict[int, int]] = {}
        for source, number in self._plan.needed.items():
            by_layer.setdefault(self._recorded.layer_of(number), {})[source] = number
        if -1 in by_layer:
            raise RootfsError("what is recorded of the tree is damaged: a file comes from no layer; set recreate: true")
        for place, needed in sorted(by_layer.items(), reverse=True):
            with layers.reading(place) as reader:
                for source, entry in enumerate(reader, starts[place] + 1):
                    number = needed.pop(source, -1)
                    if number >= 0:
                        self._take(number, entry, reader)
            if needed:
                raise RootfsError("the layers do not have the files that are recorded; set recreate: true")

    def _take(self, number: int, entry: Entry, reader: TarReader) -> None:
        attributes = self._policy.for_entry(entry)
        self._xattrs[number] = attributes.xattrs
        if self._recorded.kinds[number] != events.FILE or number not in self._anew:
            return
        if entry.type != FILE or entry.size != self._recorded.sizes[number]:
            raise RootfsError("the layers do not have the files that are recorded; set recreate: true")
        with opened(os.open(b"%d" % number, _NEW_FILE, 0o600, dir_fd=self._staging)) as fd:
            write_content(fd, entry, reader)
            self._writer.to_fd(fd, attributes)

    # -- onto the tree

    def _attributes(self, number: int) -> Attributes:
        mode, uid, gid = self._recorded.attributes(number)
        return Attributes(stat.S_IMODE(mode), uid, gid, self._recorded.times[number], self._xattrs.get(number, {}))

    def _open_folder(self, path: str) -> tuple[int, bytes]:
        """Open the directory of a path; return it and the name."""
        folder, _slash, name = path.rpartition("/")
        return self._beneath.directory(folder), os.fsencode(name)

    def _restore(self, path: str, number: int) -> None:
        """Make an object, and move it to its name."""
        parent, name = self._open_folder(path)
        with opened(parent):
            self._note_folder(path.rpartition("/")[0])
            is_there = _is_directory(parent, name)
            if self._recorded.kinds[number] == events.MAKE_DIRECTORY:
                if not is_there:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=parent)
                    os.mkdir(name, 0o700, dir_fd=parent)
                self._made[path] = number
                return
            if is_there and try_remove_tree(parent, name):
                raise RootfsError(f"{show(path)} cannot be put back: what is there cannot be removed")
            self._make(number)
            os.rename(_TEMPORARY, name, src_dir_fd=self._staging, dst_dir_fd=parent)

    def _make(self, number: int) -> None:
        """Make an object, or another name of it, at the temporary name."""
        kept = b"%d" % number
        recorded = self._recorded
        kind = recorded.kinds[number]
        try:
            os.link(kept, _TEMPORARY, src_dir_fd=self._staging, dst_dir_fd=self._staging, follow_symlinks=False)
            return
        except FileNotFoundError:
            if kind == events.FILE:
                raise
        attributes = self._attributes(number)
        if kind == events.SYMLINK:
            os.symlink(os.fsencode(recorded.texts[number]), kept, dir_fd=self._staging)
            self._writer.to_symlink(self._staging, kept, attributes)
        else:
            mode = recorded.attributes(number)[0]
            os.mknod(kept, stat.S_IFMT(mode) | 0o600, recorded.sizes[number], dir_fd=self._staging)
            self._writer.to_node(self._staging, kept, attributes)
        os.link(kept, _TEMPORARY, src_dir_fd=self._staging, dst_dir_fd=self._staging, follow_symlinks=False)

    def _correct(self, path: str, number: int) -> None:
        """Give an object that is there its attributes."""
        attributes = self._attributes(number)
        kind = self._recorded.kinds[number]
        if kind == events.MAKE_DIRECTORY:
            with opened(self._beneath.directory(path)) as fd:
                self._to_fd(fd, attributes)
            return
        parent, name = self._open_folder(path)
        with opened(parent):
            if kind == events.FILE:
                with opened(self._beneath.file(parent, os.fsdecode(name))) as fd:
                    status = os.fstat(fd)
                    if self._plan.equal.get(number) == (status.st_mtime_ns, status.st_ctime_ns):
                        self._sound.add(number)
                    self._to_fd(fd, attributes)
            elif kind == events.SYMLINK:
                self._writer.to_symlink(parent, name, attributes)
            else:
                self._writer.to_node(parent, name, attributes)

    def _to_fd(self, fd: int, attributes: Attributes) -> None:
        for name in list_xattrs(fd):
            if self._policy.keeps(name) and name not in attributes.xattrs:
                os.removexattr(fd, name)
        self._writer.to_fd(fd, attributes)

    def _note_folder(self, folder: str) -> None:
        """Note that names in a directory change, and with them its time."""
        if folder in self._folders:
            return
        number = self._recorded.top
        for part in folder.split("/")[1:]:
            number = self._recorded.folders[number][part]
        self._folders[folder] = number

    def _finish(self) -> None:
        """Give directories that were made their attributes, and those in which names changed their times; children first."""
        for path, number in sorted(self._made.items(), reverse=True):
            with opened(self._beneath.directory(path)) as fd:
                self._to_fd(fd, self._attributes(number))
        for path, number in self._folders.items():
            time = self._recorded.times[number]
            with opened(self._beneath.directory(path)) as fd:
                os.utime(fd, ns=(time, time))


def _is_directory(parent: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
