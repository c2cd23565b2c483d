# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Offers: the documents and layer sizes of the images that a task may select, sent from the controller to a node.

The controller makes an offer (``plugin_utils/_offer.py``). On the node, ``OfferSource`` gives its documents as the
source itself would, and reads blobs from an upload folder (docs/behaviour.md, section 7).
"""

from __future__ import annotations

import json
import os
import stat
import zlib
from dataclasses import dataclass, field

from .._errors import SourceError, os_phrase, show
from .range_reader import OPEN_FLAGS, RangeReader
from .sent import SentBlob
from .source import Source, bound_document, bound_values, missing

# The version of the file format; controller and node always run the same release.
FORMAT = 3

# The largest offer in bytes: all documents that a source may hold, and the names of its files.
LIMIT = 96 * 1024 * 1024

# makes zlib expect a gzip header
_GZIP_BITS = 16 + zlib.MAX_WBITS


@dataclass(frozen=True)
class Offer:
    """The ``documents`` of a source, unchanged, and the sizes of ``layers`` and other files in bytes, all by name.

    A node may request the layers, and nothing else. ``problems`` has the error messages for files that cannot be read, by name.
    ``pinned`` is the digest of an index: the controller has verified that it lists all these images. ``scope`` stands for
    what the controller fetched the image from and as whom, so that a node keeps what others may read apart; it is empty
    for an image in a file, which ``path`` stands for.
    """

    form: str
    path: str
    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    pinned: str = ""
    scope: str = ""


def unpack_offer(data: bytes, where: str) -> Offer:
    """Parse an offer: a gzip file of one line of JSON, followed by the documents. Raises ``SourceError``."""
    unpacker = zlib.decompressobj(_GZIP_BITS)
    try:
        text = unpacker.decompress(data, LIMIT + 1)
        if len(text) > LIMIT or not unpacker.eof:
            raise ValueError("it is too large or truncated")
        end = text.index(b"\n") + 1
        head = json.loads(text[:end])
        if head["format"] != FORMAT:
            raise ValueError(f"unknown format {head['format']!r}")
        documents = {}
        for name, length in head["documents"]:
            documents[name] = text[end : end + length]
            end += length
        if end != len(text):
            raise ValueError("its documents do not have the sizes that it lists")
        return Offer(
            str(head["form"]),
            str(head["path"]),
            documents,
            {str(name): int(size) for name, size in dict(head["layers"]).items()},
            {str(name): int(size) for name, size in dict(head["sizes"]).items()},
            {str(name): str(words) for name, words in dict(head["problems"]).items()},
            str(head["pinned"]),
            str(head["scope"]),
        )
    except (ValueError, KeyError, TypeError, zlib.error, RecursionError) as error:
        raise SourceError(f"the offer {show(where)} from the controller is damaged: {error}; run again") from error


def read_offer(path: str) -> tuple[Offer, os.stat_result]:
    """Read the offer at ``path``; return it with the status of its file. Raises ``SourceError``."""
    try:
        fd = os.open(path, OPEN_FLAGS | os.O_NOFOLLOW)
    except OSError as error:
        raise SourceError(
            f"cannot open the offer {show(path)} from the controller: {os_phrase(error)}; run again"
        ) from error
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LIMIT:
            raise SourceError(
                f"the offer {show(path)} from the controller is not a regular file of at most {LIMIT} bytes; run again"
            )
        return unpack_offer(file.read(), path), status


class OfferSource:
    """A source on the node: its documents come from an offer, its blobs from upload folders.

    ``owner`` and ``group`` are the ids of the user who sends the blobs; ``pinned`` and ``scope`` are the offer's.
    """

    spooled_size: int | None = None

    def __init__(self, offer: Offer, owner: int, group: int) -> None:
        self.form = offer.form
        self.path = offer.path
        self.owner = owner
        self.group = group
        self.pinned = offer.pinned
        self.scope = offer.scope
        self.documents_size = 0
        self._offer = offer
        self._sent: dict[str, SentBlob] = {}

    def size_of(self, name: str) -> int | None:
        """Return the size of a file in bytes, or ``None`` when the source has no such file. Raises ``SourceError``."""
        if name in self._offer.documents:
            return len(self._offer.documents[name])
        for sizes in (self._offer.layers, self._offer.sizes):
            if name in sizes:
                return sizes[name]
        self._raise_problem(name)
        return None

    def document(self, name: str) -> bytes:
        """Return a document of the offer. Raises ``SourceError``."""
        data = self._offer.documents.get(name)
        if data is None:
            self._raise_problem(name)
            raise missing(self.path, name)
        bound_document(self, name, len(data))
        bound_values(self, data)
        return data

    def receive_from(self, sent: dict[str, SentBlob]) -> None:
        """Read blobs from these places, by name; the caller keeps the folders open."""
        self._sent = sent

    def open(self, name: str) -> RangeReader:
        """Open a blob that was sent. Raises ``SourceError``."""
        sent = self._sent.get(name)
        reader = None
        if sent is not None and self.size_of(name) == sent.size:
            reader = sent.open()
        if reader is None:
            raise SourceError(f"{show(name)} of {show(self.path)} did not arrive completely on the node; run again")
        return reader

    def spool(self, directory: int) -> Source:
        """Return the source itself: blobs can be read in place."""
        return self

    def close(self) -> None:
        """Do nothing: every reader closes its own file."""

    def _raise_problem(self, name: str) -> None:
        if name in self._offer.problems:
            raise SourceError(self._offer.problems[name])
