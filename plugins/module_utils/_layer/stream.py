# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read one layer's blob once, to its end, as decompressed chunks, and verify its digest, size and diff_id."""

from __future__ import annotations

import typing as t

from .._errors import LayerError
from .._image.media_types import declared_compression
from .budget import Budget
from .._source.decompress import decompressed
from .._source.magic import detect
from .._source.members import DecompressError, StreamLimitError
from .._source.range_reader import CHUNK
from .._source.tar_header import BLOCK, ZERO_BLOCK, is_tar
from .._source.verified import DigestMismatchError, Readable, SizeMismatchError, VerifiedReader

if t.TYPE_CHECKING:
    from .._image.image import Layer

# A function from the chunks of one stage to those of the next.
Step = t.Callable[[t.Iterator[bytes]], t.Iterator[bytes]]


class LayerStream:
    """The chunks of one layer's tar (docs/behaviour.md, section 3), in stages that can run in threads.

    Once they have been read to their end, ``diff_id`` is the computed digest of the tar, which the caller compares with
    the config, and ``compression`` the actual compression.
    """

    def __init__(self, layer: Layer, blob: Readable, budget: Budget) -> None:
        self.layer = layer
        self.compression = "none"
        self.diff_id = ""
        self._blob = blob
        self._budget = budget

    @property
    def mislabelled(self) -> bool:
        """Whether the media type declares another compression than the bytes have."""
        if self.layer.digest_is_diff_id:
            # archives of this kind declare no media type
            return False
        declared = declared_compression(self.layer.media_type)
        return declared is not None and declared != self.compression

    def stages(self) -> tuple[t.Iterator[bytes], list[Step]]:
        """Return the chunks of the first stage and the steps to pass them through, in order: decompress, hash.

        Reads the first chunk. The last step yields decompressed ``bytes`` of at most about 1 MiB. Each stage raises
        ``LayerError``; the first one does so at its end if the size or digest of the blob differs.
        """
        blob = _VerifiedBlob(self.layer, self._blob, self._budget)
        kind = detect(blob.head)
        if kind is None:
            self._require_tar(blob.head)
            # too little work for more than one thread
            return self._counted(blob.chunks()), []
        self.compression = kind
        return blob.chunks(), [self._decompressed, self._counted]

    def _decompressed(self, chunks: t.Iterator[bytes]) -> t.Iterator[bytes]:
        try:
            yield from decompressed(chunks, self.compression)
        except StreamLimitError as error:
            raise LayerError(
                str(error), self.layer.digest, advice="build the image with layers compressed anew"
            ) from error
        except DecompressError as error:
            raise LayerError(str(error), self.layer.digest, advice="fetch or build the image again") from error

    def _counted(self, pieces: t.Iterator[bytes]) -> t.Iterator[bytes]:
        """Pass the pieces on, count them against the limits, and hash them."""
        layer = self.layer
        add_bytes = self._budget.add_bytes
        algorithm = layer.diff_id.algorithm
        # an uncompressed blob is the tar itself, so its verified digest is the diff_id
        is_known = self.compression == "none" and not layer.digest_is_diff_id and layer.digest.algorithm == algorithm
        diff_hash = None if is_known else layer.diff_id.new_hash()
        for piece in pieces:
            add_bytes(len(piece), layer.digest)
            if diff_hash is not None:
                diff_hash.update(piece)
            yield piece
        if diff_hash is None:
            self.diff_id = layer.digest
        else:
            self.diff_id = f"{algorithm}:{diff_hash.hexdigest()}"

    def _require_tar(self, head: bytes) -> None:
        """Require a tar, whose first header may be wrong in a field, or an empty blob. Raises ``LayerError``."""
        if not head or is_tar(head) or head == ZERO_BLOCK:
            return
        # imported late: only this error needs it
        from .._source.foreign import of_head

        raise LayerError(
            f"the blob is not a tar, plain or compressed by gzip, zstd, xz or bzip2: it is {of_head(head).what}",
            self.layer.digest,
            advice="build the image with one of these compressions",
        )


def in_one_thread(stream: LayerStream) -> t.Iterator[bytes]:
    """Return the chunks of a layer's tar, all stages in the calling thread. Raises ``LayerError``."""
    chunks, steps = stream.stages()
    for step in steps:
        chunks = step(chunks)
    return chunks


def drain(stream: LayerStream) -> str:
    """Read a layer to verify it, and return its computed diff_id. Raises ``LayerError``."""
    for _chunk in in_one_thread(stream):
        pass
    return stream.diff_id


class _VerifiedBlob:
    """The stored bytes of a blob, hashed and counted while they are read."""

    def __init__(self, layer: Layer, blob: Readable, budget: Budget) -> None:
        self._layer = layer
        self._blob = blob
        self._budget = budget
        # A Docker archive names only the diff_id: nothing says what the blob itself must hold.
        digest = None if layer.digest_is_diff_id else layer.digest
        self._verified = VerifiedReader(blob, digest, layer.size)
        self._first = self._read(CHUNK)
        while 0 < len(self._first) < BLOCK:
            more = self._read(CHUNK)
            if not more:
                break
            self._first += more
        self.head = self._first[:BLOCK]

    def chunks(self) -> t.Iterator[bytes]:
        """Yield the whole blob. Raises ``LayerError`` at its end if its size or digest differs."""
        chunk = self._first
        self._first = b""
        while chunk:
            yield chunk
            chunk = self._read(CHUNK)

    def _read(self, count: int) -> bytes:
        try:
            chunk = self._verified.read(count)
        except SizeMismatchError as error:
            raise LayerError(
                f"the blob has {error.size} bytes, but its descriptor says {self._layer.size}",
                self._layer.digest,
                advice="fetch the image again or, if that does not help, build it again",
            ) from error
        except DigestMismatchError as error:
            raise LayerError(
                f"the blob's content has the digest {error.found}",
                self._layer.digest,
                advice="the archive is damaged: fetch the image again",
            ) from error
        self._budget.add_stored(len(chunk))
        return chunk
