# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""An image: what was chosen, with its layers in order and its config. It knows of no tar entry."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .config import ImageConfig
from .platform import Platform
from .._source.range_reader import RangeReader
from .._source.source import Opener


@dataclass(frozen=True)
class Layer:
    """One layer: ``digest`` and ``size`` in bytes of its blob, ``diff_id`` of the tar inside.

    ``name`` is its file in the source, ``data`` the blob itself where it came inline. Where
    ``digest_is_diff_id``, an old archive gave no digest of the blob.
    """

    digest: str
    size: int | None
    media_type: str
    diff_id: str
    name: str
    data: bytes | None = None
    digest_is_diff_id: bool = False

    def to_result(self) -> dict[str, t.Any]:
        """The item of the result's ``layers``."""
        return {"digest": self.digest, "diff_id": self.diff_id, "size": self.size, "media_type": self.media_type}


@dataclass(frozen=True)
class Image:
    """One image of a source. ``manifest_digest`` is ``None`` for an old ``docker save`` archive."""

    ref: str | None
    platform: Platform
    manifest_digest: str | None
    config_digest: str
    layers: tuple[Layer, ...]
    config: ImageConfig
    warnings: tuple[str, ...] = ()


def open_layer(source: Opener, layer: Layer) -> RangeReader:
    """A reader of a layer's blob. Raises ``SourceError``."""
    if layer.data is not None:
        return RangeReader(_Inline(layer.data), 0, len(layer.data))
    return source.open(layer.name)


class _Inline:
    """Bytes that came with a descriptor."""

    name = "inline data"

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read_at(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset``."""
        return self._data[offset : offset + count]

    def advise(self, in_order: bool) -> None:
        """Memory needs no advice."""

    def cancel(self) -> None:
        """Memory never waits."""

    def close(self) -> None:
        """Nothing to give back."""
