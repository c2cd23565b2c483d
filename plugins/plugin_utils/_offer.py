# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""An offer made on the controller: what a node may ask about the images that a task means, and nothing else.

These images are walked as a node walks them, for every platform that it may be of, and what is asked of the
source is noted (docs/behaviour.md, section 7).
"""

from __future__ import annotations

import gzip
import json
import typing as t

from ..module_utils._errors import ImageError, SourceError, show
from ..module_utils._image.candidates import find_candidates
from ..module_utils._image.digest import digest_of
from ..module_utils._image.selection import load, to_image
from ..module_utils._source.offer import FORMAT, LIMIT, Offer

from ..module_utils._source.sent import blob_digest
from ..module_utils._source.source import ENTRANCES, missing
from ._criteria import Criteria, choose, entrances

if t.TYPE_CHECKING:
    from ..module_utils._image.image import Layer
    from ..module_utils._source.range_reader import RangeReader
    from ..module_utils._source.source import Source


def make_offer(source: Source, criteria: Criteria) -> Offer:
    """All that a node may ask. Raises ``ImageError`` and ``SourceError`` for what is wrong for every node.

    What is wrong with one image of several is told by the node that would choose it.
    """
    known = _Known(source)
    choice = choose(known, criteria)
    recorder = _Recorder(known, entrances(choice.candidates, source.path))
    for candidate in find_candidates(recorder):
        try:
            for loaded in load(recorder, [candidate]):
                recorder.add_layers(to_image(recorder, loaded).layers)
        except (ImageError, SourceError) as error:
            recorder.refuse(error.message)
    return recorder.offer(choice.pinned)


def pack(offer: Offer) -> bytes:
    """The offer as a file: gzip over a line of JSON and the documents behind it. Raises ``SourceError``."""
    head = {
        "format": FORMAT,
        "form": offer.form,
        "path": offer.path,
        "documents": [[name, len(data)] for name, data in offer.documents.items()],
        "layers": offer.layers,
        "sizes": offer.sizes,
        "problems": offer.problems,
        "pinned": offer.pinned,
    }
    parts = [json.dumps(head, separators=(",", ":")).encode("ascii") + b"\n"]
    parts += offer.documents.values()
    if sum(map(len, parts)) > LIMIT:
        raise SourceError(
            f"{show(offer.path)}: its documents and the names of its files hold more than {LIMIT} bytes,"
            " a fixed limit for what is sent to a node; save fewer images"
        )
    # what is told to every node is worth the best compression
    return gzip.compress(b"".join(parts), 9)


class _Wrapped:
    """A source that stands before another one."""

    def __init__(self, source: Source) -> None:
        self.form = source.form
        self.path = source.path
        self.opened = source.opened
        self.documents_size = 0
        self.spooled_size = source.spooled_size
        self._source = source

    def size_of(self, name: str) -> int | None:
        """As the source's. Raises ``SourceError``."""
        return self._source.size_of(name)

    def open(self, name: str) -> RangeReader:
        """As the source's. Raises ``SourceError``."""
        return self._source.open(name)

    def document(self, name: str) -> bytes:
        """As the source's. Raises ``SourceError``."""
        return self._source.document(name)

    def spool(self, directory: int) -> Source:
        """As the source's. Raises ``SourceError`` and ``OSError``."""
        return self._source.spool(directory)

    def close(self) -> None:
        """Close the source."""
        self._source.close()


class _Known(_Wrapped):
    """A source of which each document is read once."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._documents: dict[str, bytes] = {}

    def document(self, name: str) -> bytes:
        """As the source's. Raises ``SourceError``."""
        if name not in self._documents:
            self._documents[name] = self._source.document(name)
        return self._documents[name]


class _Recorder(_Wrapped):
    """A source with ``entrances`` of its own that notes what is asked of it, so that an offer can answer the same."""

    def __init__(self, source: Source, entrances: t.Mapping[str, bytes]) -> None:
        super().__init__(source)
        self._entrances = entrances
        self._documents: dict[str, bytes] = {}
        self._layers: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._problems: dict[str, str] = {}
        self._unverified: list[str] = []

    def size_of(self, name: str) -> int | None:
        """As the source's. Raises ``SourceError``."""
        if name in ENTRANCES:
            data = self._entrances.get(name)
            return None if data is None else len(data)
        try:
            size = self._source.size_of(name)
        except SourceError as error:
            self._problems[name] = error.message
            raise
        if size is not None:
            self._sizes[name] = size
        return size

    def document(self, name: str) -> bytes:
        """As the source's. Raises ``SourceError``."""
        data = self._entrances.get(name)
        try:
            if data is None and name in ENTRANCES:
                # an image's config of such a name is not what the source is entered by
                raise missing(self.path, name)
            if data is None:
                data = self._source.document(name)
        except SourceError as error:
            self._problems[name] = error.message
            raise
        digest = blob_digest(name)
        if digest is None or digest_of(data, digest) == digest:
            self._documents[name] = data
        else:
            # its reader refuses it. In a layout it may be a link to any file here, which is no node's business
            self._unverified.append(name)
        return data

    def refuse(self, message: str) -> None:
        """Note why an image cannot be had, in the stead of a document that is not what its name says."""
        for name in self._unverified:
            if self.form == "directory":
                # not even the digest of the file behind a link
                message = f"{show(name)} of {show(self.path)} is not what its name says; fetch the image again"
            self._problems[name] = message
        self._unverified.clear()

    def add_layers(self, layers: t.Iterable[Layer]) -> None:
        """Note what a node may ask for."""
        for layer in layers:
            if layer.data is None:
                self._layers[layer.name] = self._sizes[layer.name]

    def offer(self, pinned: str) -> Offer:
        """All that was asked for so far."""
        sizes = {
            name: size
            for name, size in self._sizes.items()
            if name not in self._documents and name not in self._layers
        }
        return Offer(
            self.form,
            self.path,
            self._documents,
            self._layers,
            sizes,
            self._problems,
            pinned,
        )
