# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""An offer made on the controller: what every node may ask about the image, and nothing else.

The archive is walked as a node walks it, for every platform, and what is asked of it is noted
(docs/behaviour.md, section 7).
"""

from __future__ import annotations

import contextlib
import gzip
import json
import typing as t

from ansible_collections.hypervisor.oci.plugins.module_utils._errors import (
    ImageError,
    SourceError,
    show,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._image.candidates import (
    find_candidates,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._image.selection import (
    load,
    to_image,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.offer import (
    FORMAT,
    LIMIT,
    Offer,
)

if t.TYPE_CHECKING:
    from ansible_collections.hypervisor.oci.plugins.module_utils._source.range_reader import (
        RangeReader,
    )
    from ansible_collections.hypervisor.oci.plugins.module_utils._source.source import (
        Source,
    )


def make_offer(source: Source) -> Offer:
    """All that a node may ask. Raises C(ImageError) and C(SourceError) for what is wrong for every node.

    What is wrong with one image of several is told by the node that would choose it.
    """
    recorder = _Recorder(source)
    for candidate in find_candidates(recorder):
        with contextlib.suppress(ImageError, SourceError):
            for loaded in load(recorder, [candidate]):
                to_image(recorder, loaded)
    return recorder.offer()


def pack(offer: Offer) -> bytes:
    """The offer as a file: gzip over a line of JSON and the documents behind it. Raises C(SourceError)."""
    head = {
        "format": FORMAT,
        "form": offer.form,
        "path": offer.path,
        "documents": [[name, len(data)] for name, data in offer.documents.items()],
        "sizes": offer.sizes,
        "problems": offer.problems,
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


class _Recorder:
    """A source that notes what is asked of it, so that an offer can answer the same questions."""

    def __init__(self, source: Source) -> None:
        self.form = source.form
        self.path = source.path
        self.opened = source.opened
        self.documents_size = 0
        self.spooled_size = source.spooled_size
        self._source = source
        self._documents: dict[str, bytes] = {}
        self._sizes: dict[str, int] = {}
        self._problems: dict[str, str] = {}

    def size_of(self, name: str) -> int | None:
        """As the source's. Raises C(SourceError)."""
        try:
            size = self._source.size_of(name)
        except SourceError as error:
            self._problems[name] = error.message
            raise
        if size is not None:
            self._sizes[name] = size
        return size

    def open(self, name: str) -> RangeReader:
        """Documents are all that is read for an offer. Raises C(SourceError)."""
        return self._source.open(name)

    def document(self, name: str) -> bytes:
        """As the source's. Raises C(SourceError)."""
        known = self._documents.get(name)
        if known is not None:
            return known
        try:
            data = self._source.document(name)
        except SourceError as error:
            self._problems[name] = error.message
            raise
        self._documents[name] = data
        return data

    def spool(self, directory: int) -> Source:
        """As the source's. Raises C(SourceError) and C(OSError)."""
        return self._source.spool(directory)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def offer(self) -> Offer:
        """All that was asked for so far."""
        sizes = {
            name: size
            for name, size in self._sizes.items()
            if name not in self._documents
        }
        return Offer(self.form, self.path, self._documents, sizes, self._problems)
