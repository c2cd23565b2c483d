# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The protocol of all sources, and the limits of their documents (docs/behaviour.md, section 1)."""

from __future__ import annotations

import contextlib
import re
import typing as t

from .._errors import SourceError, show

if t.TYPE_CHECKING:
    from .range_reader import RangeReader

# The most bytes of one JSON document, and of all that are read from one source.
DOCUMENT_LIMIT = 4 * 1024 * 1024
_READ_LIMIT = 64 * 1024 * 1024
# The default of max_size: the most bytes of an archive that cannot be read in place.
DEFAULT_MAX_SIZE = 100 * 1024**3
# The most values of one document.
VALUES_LIMIT = 250_000
# How many bytes each value of a document counts on top of its own: in memory, a value takes many times its size.
_VALUE_COST = 32

# The documents that name all others; no digest says what they contain.
LISTS = ("index.json", "manifest.json")
ENTRANCES = (*LISTS, "oci-layout")
_CLEAN = re.compile(r"(?:[^/.][^/]*/)*[^/.][^/]*\Z")


class Opener(t.Protocol):
    """Whatever opens blobs."""

    def open(self, name: str) -> RangeReader:
        """Open a file. Raises ``SourceError``."""


class Blob(t.Protocol):
    """A reader of ``length`` bytes."""

    length: int

    def read(self, count: int = -1) -> bytes:
        """Return at most ``count`` bytes, all that remain for ``-1``; empty at the end. Raises ``SourceError``."""

    def cancel(self) -> None:
        """Wake and end a ``read`` in another thread."""

    def close(self) -> None:
        """Close the blob."""


class Partials(t.Protocol):
    """Whatever keeps what came of blobs before a run ended."""

    def reading(self, blob: RangeReader, digest: str, size: int) -> Blob:
        """Return a reader of ``blob`` that begins with what an earlier run left, and keeps what it reads."""

    def is_worth_a_second_try(self, blob: Blob) -> bool:
        """Forget a damaged blob, and return whether it may come right."""

    def make_room(self) -> bool:
        """Remove all blobs and keep no more; return whether there were any."""


class Source(t.Protocol):
    """An archive or directory that holds images.

    ``form`` is ``archive``, ``directory``, ``compressed archive`` or ``stream``. ``documents_size`` counts the bytes
    that ``document`` has returned, and more for each JSON value. ``spooled_size`` is ``None`` if blobs can be read in
    place, otherwise how many bytes ``spool`` will write.
    """

    form: str
    path: str
    documents_size: int
    spooled_size: int | None

    @property
    def pinned(self) -> str:
        """The digest of an index or manifest that the source was asked for and has verified; else empty."""

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
    """The blobs of a source that cannot be read in place; it is spooled when the first blob is opened."""

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
    """Bound one document, and all that are read: an image may name one again and again. Raises ``SourceError``."""
    if size > DOCUMENT_LIMIT:
        raise SourceError(
            f"{show(source.path)}: the document {show(name)} has {size} bytes, more than {DOCUMENT_LIMIT}, a fixed limit"
        )
    _add(source, size)


def bound_values(source: Source, data: bytes) -> None:
    """Bound the values of all documents that are read: many small ones take most memory. Raises ``SourceError``."""
    # a document with more than the limit is refused when it is parsed
    _add(source, _VALUE_COST * min(VALUES_LIMIT, values_in(data)))


def values_in(data: bytes) -> int:
    """Return at least how many values a JSON document holds, without parsing it."""
    return sum(map(data.count, (b",", b"[", b"{")))


def _add(source: Source, size: int) -> None:
    source.documents_size += size
    if source.documents_size > _READ_LIMIT:
        raise SourceError(
            f"{show(source.path)}: its documents have more than {_READ_LIMIT} bytes together, counting {_VALUE_COST} more"
            " for each value, a fixed limit; save fewer images"
        )


def cannot_open(path: str, phrase: str) -> SourceError:
    """Return the error for a path that cannot be opened."""
    return SourceError(f"src {show(path)} cannot be opened: {phrase}; check the path")


def missing(path: str, name: str) -> SourceError:
    """Return the error for a file that the source lacks."""
    return SourceError(f"{show(path)} holds no {show(name)}; fetch or save it again")


def clean(name: str) -> str:
    """Return a file's name without ``./``, doubled and trailing slashes."""
    if _CLEAN.match(name) is not None:
        return name
    return "/".join(part for part in name.split("/") if part not in ("", "."))
