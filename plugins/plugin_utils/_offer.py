# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Make offers on the controller: all that a node may read about the images that a task may mean, and nothing else.

The images are loaded as a node loads them, for every platform that it may have, and everything that is read from the
source is recorded (docs/behaviour.md, section 7).
"""

from __future__ import annotations

import gzip
import json
import typing as t

from ..module_utils._errors import ImageError, SourceError, show
from ..module_utils._image.candidates import find_candidates
from ..module_utils._image.digest import Digest
from ..module_utils._image.loading import load, to_image
from ..module_utils._source.offer import FORMAT, LIMIT, Offer
from ..module_utils._source.sent import blob_digest
from ..module_utils._source.source import ENTRANCES, missing
from ._criteria import Criteria, choose, entrances

if t.TYPE_CHECKING:
    from ..module_utils._image.image import Layer
    from ..module_utils._source.range_reader import RangeReader
    from ..module_utils._source.source import Source


def make_offer(source: Source, criteria: Criteria) -> Offer:
    """Make the offer for these criteria. Raises ``ImageError`` and ``SourceError`` for errors on every node.

    An error in one of several images is reported by the node that chooses it.
    """
    remembering = _Remembering(source)
    choice = choose(remembering, criteria)
    recorder = _Recorder(remembering, entrances(choice.candidates, source.path))
    for candidate in find_candidates(recorder):
        try:
            for loaded in load(recorder, [candidate]):
                recorder.add_layers(to_image(recorder, loaded).layers)
        except (ImageError, SourceError) as error:
            recorder.refuse(error.message)
    return recorder.offer(choice.pinned)


def pack(offer: Offer) -> bytes:
    """Return an offer as a gzip file of one line of JSON, followed by the documents. Raises ``SourceError``."""
    head = {
        "format": FORMAT,
        "form": offer.form,
        "path": offer.path,
        "documents": [[name, len(data)] for name, data in offer.documents.items()],
        "layers": offer.layers,
        "sizes": offer.sizes,
        "problems": offer.problems,
        "pinned": offer.pinned,
        "scope": offer.scope,
    }
    parts = [json.dumps(head, separators=(",", ":")).encode("ascii") + b"\n"]
    parts += offer.documents.values()
    if sum(map(len, parts)) > LIMIT:
        raise SourceError(
            f"{show(offer.path)}: its documents and the names of its files have more than {LIMIT} bytes, a fixed limit;"
            " save fewer images"
        )
    # the best compression, because every node gets a copy
    return gzip.compress(b"".join(parts), 9)


class _Wrapped:
    """A source that delegates to another one."""

    def __init__(self, source: Source) -> None:
        self.form = source.form
        self.path = source.path
        self.documents_size = 0
        self.spooled_size = source.spooled_size
        self._source = source

    @property
    def pinned(self) -> str:
        """Delegate to the source. Raises ``SourceError``."""
        return self._source.pinned

    def size_of(self, name: str) -> int | None:
        """Delegate to the source. Raises ``SourceError``."""
        return self._source.size_of(name)

    def open(self, name: str) -> RangeReader:
        """Delegate to the source. Raises ``SourceError``."""
        return self._source.open(name)

    def document(self, name: str) -> bytes:
        """Delegate to the source. Raises ``SourceError``."""
        return self._source.document(name)

    def spool(self, directory: int) -> Source:
        """Delegate to the source. Raises ``SourceError`` and ``OSError``."""
        return self._source.spool(directory)

    def close(self) -> None:
        """Close the source."""
        self._source.close()


class _Remembering(_Wrapped):
    """A source that reads every document only once."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._documents: dict[str, bytes] = {}

    def document(self, name: str) -> bytes:
        """Delegate to the source. Raises ``SourceError``."""
        if name not in self._documents:
            self._documents[name] = self._source.document(name)
        return self._documents[name]


class _Recorder(_Wrapped):
    """A source with its own ``entrances`` that records every answer, so that an offer can repeat it."""

    def __init__(self, source: Source, entrances: t.Mapping[str, bytes]) -> None:
        super().__init__(source)
        self._entrances = entrances
        self._documents: dict[str, bytes] = {}
        self._layers: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._problems: dict[str, str] = {}
        self._unverified: list[str] = []

    def size_of(self, name: str) -> int | None:
        """Delegate to the source. Raises ``SourceError``."""
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
        """Delegate to the source. Raises ``SourceError``."""
        data = self._entrances.get(name)
        try:
            if data is None and name in ENTRANCES:
                # an image may use such a name for its config, which is not an entrance of the source
                raise missing(self.path, name)
            if data is None:
                data = self._source.document(name)
        except SourceError as error:
            self._problems[name] = error.message
            raise
        digest = blob_digest(name)
        if digest is None or Digest(digest).of(data) == digest:
            self._documents[name] = data
        else:
            # The reader refuses it. In a layout it may be a link to any file of the controller, so it is not offered.
            self._unverified.append(name)
        return data

    def refuse(self, message: str) -> None:
        """Record why an image cannot be loaded, instead of the documents that do not match their digests."""
        for name in self._unverified:
            if self.form == "directory":
                # do not reveal even the digest of the file behind a link
                message = f"{show(name)} of {show(self.path)} does not match its digest; fetch the image again"
            self._problems[name] = message
        self._unverified.clear()

    def add_layers(self, layers: t.Iterable[Layer]) -> None:
        """Record layers that a node may request."""
        for layer in layers:
            if layer.data is None:
                self._layers[layer.name] = self._sizes[layer.name]

    def offer(self, pinned: str) -> Offer:
        """Return everything that was recorded."""
        sizes = {
            name: size for name, size in self._sizes.items() if name not in self._documents and name not in self._layers
        }
        return Offer(self.form, self.path, self._documents, self._layers, sizes, self._problems, pinned)
