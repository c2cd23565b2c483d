# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Whatever holds an image, behind one small protocol: documents and blobs by name (docs/behaviour.md, section 1).

A new kind of source needs C(size_of) and C(open) and little else: see C(Source).
"""

from __future__ import annotations

import contextlib
import os

import stat
import typing as t

from ansible_collections.hypervisor.oci.plugins.module_utils._errors import (
    SourceError,
    os_phrase,
    show,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.decompress import (
    DecompressError,
    decompressed,
    detect,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.range_reader import (
    FileAccess,
    RandomAccess,
    RangeReader,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.tar_header import (
    BLOCK,
    HeaderError,
    parse_header,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.tar_index import (
    EXTENDED_TYPES,
    Indexer,
    TarIndex,
    check_extended,
    clean,
    index_tar,
)

# The most that one JSON document may hold, all that are read, and all in an archive that is read as a stream.
DOCUMENT_LIMIT = 4 * 1024 * 1024
_READ_LIMIT = 64 * 1024 * 1024
_KEPT_LIMIT = 32 * 1024 * 1024

_CHUNK = 256 * 1024
_BLANKS = b" \t\r\n"


class Source(t.Protocol):
    """What holds an image.

    C(form) is C(archive), C(directory) or C(compressed archive). C(opened) lists the names of all that
    was opened, in order; C(documents_size) is what C(document) gave so far, in bytes. C(spooled_size) is
    C(None) where blobs can be read in place; else the bytes that C(spool) will need.
    """

    form: str
    path: str
    opened: list[str]
    documents_size: int
    spooled_size: int | None

    def size_of(self, name: str) -> int | None:
        """The size of a file in bytes; C(None) where there is none of that name. Raises C(SourceError)."""

    def open(self, name: str) -> RangeReader:
        """A reader of a file. Raises C(SourceError)."""

    def document(self, name: str) -> bytes:
        """A small file as a whole. Raises C(SourceError), also above 4 MiB."""

    def spool(self, directory: int) -> Source:
        """The same as a source that is read in place. Raises C(SourceError) and C(OSError)."""

    def close(self) -> None:
        """Give all back."""


def open_source(path: str) -> Source:
    """Open what lies at C(path); its content decides what it is. Raises C(SourceError)."""
    try:
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        raise _cannot_open(path, os_phrase(error)) from error
    except ValueError as error:
        raise _cannot_open(path, "a NUL, or what is no text, stands in it") from error
    if is_directory:
        return LayoutDirectory(path)
    access = FileAccess(path)
    try:
        head = access.read_at(0, BLOCK)
        kind = detect(head)
        if kind is not None:
            return CompressedArchive(path, access, kind)
        _require_tar(path, head)
        return Archive(path, access)
    except BaseException:
        access.close()
        raise


class Archive:
    """A plain tar, read in place."""

    form = "archive"
    spooled_size: int | None = None

    def __init__(
        self, path: str, access: RandomAccess, index: TarIndex | None = None
    ) -> None:
        self.path = path
        self.opened: list[str] = []
        self.documents_size = 0
        self._access = access
        self._index = index or _index(access, path)

    def size_of(self, name: str) -> int | None:
        """The size of a member; C(None) where there is none. Raises C(SourceError)."""
        member = self._index.find(name)
        return None if member is None else member.size

    def open(self, name: str) -> RangeReader:
        """A reader of a member in place. Raises C(SourceError)."""
        member = self._index.find(name)
        if member is None:
            raise _missing(self.path, name)
        self.opened.append(name)
        return RangeReader(self._access, member.offset, member.size)

    def document(self, name: str) -> bytes:
        """A member as a whole. Raises C(SourceError)."""
        return _read_document(self, name)

    def spool(self, directory: int) -> Source:
        """An archive that is read in place is its own spool."""
        return self

    def close(self) -> None:
        """Close the file."""
        self._access.close()


def _index(access: RandomAccess, path: str) -> TarIndex:
    access.advise(False)
    index = index_tar(access.read_at, access.size, path)
    access.advise(True)
    return index


class LayoutDirectory:
    """An image layout on disk, or what C(docker save) wrote, unpacked."""

    form = "directory"
    spooled_size: int | None = None

    def __init__(self, path: str) -> None:
        self.path = path
        self.opened: list[str] = []
        self.documents_size = 0
        if not any(map(self._is_there, ("index.json", "manifest.json"))):
            raise SourceError(
                f"src {show(path)} is a directory without index.json or manifest.json; give an image layout or an archive"
            )

    def size_of(self, name: str) -> int | None:
        """The size of a file; C(None) where there is none. Raises C(SourceError)."""
        try:
            status = os.stat(self._path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            # a NUL, or what is no text
            raise self._no_name(name) from error
        except OSError as error:
            raise SourceError(
                f"{show(self._path(name))} cannot be looked at: {os_phrase(error)}; check src"
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(
                f"{show(self._path(name))} is not a regular file; do not use this layout"
            )
        return status.st_size

    def open(self, name: str) -> RangeReader:
        """A reader of a file, links followed, nothing waited for. Raises C(SourceError)."""
        if self.size_of(name) is None:
            raise _missing(self.path, name)
        access = FileAccess(self._path(name))
        self.opened.append(name)
        return RangeReader(access, 0, access.size, owned=True)

    def document(self, name: str) -> bytes:
        """A file as a whole. Raises C(SourceError)."""
        return _read_document(self, name)

    def spool(self, directory: int) -> Source:
        """A directory needs none."""
        return self

    def close(self) -> None:
        """Nothing to close: each file belongs to its reader."""

    def _path(self, name: str) -> str:
        cleaned = clean(name)
        if ".." in cleaned.split("/"):
            raise self._no_name(name)
        return os.path.join(self.path, cleaned)

    def _is_there(self, name: str) -> bool:
        try:
            os.lstat(self._path(name))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _cannot_open(self.path, os_phrase(error)) from error
        return True

    def _no_name(self, name: str) -> SourceError:
        return SourceError(
            f"{show(self.path)}: {show(name)} is no name of a file inside it; do not use this layout"
        )


class CompressedArchive:
    """A tar that is compressed as a whole: one pass finds its documents, and a spool its blobs."""

    form = "compressed archive"

    def __init__(self, path: str, access: RandomAccess, kind: str) -> None:
        self.path = path
        self.opened: list[str] = []
        self.documents_size = 0
        self._access = access
        self._kind = kind
        self._index, self._documents, size = self._scan()
        self.spooled_size: int | None = size

    def size_of(self, name: str) -> int | None:
        """The size of a member; C(None) where there is none. Raises C(SourceError)."""
        member = self._index.find(name)
        return None if member is None else member.size

    def open(self, name: str) -> RangeReader:
        """Blobs can only be read from the spool. Raises C(SourceError)."""
        raise SourceError(
            f"{show(self.path)} is compressed as a whole, so {show(name)} cannot be read in place; decompress it first"
        )

    def document(self, name: str) -> bytes:
        """A small member that the pass kept. Raises C(SourceError)."""
        member = self._index.find(name)
        if member is None:
            raise _missing(self.path, name)
        self.opened.append(name)
        _bound_document(self, name, member.size)
        kept = self._documents.get(member.offset)
        if kept is None:
            raise SourceError(
                f"{show(self.path)}: {show(name)} is not a JSON document; fetch the image again"
            )
        return kept

    def spool(self, directory: int) -> Source:
        """Decompress into a nameless file on the file system of C(directory)."""
        name = "." + os.urandom(16).hex()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=directory)
        try:
            os.unlink(name, dir_fd=directory)
            for chunk in self._decompressed():
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(fd, rest) :]
            return Archive(self.path, FileAccess(self.path, fd), self._index)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Close the file."""
        self._access.close()

    def _scan(self) -> tuple[TarIndex, dict[int, bytes], int]:
        """Index, documents by offset, and the size of the tar inside."""
        indexer = Indexer(self.path)
        documents: dict[int, bytes] = {}
        kept = 0
        stream = _Stream(self._decompressed())
        try:
            while True:
                block = stream.read(BLOCK)
                header = parse_header(block) if len(block) == BLOCK else None
                if block and len(block) < BLOCK:
                    raise HeaderError("it ends in the middle of a header")
                if header is None:
                    break
                if header.type in EXTENDED_TYPES:
                    check_extended(header)
                    indexer.extended(header, stream.exactly(header.size))
                    stream.skip(-header.size % BLOCK)
                    continue
                offset = stream.position
                _name, size = indexer.member(header, offset)
                if 0 < size <= DOCUMENT_LIMIT:
                    head = stream.exactly(min(size, BLOCK))
                    if head.lstrip(_BLANKS)[:1] in (b"{", b"["):
                        kept += size
                        if kept > _KEPT_LIMIT:
                            raise HeaderError(
                                f"its documents hold more than {_KEPT_LIMIT} bytes, a fixed limit for"
                                " archives that are compressed as a whole"
                            )
                        documents[offset] = head + stream.exactly(size - len(head))
                    else:
                        stream.skip(size - len(head))
                else:
                    stream.skip(size)
                stream.skip(-size % BLOCK)
            index = indexer.finish()
            stream.drain()
        except HeaderError as error:
            raise SourceError(
                f"{show(self.path)} holds a damaged tar near byte {stream.position}: {error}; fetch it again"
            ) from error
        return index, documents, stream.position

    def _decompressed(self) -> t.Iterator[bytes]:
        reader = RangeReader(self._access, 0, self._access.size)
        chunks = iter(lambda: reader.read(_CHUNK), b"")
        try:
            yield from decompressed(chunks, self._kind)
        except DecompressError as error:
            raise SourceError(f"{show(self.path)}: {error}; fetch it again") from error


