# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives that cannot be read in place, such as compressed ones, read as a stream (docs/behaviour.md, section 1)."""

from __future__ import annotations

import os
import typing as t

from .._errors import SourceChangedError, SourceError, show
from .._fs.descriptors import closed_on_error
from .archive import Archive, require_list, require_tar
from .decompress import decompressed
from .members import DecompressError, StreamLimitError
from .range_reader import CHUNK, FileAccess, RandomAccess, RangeReader
from .source import DOCUMENT_LIMIT, bound_document, bound_values, missing
from .tar_header import BLOCK, HeaderError
from .tar_index import Member, TarIndex, TarWalk

if t.TYPE_CHECKING:
    from .source import Source

# The most bytes that all documents of one archive may have, since they are kept in memory.
_KEPT_LIMIT = 32 * 1024 * 1024

_BLANKS = b" \t\r\n"


class StreamedArchive:
    """A tar that can only be read from its beginning: one pass keeps its documents, a spool gives access to its blobs.

    ``why`` says in messages why it cannot be read in place. ``max_size`` limits the tar, in bytes. Subclasses implement
    ``_chunks``.
    """

    pinned = ""

    def __init__(self, path: str, form: str, why: str, max_size: int) -> None:
        self.path = path
        self.form = form
        self.documents_size = 0
        self._why = why
        self._max_size = max_size
        self._index, self._documents, self._size = self._scan()
        self.spooled_size: int | None = self._size

    def _chunks(self) -> t.Iterator[bytes]:
        """Yield the tar from its beginning. Raises ``SourceError``."""
        raise NotImplementedError

    def size_of(self, name: str) -> int | None:
        """Return the size of a member, or ``None`` if it is missing. Raises ``SourceError``."""
        member = self._index.find(name)
        return None if member is None else member.size

    def open(self, name: str) -> RangeReader:
        """Refuse: blobs can only be read from the spool. Raises ``SourceError``."""
        raise SourceError(
            f"{show(self.path)} {self._why}, so {show(name)} cannot be read in place; copy it as a plain tar first"
        )

    def document(self, name: str) -> bytes:
        """Return a document that the scan kept. Raises ``SourceError``."""
        member = self._index.find(name)
        if member is None:
            raise missing(self.path, name)
        bound_document(self, name, member.size)
        kept = self._documents.get(member.offset)
        if kept is None:
            raise SourceError(f"{show(self.path)}: {show(name)} is not a JSON document; do not use this archive")
        bound_values(self, kept)
        return kept

    def spool(self, directory: int) -> Source:
        """Write the tar into a file without a name on the file system of ``directory``.

        Raises ``SourceChangedError`` unless it has the size that the scan found: free space was checked for that.
        """
        name = "." + os.urandom(16).hex()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=directory)
        with closed_on_error(fd):
            os.unlink(name, dir_fd=directory)
            left = self._size
            for chunk in self._chunks():
                left -= len(chunk)
                if left < 0:
                    break
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(fd, rest) :]
            if left:
                raise SourceChangedError(
                    f"{show(self.path)} changed while it was read (its content had {self._size} bytes, and now has"
                    f" {'more' if left < 0 else 'fewer'}); run again when the file is whole"
                )
            return Archive(self.path, FileAccess(self.path, fd))

    def close(self) -> None:
        """Do nothing: no file is open between the passes."""

    def _scan(self) -> tuple[TarIndex, dict[int, bytes], int]:
        """Return the index, the documents by their offset, and the size of the tar inside. Raises ``SourceError``."""
        documents: dict[int, bytes] = {}
        kept = 0
        stream = ChunkStream(self._bounded())
        walk = TarWalk(stream, self.path)
        require_tar(self.path, stream.peek(BLOCK), "" if self.form == "stream" else "compressed, and inside it is ")
        try:
            for member in walk:
                if member.offset + member.size > self._max_size:
                    # refuse it without decompressing it
                    raise self._too_large()
                document = _read_document(stream, member, _KEPT_LIMIT - kept)
                if document is not None:
                    documents[member.offset] = document
                    kept += member.size
            stream.drain()
        except HeaderError as error:
            raise SourceError(
                f"{show(self.path)} holds a damaged tar near byte {walk.position}: {error}; fetch it again"
            ) from error
        require_list(walk.index, self.path)
        return walk.index, documents, stream.position

    def _bounded(self) -> t.Iterator[bytes]:
        """Yield the same chunks, up to ``max_size``. Raises ``SourceError``."""
        size = 0
        for chunk in self._chunks():
            size += len(chunk)
            if size > self._max_size:
                raise self._too_large()
            yield chunk

    def _too_large(self) -> SourceError:
        return SourceError(
            f"{show(self.path)} {self._why}, and holds more than the {self._max_size} bytes of max_size; raise max_size"
            " if you trust it, or save only the image that you need"
        )


