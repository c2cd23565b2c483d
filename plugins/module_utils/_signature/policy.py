# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task asks of signatures, and whether the keys that signed satisfy it (docs/behaviour.md, section 12)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .identity import Identity

# The references that each key has signed, by the key's fingerprint; empty for signatures that name no image.
Signers = t.Mapping[str, t.Sequence[str]]


@dataclass(frozen=True)
class Policy:
    """How many (``threshold``) of the keys with these fingerprints must have signed, and which image they must name."""

    keys: tuple[str, ...]
    threshold: int = 1
    identity: Identity | None = None

    def count(self, signers: Signers) -> int:
        """Return how many different keys of the task have signed, and named the image if they must."""
        return sum(1 for key in set(self.keys) if key in signers and self._names(signers[key]))

    def is_met_by(self, signers: Signers) -> bool:
        """Return whether these signers satisfy the task."""
        return self.count(signers) >= self.threshold

    def _names(self, references: t.Sequence[str]) -> bool:
        return self.identity is None or any(map(self.identity.is_named_by, references))


def merge_signers(*several: Signers) -> dict[str, list[str]]:
    """Return all signers together, each with all references that it has signed."""
    merged: dict[str, list[str]] = {}
    for signers in several:
        for key, references in signers.items():
            known = merged.setdefault(key, [])
            known.extend(reference for reference in references if reference not in known)
    return {key: sorted(merged[key]) for key in sorted(merged)}
