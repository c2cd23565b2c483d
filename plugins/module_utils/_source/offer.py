# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""What the controller tells a node about the images that a task may mean: documents, and how large layers are.

It is made on the controller (``plugin_utils/_offer.py``). On the node ``OfferSource`` answers from it what the
source would, and reads blobs from a folder that they are sent to (docs/behaviour.md, section 7).
"""

from __future__ import annotations

import json
import os
import stat
import zlib
from dataclasses import dataclass, field

from .._errors import SourceError, os_phrase, show
from .range_reader import OPEN_FLAGS, RangeReader
from .sent import Sent
from .source import Source, bound_document, bound_values, missing

# Raised when the file comes to mean something else; both sides are always of one version.
FORMAT = 2

# The most that an offer may hold: what a source may give of documents, and the names of its files.
LIMIT = 96 * 1024 * 1024

# gzip's own header, not zlib's
_GZIP_BITS = 16 + zlib.MAX_WBITS


@dataclass(frozen=True)
class Offer:
    """What a source holds: ``documents`` as they are, ``layers`` and other ``sizes`` in bytes, all by name.

    ``problems`` are messages, by name, of what cannot be had although it is there. Layers are what a node may
    ask for. ``pinned`` is the digest of an index: the controller has seen that all these images come by it.
    """

    form: str
    path: str
    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    pinned: str = ""


def unpack_offer(data: bytes, where: str) -> Offer:
    """Read what the controller packed: gzip over a line of JSON and the documents behind it. Raises ``SourceError``."""
    unpacker = zlib.decompressobj(_GZIP_BITS)
    try:
        text = unpacker.decompress(data, LIMIT + 1)
        if len(text) > LIMIT or not unpacker.eof:
            raise ValueError("it is too large or ends too early")
        end = text.index(b"\n") + 1
        head = json.loads(text[:end])
        if head["format"] != FORMAT:
            raise ValueError(f"it is of the format {head['format']!r}")
        documents = {}
        for name, length in head["documents"]:
            documents[name] = text[end : end + length]
            end += length
        if end != len(text):
            raise ValueError("its documents have another size than it says")
        return Offer(
            str(head["form"]),
            str(head["path"]),
            documents,
            {str(name): int(size) for name, size in dict(head["layers"]).items()},
            {str(name): int(size) for name, size in dict(head["sizes"]).items()},
            {str(name): str(words) for name, words in dict(head["problems"]).items()},
            str(head["pinned"]),
        )
    except (ValueError, KeyError, TypeError, zlib.error, RecursionError) as error:
        raise SourceError(
            f"the offer {show(where)} from the controller is damaged: {error}; run again"
        ) from error


def read_offer(path: str) -> tuple[Offer, os.stat_result]:
    """The offer that lies at ``path``, and whose file it is. Raises ``SourceError``."""
    try:
        fd = os.open(path, OPEN_FLAGS | os.O_NOFOLLOW)
    except OSError as error:
        raise SourceError(
            f"the offer {show(path)} from the controller cannot be opened: {os_phrase(error)}; run again"
        ) from error
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > LIMIT:
            raise SourceError(
                f"the offer {show(path)} from the controller is no file of an offer's size; run again"
            )
        return unpack_offer(file.read(), path), status


class OfferSource:
    """A source on the node whose documents are those of an offer, and whose blobs lie in a folder.

    ``owner`` and ``group`` are the ids of the user who may send there; ``pinned`` as in the offer.
    """

    spooled_size: int | None = None

    def __init__(self, offer: Offer, owner: int, group: int) -> None:
        self.form = offer.form
        self.path = offer.path
        self.owner = owner
        self.group = group
        self.pinned = offer.pinned
        self.opened: list[str] = []
        self.documents_size = 0
        self._offer = offer
        self._sent: dict[str, Sent] = {}

    def size_of(self, name: str) -> int | None:
        """The size of a file in bytes; ``None`` where there is none of that name. Raises ``SourceError``."""
        if name in self._offer.documents:
            return len(self._offer.documents[name])
        for sizes in (self._offer.layers, self._offer.sizes):
            if name in sizes:
                return sizes[name]
        self._refuse(name)
        return None

    def document(self, name: str) -> bytes:
        """A document of the offer. Raises ``SourceError``."""
        data = self._offer.documents.get(name)
        if data is None:
            self._refuse(name)
            raise missing(self.path, name)
        self.opened.append(name)
        bound_document(self, name, len(data))
        bound_values(self, data)
        return data

    def receive_from(self, sent: dict[str, Sent]) -> None:
        """Take blobs, by name, from where they lie; the folders stay the caller's."""
        self._sent = sent

    def open(self, name: str) -> RangeReader:
        """A reader of a blob that was sent, nothing followed or waited for. Raises ``SourceError``."""
        sent = self._sent.get(name)
        reader = None
        if sent is not None and self.size_of(name) == sent.size:
            reader = sent.open()
        if reader is None:
            raise SourceError(
                f"{show(name)} of {show(self.path)} did not arrive on the node as a whole; run again"
            )
        self.opened.append(name)
        return reader

    def spool(self, directory: int) -> Source:
        """Blobs are files already."""
        return self

    def close(self) -> None:
        """Nothing to close: each file belongs to its reader."""

    def _refuse(self, name: str) -> None:
        if name in self._offer.problems:
            raise SourceError(self._offer.problems[name])
