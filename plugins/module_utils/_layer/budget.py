# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""The two limits that the user may raise: decompressed bytes and entries of an image."""

from __future__ import annotations

from ansible_collections.hypervisor.oci.plugins.module_utils._errors import LayerError


class Budget:
    """Counts what all layers of one image bring, and stops a hostile one (docs/behaviour.md, section 7).

    C(max_size) is in bytes of decompressed layers, where a sparse file counts with its apparent size.
    """

    def __init__(self, max_size: int, max_entries: int) -> None:
        self.max_size = max_size
        self.max_entries = max_entries
        self.size = 0
        self.holes = 0
        self.entries = 0

    # each count has one thread that adds to it

    def add_bytes(self, number: int, layer: str) -> None:
        """Count bytes of a layer's stream. Raises C(LayerError) that names the layer and the option."""
        self.size += number
        self._check_size(layer)

    def add_hole(self, number: int, layer: str, entry: bytes) -> None:
        """Count bytes of a sparse file that stand nowhere. Raises C(LayerError)."""
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
        """Count one entry, or one directory that an entry implies. Raises C(LayerError)."""
        self.entries += 1
        if self.entries > self.max_entries:
            raise LayerError(
                f"the image's layers hold more than {self.max_entries} entries",
                layer,
                entry,
                "raise max_entries if you trust this image",
            )