class CompressedArchive(StreamedArchive):
    """A file that is a compressed tar."""

    def __init__(self, path: str, access: RandomAccess, kind: str, max_size: int) -> None:
        self._access = access
        self._kind = kind
        super().__init__(path, "compressed archive", "is compressed as a whole", max_size)

    def close(self) -> None:
        """Close the file."""
        self._access.close()

    def _chunks(self) -> t.Iterator[bytes]:
        reader = RangeReader(self._access, 0, self._access.size)
        chunks = iter(lambda: reader.read(CHUNK), b"")
        return inflated(chunks, self._kind, self.path)


def inflated(chunks: t.Iterator[bytes], kind: str, path: str) -> t.Iterator[bytes]:
    """Yield the content of a compressed stream. Raises ``SourceError``, which names ``path``."""
    try:
        yield from decompressed(chunks, kind)
    except StreamLimitError as error:
        raise SourceError(f"{show(path)}: {error}; compress it anew") from error
    except DecompressError as error:
        raise SourceError(f"{show(path)}: {error}; fetch it again") from error


def _read_document(stream: ChunkStream, member: Member, room: int) -> bytes | None:
    """Return the content of a member that may be a JSON document, else ``None``.

    Raises ``HeaderError`` for a document of more than ``room`` bytes.
    """
    if not 0 < member.size <= DOCUMENT_LIMIT:
        return None
    head = stream.exactly(min(member.size, BLOCK))
    if head.lstrip(_BLANKS)[:1] not in (b"{", b"["):
        return None
    if member.size > room:
        raise HeaderError(
            f"its documents hold more than {_KEPT_LIMIT} bytes, a fixed limit for archives that cannot be read in place"
        )
    return head + stream.exactly(member.size - len(head))


class ChunkStream:
    """Bytes read in order from chunks; ``position`` counts them."""

    def __init__(self, chunks: t.Iterator[bytes]) -> None:
        self.position = 0
        self._chunks = chunks
        self._chunk = memoryview(b"")

    def peek(self, count: int) -> bytes:
        """Return the next ``count`` bytes, fewer only at the end; ``read`` returns them again."""
        data = self.read(count)
        self.position -= len(data)
        self._chunk = memoryview(data + bytes(self._chunk))
        return data

    def read(self, count: int) -> bytes:
        """Return ``count`` bytes, fewer only at the end."""
        parts = []
        while count and self._fill():
            part = self._chunk[:count]
            self._chunk = self._chunk[len(part) :]
            count -= len(part)
            self.position += len(part)
            parts.append(part)
        return b"".join(parts)

    def exactly(self, count: int) -> bytes:
        """Return ``count`` bytes. Raises ``HeaderError`` at an early end."""
        data = self.read(count)
        if len(data) != count:
            raise HeaderError("it ends in the middle of a member")
        return data

    def skip(self, count: int) -> None:
        """Skip ``count`` bytes. Raises ``HeaderError`` at an early end."""
        while count:
            if not self._fill():
                raise HeaderError("it ends in the middle of a member")
            step = min(count, len(self._chunk))
            self._chunk = self._chunk[step:]
            count -= step
            self.position += step

    def drain(self) -> None:
        """Read the rest, to verify the compressed stream to its end."""
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
