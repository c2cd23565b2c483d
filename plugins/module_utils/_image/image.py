# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The image that was selected: its digests, its layers in order, and its config."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .config import ImageConfig
from .digest import Digest
from .platform import Platform
from .._source.range_reader import RangeReader
from .._source.source import Opener


@dataclass(frozen=True)
class Layer:
    """One layer: ``digest`` and ``size`` in bytes of its blob, ``diff_id`` of the tar inside.

    ``name`` is the name of the blob in the source, ``data`` the blob itself if it is inline. ``digest_is_diff_id`` is
    set for archives that do not give the digest of the blob.
    """

    digest: Digest
    size: int | None
    media_type: str
    diff_id: Digest
    name: str
    data: bytes | None = None
    digest_is_diff_id: bool = False

    def to_result(self) -> dict[str, t.Any]:
        """Return the layer's item of the result."""
        return {
            "digest": str(self.digest),
            "diff_id": str(self.diff_id),
            "size": self.size,
            "media_type": self.media_type,
        }


@dataclass(frozen=True)
class Image:
    """One image of a source; ``manifest_digest`` is None in archives of old ``docker save``.

    ``indexes`` are the digests of the indexes that list it, all verified.
    """

    ref: str | None
    platform: Platform
    manifest_digest: Digest | None
    config_digest: Digest
    layers: tuple[Layer, ...]
    config: ImageConfig
    warnings: tuple[str, ...] = ()
    # an offer may leave an index out that its digest pins
    indexes: tuple[Digest, ...] = field(default=(), compare=False)


def open_layer(source: Opener, layer: Layer) -> RangeReader:
    """Open a layer's blob. Raises ``SourceError``."""
    if layer.data is not None:
        return RangeReader(_Inline(layer.data), 0, len(layer.data))
    return source.open(layer.name)


class _Inline:
    """The inline data of a descriptor, with the methods of a file."""

    name = "inline data"

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read_at(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset``."""
        return self._data[offset : offset + count]

    def advise(self, in_order: bool) -> None:
        """Do nothing: memory needs no advice."""

    def cancel(self) -> None:
        """Do nothing: memory never waits."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""