class _Stream:
    """Chunks as bytes in order, counted."""

    def __init__(self, chunks: t.Iterator[bytes]) -> None:
        self.position = 0
        self._chunks = chunks
        self._chunk = memoryview(b"")

    def read(self, count: int) -> bytes:
        """C(count) bytes, fewer only at the end."""
        parts = []
        while count and self._fill():
            part = self._chunk[:count]
            self._chunk = self._chunk[len(part) :]
            count -= len(part)
            self.position += len(part)
            parts.append(part)
        return b"".join(parts)

    def exactly(self, count: int) -> bytes:
        """C(count) bytes. Raises C(HeaderError) at an early end."""
        data = self.read(count)
        if len(data) != count:
            raise HeaderError("it ends in the middle of a member")
        return data

    def skip(self, count: int) -> None:
        """Pass over C(count) bytes. Raises C(HeaderError) at an early end."""
        while count:
            if not self._fill():
                raise HeaderError("it ends in the middle of a member")
            step = min(count, len(self._chunk))
            self._chunk = self._chunk[step:]
            count -= step
            self.position += step

    def drain(self) -> None:
        """Pass over the rest, so that the compression is verified to its end."""
        while self._fill():
            self.position += len(self._chunk)
            self._chunk = memoryview(b"")

    def _fill(self) -> bool:
        while not self._chunk:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._chunk = memoryview(chunk)
        return True


