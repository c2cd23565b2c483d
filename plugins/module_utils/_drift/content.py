# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare the contents of a live tree with the layers that its files came from (docs/behaviour.md, section 17).

The journal tells for each file the layer and the entry in it, so each layer is streamed once, and nothing is kept of it. What
was found counts only when the layer has been read to its end, and was verified.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import typing as t

from .._fs.beneath import ELSEWHERE, Beneath
from .._layer.entry import FILE, Entry
from .._layer.tar_entries import TarReader
from .compare import Compared, Place
from .findings import CHANGED, CONTENT, Finding
from .objects import Looks, type_of
from .proven import Times
from .recorded import Recorded

_PIECE = 1 << 20
# How many entries pass between looks at the clock.
_TICK = 256


class Layers(t.Protocol):
    """The layers of the image of a tree."""

    def reading(self, place: int) -> t.ContextManager[TarReader]:
        """Read a layer, the lowest is 0; the block has to read all entries, and is left without an error if it is verified."""


class _LateError(Exception):
    """The time is over."""


def compare_contents(top: int, compared: Compared, looks: Looks, layers: Layers, until: float) -> None:
    """Compare the contents of ``compared.files``, and add to ``compared.drift`` and ``compared.equal``.

    Stops at ``until``, by ``time.monotonic``. Raises ``OciError`` if a layer cannot be read, and ``OSError``.
    """
    drift, recorded = compared.drift, compared.recorded
    drift.level = CONTENT
    wanted = _by_layer(recorded, compared)
    known = {finding.path: place for place, finding in enumerate(drift.kinds[CHANGED].kept)}
    with contextlib.closing(_Check(top, until)) as check:
        for place in sorted(wanted, reverse=True):
            try:
                check.layer(layers, place, recorded.layers[place], wanted[place])
            except _LateError:
                drift.incomplete = drift.incomplete or "it took longer than verify_timeout"
                return
            for number, where in check.changed:
                rights = looks.gave_rights(number)
                kind = type_of(recorded.attributes(number)[0])
                finding = Finding(CHANGED, where.path, kind, number, (CONTENT,), gives_rights=rights)
                drift.add_difference(finding, known.get(where.path))
            for where in check.busy:
                drift.add_busy(where.path)
            for number in check.judged:
                drift.suspects.pop(number, None)
            compared.equal.update(check.equal)
            if check.lost:
                drift.not_verifiable = "the layers do not have the files that are recorded"


# The files of one layer: by the number of their entry, the object and the places where it is.
_Wanted = t.Dict[int, t.Tuple[int, t.List[Place]]]


def _by_layer(recorded: Recorded, compared: Compared) -> dict[int, _Wanted]:
    wanted: dict[int, _Wanted] = {}
    for number, first in compared.files.items():
        names = compared.linked.get(number)
        # names that are files of their own now may have another content
        places = list({inode: place for place, inode in names}.values()) if names else [first]
        layer = recorded.layer_of(number)
        if layer >= 0:
            wanted.setdefault(layer, {})[recorded.sources[number]] = (number, places)
    return wanted


