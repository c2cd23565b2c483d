# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the layers of an image again, verified as they are for unpacking."""

from __future__ import annotations

import contextlib
import typing as t

from .._errors import ImageError, LayerError
from .._image.image import Layer
from .._layer.budget import Budget
from .._layer.pipeline import read_ahead
from .._layer.stream import LayerStream
from .._layer.tar_entries import TarReader
from .._report import Report
from .._source.source import Opener
from .._unpack import Blobs, Kept
from .._unpack_options import UnpackOptions

# As if so much had come before, which makes a layer alone pass where all together have.
_BEFORE = 2**40
_STORED = 2**62


class Reread:
    """The layers of an image, from the cache or the source."""

    def __init__(self, source: Opener, layers: t.Sequence[Layer], options: UnpackOptions, kept: Kept) -> None:
        self.layers = layers
        self._options = options
        self._blobs = Blobs(source, kept.cache, kept.partials)

    @contextlib.contextmanager
    def reading(self, place: int) -> t.Iterator[TarReader]:
        """Read a layer, the lowest is 0; the block has to read all entries. Raises ``OciError`` at its end if it is not verified."""
        if place >= len(self.layers):
            raise ImageError(f"the image has {len(self.layers)} layers, and what is recorded of its tree more")
        layer = self.layers[place]
        report = Report()
        budget = Budget(self._options.max_size, self._options.max_entries + _BEFORE)
        # limits that layers share have let all of them pass
        budget.go_on_from({**budget.to_dict(), "stored": _STORED, "entries": _BEFORE})
        with self._blobs.open(layer) as blob:
            stream = LayerStream(layer, blob, budget)
            first, steps = stream.stages()
            with read_ahead(first, *steps, cancel=blob.cancel) as chunks:
                yield TarReader(chunks, layer.digest, report, budget)
            if stream.diff_id != layer.diff_id:
                raise LayerError("its content is another one than when it was unpacked", layer.digest)
            self._blobs.commit(blob, stream, report)
