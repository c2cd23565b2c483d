# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""An image in one of its forms. as one small protocol, and how its documents are bounded (docs/behaviour.md, section 1)."""

from __future__ import annotations

import contextlib
import typing as t

from .._errors import SourceError, show

if t.TYPE_CHECKING:
    from .range_reader import RangeReader

# The most that one JSON document may hold, and all that are read of one source.
DOCUMENT_LIMIT = 4 * 1024 * 1024
_READ_LIMIT = 64 * 1024 * 1024
# What an archive that cannot be read in place may hold in bytes, unless the user says otherwise.
DEFAULT_MAX_SIZE = 100 * 1024**3
# The most values of one document.
VALUES_LIMIT = 250_000
# What each value of a document counts beyond its bytes: it takes many times those in memory.
_VALUE_COST = 32

# The files that a source is entered by: they name all others, and nothing says what they hold.
ENTRANCES = ("index.json", "manifest.json", "oci-layout")


class Opener(t.Protocol):
    """Anything that opens blobs."""

    def open(self, name: str) -> RangeReader:
        """Open a file. Raises ``SourceError``."""


class Source(t.Protocol):
    """An image in one of its forms.

    ``form`` is ``archive``, ``directory`` or ``compressed archive``. ``opened`` lists the names of all that
    was opened, in order; ``documents_size`` is what ``document`` gave so far, in bytes, and more for each value. ``spooled_size`` is
    ``None`` where blobs can be read in place; else the bytes that ``spool`` will need.
    """

    form: str
    path: str
    documents_size: int
    spooled_size: int | None

    def size_of(self, name: str) -> int | None:
        """Return the size of a file in bytes, or ``None`` if it is missing. Raises ``SourceError``."""

    def open(self, name: str) -> RangeReader:
        """Open a file. Raises ``SourceError``."""

    def document(self, name: str) -> bytes:
        """Return the content of a small file. Raises ``SourceError``, also above 4 MiB."""

    def spool(self, directory: int) -> Source:
        """Return the same image as a source that is read in place. Raises ``SourceError`` and ``OSError``."""

    def close(self) -> None:
        """Close everything."""


class Spooled:
    """The blobs of a source that cannot be read in place: spooled when the first one is opened."""

    def __init__(self, source: Source, directory: int) -> None:
        self._source = source
        self._directory = directory
        self._spool: Source | None = None

    def open(self, name: str) -> RangeReader:
        """Open a file. Raises ``SourceError``, and ``OSError`` if the spool does not fit."""
        if self._spool is None:
            self._spool = self._source.spool(self._directory)
        return self._spool.open(name)

    def close(self) -> None:
        """Close the spool."""
        if self._spool is not None and self._spool is not self._source:
            self._spool.close()


def read_document(source: Source, name: str) -> bytes:
    """Return the content of a file. Raises ``SourceError``."""
    with contextlib.closing(source.open(name)) as reader:
        bound_document(source, name, reader.length)
        data = reader.read()
    bound_values(source, data)
    return data


def bound_document(source: Source, name: str, size: int) -> None:
    """Bound each document, and what is read of all of them: one may be named over and over."""
    if size > DOCUMENT_LIMIT:
        raise SourceError(
            f"{show(source.path)}: the document {show(name)} has {size} bytes, more than {DOCUMENT_LIMIT}, a fixed limit"
        )
    _add(source, size)


def bound_values(source: Source, data: bytes) -> None:
    """Bound the values of all documents that are read: an image of very many small ones takes most memory."""
    # one with more than it may have is refused as such, where it is parsed
    _add(source, _VALUE_COST * min(VALUES_LIMIT, values_in(data)))


def values_in(data: bytes) -> int:
    """Return at least how many values a JSON document holds, without parsing it."""
    return sum(map(data.count, (b",", b"[", b"{")))


def _add(source: Source, size: int) -> None:
    source.documents_size += size
    if source.documents_size > _READ_LIMIT:
        raise SourceError(
            f"{show(source.path)}: its documents hold more than {_READ_LIMIT} bytes together, where each value counts"
            f" {_VALUE_COST} more, a fixed limit; save fewer images"
        )


def cannot_open(path: str, phrase: str) -> SourceError:
    """Return the error for a path that cannot be opened."""
    return SourceError(f"src {show(path)} cannot be opened: {phrase}; check the path")


def missing(path: str, name: str) -> SourceError:
    """Return the error for a file that the source lacks."""
    return SourceError(f"{show(path)} holds no {show(name)}; fetch or save it again")