class _Check:
    """Compares files with layers; what it found is of the last layer, ``lost`` counts what that lacks."""

    def __init__(self, top: int, until: float) -> None:
        self._beneath = Beneath(top)
        self._until = until
        self._folder = ""
        self._folder_fd = -1
        self.changed: list[tuple[int, Place]] = []
        self.busy: list[Place] = []
        self.judged: list[int] = []
        self.equal: dict[int, Times] = {}
        self.lost = 0

    def close(self) -> None:
        """Close the directory that was used last."""
        if self._folder_fd >= 0:
            os.close(self._folder_fd)
            self._folder_fd = -1

    def layer(self, layers: Layers, place: int, before: int, wanted: _Wanted) -> None:
        """Compare the files of one layer. Raises ``_LateError``, ``OciError``, ``OSError``."""
        self.changed, self.busy, self.judged, self.equal = [], [], [], {}
        self.lost = len(wanted)
        with layers.reading(place) as reader:
            for number, entry in enumerate(reader, before + 1):
                if not number % _TICK and time.monotonic() > self._until:
                    raise _LateError
                found = wanted.get(number)
                if found is not None and entry.type == FILE:
                    self.lost -= 1
                    self._entry(found[0], found[1], entry, reader)

    def _entry(self, number: int, places: list[Place], entry: Entry, reader: TarReader) -> None:
        files = [file for file in map(self._open, places) if file is not None]
        try:
            _feed(files, entry, reader)
            for file in files:
                if not file.is_settled():
                    self.busy.append(file.place)
                elif file.differs:
                    self.changed.append((number, file.place))
                elif len(places) == 1:
                    self.equal[number] = file.times
        finally:
            for file in files:
                os.close(file.fd)
        if len(files) == len(places):
            self.judged.append(number)

    def _open(self, place: Place) -> _File | None:
        try:
            if self._folder_fd < 0 or place.folder != self._folder:
                self.close()
                self._folder_fd = self._beneath.directory(place.folder)
                self._folder = place.folder
            return _File(place, self._beneath.file(self._folder_fd, place.name))
        except OSError as error:
            if error.errno not in ELSEWHERE:
                raise
            self.busy.append(place)
            return None


class _File:
    """A file that is compared piece by piece."""

    def __init__(self, place: Place, fd: int) -> None:
        self.place = place
        self.fd = fd
        self.differs = False
        self._before = os.fstat(fd)
        self._offset = 0

    def is_settled(self) -> bool:
        """Return whether it has not changed since it was opened."""
        now = os.fstat(self.fd)
        return (self._before.st_size, *self.times) == (now.st_size, now.st_mtime_ns, now.st_ctime_ns)

    @property
    def times(self) -> Times:
        """The times that it had when it was opened."""
        return self._before.st_mtime_ns, self._before.st_ctime_ns

    def compare(self, data: bytes | memoryview) -> None:
        """Compare the next piece."""
        length = len(data)
        if not self.differs:
            found = os.pread(self.fd, length, self._offset)
            while len(found) < length:
                more = os.pread(self.fd, length - len(found), self._offset + len(found))
                if not more:
                    break
                found += more
            self.differs = found != data
        self._offset += length

    def compare_hole(self, length: int) -> None:
        """Compare the next piece, which is a hole: zeros, of which those that take no room need not be read."""
        end = self._offset + length
        while not self.differs and self._offset < end:
            try:
                self._offset = min(end, os.lseek(self.fd, self._offset, os.SEEK_DATA))
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                break
            piece = min(_PIECE, end - self._offset)
            found = os.pread(self.fd, piece, self._offset)
            self.differs = len(found) != piece or found.count(0) != piece
            self._offset += piece
        self._offset = end


def _feed(files: list[_File], entry: Entry, reader: TarReader) -> None:
    """Compare files with the content of an entry."""
    for file in files:
        file.differs = os.fstat(file.fd).st_size != entry.size
    if entry.regions is not None:
        _feed_sparse(files, entry, reader)
        return
    whole = reader.whole()
    for data in reader.data() if whole is None else (whole,):
        for file in files:
            file.compare(data)


def _feed_sparse(files: list[_File], entry: Entry, reader: TarReader) -> None:
    regions = iter(entry.regions or ())
    position, left = 0, 0
    for data in reader.data():
        rest = memoryview(data)
        while rest:
            while not left:
                offset, left = next(regions)
                for file in files:
                    file.compare_hole(offset - position)
                position = offset
            piece = rest[:left]
            for file in files:
                file.compare(piece)
            position += len(piece)
            left -= len(piece)
            rest = rest[len(piece) :]
    for file in files:
        file.compare_hole(entry.size - position)
