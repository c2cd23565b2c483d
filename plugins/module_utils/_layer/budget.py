# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Limits that all layers of one image share: bytes, entries, and extended headers."""

from __future__ import annotations

import typing as t

from .._errors import LayerError

# Entries that an image may hold regardless of its size, and the bytes of blobs that each further one needs: entries
# that compress better than this are repetitions, made to cost time.
_FREE_ENTRIES = 250_000
_STORED_PER_ENTRY = 4
# Directories without an entry, which a name or link implies at the cost of few bytes: some, and more with each entry.
_FREE_IMPLIED = 20_000
_IMPLIED_PER_ENTRY = 4
# Bytes of extended headers, header blocks included, and records in them: some, and more with each entry.
# Parsing costs time for each record, however small.
_FREE_EXTENDED = 64 * 1024 * 1024
_EXTENDED_PER_ENTRY = 4096
_FREE_RECORDS = 1_000_000
_RECORDS_PER_ENTRY = 32


COUNTS = ("stored", "size", "holes", "entries", "implied", "extended", "records")


class Budget:
    """Count bytes, entries and headers of all layers of one image (docs/behaviour.md, section 7).

    ``max_size`` is in bytes of decompressed layers; a sparse file counts with its apparent size.
    """

    def __init__(self, max_size: int, max_entries: int) -> None:
        self.max_size = max_size
        self.max_entries = max_entries
        self.stored = 0
        self.size = 0
        self.holes = 0
        self.entries = 0
        self.implied = 0
        self.extended = 0
        self.records = 0

    def to_dict(self) -> dict[str, int]:
        """Return what has been used, without the limits."""
        return {name: getattr(self, name) for name in COUNTS}

    def go_on_from(self, used: t.Mapping[str, int]) -> None:
        """Count what earlier layers have used, see ``to_dict``."""
        for name in COUNTS:
            setattr(self, name, used[name])

    # only one thread adds to each count

    def add_stored(self, number: int) -> None:
        """Count bytes of a stored blob, before its decompressed bytes."""
        self.stored += number

    def add_bytes(self, number: int, layer: str) -> None:
        """Count bytes of a decompressed layer. Raises ``LayerError``."""
        self.size += number
        self._check_size(layer)

    def add_hole(self, number: int, layer: str, entry: bytes) -> None:
        """Count bytes in the holes of a sparse file. Raises ``LayerError``."""
        self.holes += number
        self._check_size(layer, entry)

    def _check_size(self, layer: str, entry: bytes | None = None) -> None:
        if self.size + self.holes > self.max_size:
            raise LayerError(
                f"the image's layers hold more than {self.max_size} bytes when decompressed",
                layer,
                entry,
                "raise max_size if you trust this image",
            )

    def add_entry(self, layer: str, entry: bytes | None = None) -> None:
        """Count one entry. Raises ``LayerError``."""
        self.entries += 1
        if self.entries > self.max_entries:
            raise LayerError(
                f"the image's layers hold more than {self.max_entries} entries",
                layer,
                entry,
                "raise max_entries if you trust this image",
            )
        if self.entries > _FREE_ENTRIES + self.stored // _STORED_PER_ENTRY:
            raise LayerError(
                f"the image's layers hold more than {_FREE_ENTRIES} entries, and one for each {_STORED_PER_ENTRY} bytes of"
                " their blobs, a fixed limit",
                layer,
                entry,
                "build the image without repeated entries, or compress its layers less",
            )

    def add_implied(self, layer: str) -> None:
        """Count one directory without an entry of its own; it counts as an entry, too. Raises ``LayerError``."""
        self.add_entry(layer)
        self.implied += 1
        explicit = self.entries - self.implied
        if self.implied > _FREE_IMPLIED + _IMPLIED_PER_ENTRY * explicit:
            raise LayerError(
                f"the image's names and links imply more than {_FREE_IMPLIED} directories, and {_IMPLIED_PER_ENTRY} for each"
                " entry, a fixed limit",
                layer,
                advice="build the image with entries for its directories",
            )

    def add_extended(self, number: int, layer: str, entry: bytes | None) -> None:
        """Count bytes of an extended header. Raises ``LayerError``."""
        self.extended += number
        if self.extended > _FREE_EXTENDED + _EXTENDED_PER_ENTRY * self.entries:
            raise LayerError(
                f"the image's extended headers hold more than {_FREE_EXTENDED} bytes, and {_EXTENDED_PER_ENTRY} for each"
                " entry, a fixed limit",
                layer,
                entry,
                "build the image with shorter ones",
            )

    def add_records(self, number: int, layer: str, entry: bytes | None) -> None:
        """Count pax records. Raises ``LayerError``."""
        self.records += number
        if self.records > _FREE_RECORDS + _RECORDS_PER_ENTRY * self.entries:
            raise LayerError(
                f"the image's extended headers hold more than {_FREE_RECORDS} records, and {_RECORDS_PER_ENTRY} for each"
                " entry, a fixed limit",
                layer,
                entry,
                "build the image with fewer of them",
            )