def _read_document(source: Archive | LayoutDirectory, name: str) -> bytes:
    with contextlib.closing(source.open(name)) as reader:
        _bound_document(source, name, reader.length)
        return reader.read()


def _bound_document(source: Source, name: str, size: int) -> None:
    """Bound each document, and what is read of all of them: one may be named over and over."""
    if size > DOCUMENT_LIMIT:
        raise SourceError(
            f"{show(source.path)}: the document {show(name)} has {size} bytes, more than {DOCUMENT_LIMIT}, a fixed limit"
        )
    source.documents_size += size
    if source.documents_size > _READ_LIMIT:
        raise SourceError(
            f"{show(source.path)}: its documents hold more than {_READ_LIMIT} bytes together, a fixed limit;"
            " save fewer images"
        )


def _cannot_open(path: str, phrase: str) -> SourceError:
    return SourceError(f"src {show(path)} cannot be opened: {phrase}; check the path")


def _missing(path: str, name: str) -> SourceError:
    return SourceError(f"{show(path)} holds no {show(name)}; fetch or save it again")


def _require_tar(path: str, head: bytes) -> None:
    problem = f"begins with {head[:8].hex(' ')}" if head else "is empty"
    try:
        if len(head) == BLOCK and parse_header(head) is not None:
            return
    except HeaderError:
        pass
    raise SourceError(
        f"src {show(path)} {problem}, so it is no tar, plain or compressed by gzip or zstd; give an image archive"
    )
