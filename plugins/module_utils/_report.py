# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The counts and warnings of a run."""

from __future__ import annotations

import typing as t


class Report:
    """Counts that grow while layers are applied (docs/behaviour.md, section 8).

    ``bytes`` counts file content without holes. ``gzip`` is the library that inflated gzip layers, or ``None``. ``count``
    adds to any kind of thing that was skipped, filtered or ignored.
    """

    def __init__(self) -> None:
        self.entries = 0
        self.files = 0
        self.bytes = 0
        self.whiteouts = 0
        self.gzip: str | None = None
        self.warnings: list[str] = []
        self._counts: dict[str, int] = {}

    def count(self, kind: str, number: int = 1) -> None:
        """Add ``number`` to the things of this ``kind``, a word in snake case."""
        self._counts[kind] = self._counts.get(kind, 0) + number

    def counted(self, kind: str) -> int:
        """Return how many things of this kind were counted."""
        return self._counts.get(kind, 0)

    def to_dict(self) -> dict[str, t.Any]:
        """Return the counts for the module's result and the record."""
        return {
            "entries": self.entries,
            "files": self.files,
            "bytes": self.bytes,
            "whiteouts": self.whiteouts,
            "gzip": self.gzip,
            "counts": dict(sorted(self._counts.items())),
        }

    @classmethod
    def from_dict(cls, value: dict[str, t.Any], warnings: t.Iterable[str] = ()) -> Report:
        """Return a report that goes on where another one ended, see ``to_dict``."""
        report = cls()
        for name in ("entries", "files", "bytes", "whiteouts", "gzip"):
            setattr(report, name, value[name])
        report.warnings = list(warnings)
        report._counts = dict(value["counts"])
        return report
