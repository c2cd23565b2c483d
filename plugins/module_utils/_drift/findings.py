# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What differs between a tree and its image (docs/behaviour.md, section 17)."""

from __future__ import annotations

import os
import typing as t
from dataclasses import dataclass, field

from .._errors import visible

MISSING = "missing"
EXTRA = "extra"
CHANGED = "changed"
KINDS = (MISSING, EXTRA, CHANGED)

# The answer in one word.
CLEAN = "clean"
DRIFTED = "drifted"
SUSPECT = "suspect"
BUSY = "busy"
INCOMPLETE = "incomplete"
NOT_VERIFIABLE = "not verifiable"

METADATA = "metadata"
CONTENT = "content"

# Findings of a kind that a result shows, and that are kept; of files that give rights away, more are kept.
_MOST_SHOWN = 1_000
MOST_KEPT = 100_000
_LONGEST = 4096


class Finding(t.NamedTuple):
    """A path of the tree with what it is: ``file``, ``directory``, ``link``, ``fifo``, ``device`` or ``socket``.

    ``number`` is that of the recorded object, -1 for an extra one. ``differs`` names what has changed, ``recorded`` and
    ``found`` have its values. ``gives_rights`` is true for setuid and setgid files, capabilities and devices, as recorded or
    found. ``below`` is how many more objects lie in a missing or extra directory.
    """

    kind: str
    path: str
    type: str
    number: int = -1
    differs: tuple[str, ...] = ()
    recorded: t.Mapping[str, t.Any] = {}
    found: t.Mapping[str, t.Any] = {}
    gives_rights: bool = False
    below: int = 0

    def to_result(self) -> dict[str, t.Any]:
        """Return the finding for the module's result."""
        shown: dict[str, t.Any] = {"path": shown_path(self.path), "type": self.type}
        if self.kind == CHANGED:
            shown.update(differs=list(self.differs), recorded=dict(self.recorded), found=dict(self.found))
        if self.gives_rights:
            shown["gives_rights"] = True
        if self.below:
            shown["below"] = self.below
        return shown

    def to_line(self) -> str:
        """Return one line for a diff."""
        details = [f"{name} {self.recorded[name]} -> {self.found[name]}" for name in self.differs if name in self.found]
        others = [name for name in self.differs if name not in self.found]
        more = [f"and {self.below} in it"] if self.below else []
        text = ", ".join([*details, *others, *more])
        return f"{self.kind} {self.type} {shown_path(self.path)}" + (f": {text}" if text else "")


def shown_path(path: str) -> str:
    """Return a path of a tree for people: control characters and undecodable bytes are visible."""
    return visible(os.fsencode(path), _LONGEST)


def _order(finding: Finding) -> tuple[bool, str]:
    return not finding.gives_rights, finding.path


class Found:
    """Findings of one kind, within bounds of memory."""

    def __init__(self) -> None:
        self.count = 0
        self.kept: list[Finding] = []
        self._kept_rights = 0

    def add(self, finding: Finding) -> None:
        """Add a finding."""
        self.count += 1
        if len(self.kept) - self._kept_rights < MOST_KEPT:
            self.kept.append(finding)
        elif finding.gives_rights and self._kept_rights < MOST_KEPT:
            self._kept_rights += 1
            self.kept.append(finding)

    def sorted(self) -> list[Finding]:
        """Return what is kept, with files that give rights away first."""
        return sorted(self.kept, key=_order)

    @property
    def is_whole(self) -> bool:
        """Return whether all findings are kept."""
        return len(self.kept) == self.count


@dataclass
class Drift:
    """The result of a comparison. ``level`` is what was compared: ``metadata`` or ``content``.

    ``suspects`` are regular files, by number, that were touched since, and whose content was not compared; ``busy`` are
    paths that changed while they were looked at. ``entries`` is how many objects the image has in what was looked at.
    ``reason`` says why it is incomplete or not verifiable.
    """

    level: str = METADATA
    kinds: dict[str, Found] = field(default_factory=lambda: {kind: Found() for kind in KINDS})
    suspects: dict[int, str] = field(default_factory=dict)
    busy: list[str] = field(default_factory=list)
    busy_count: int = 0
    entries: int = 0
    files: int = 0
    incomplete: str = ""
    not_verifiable: str = ""

    def add(self, finding: Finding) -> None:
        """Add a finding."""
        self.kinds[finding.kind].add(finding)

    def add_difference(self, finding: Finding, place: int | None) -> None:
        """Add a finding of something changed, or what differs to the one that is at this place among those kept."""
        if place is None:
            self.add(finding)
            return
        kept = self.kinds[CHANGED].kept
        kept[place] = kept[place]._replace(differs=kept[place].differs + finding.differs)

    def add_busy(self, path: str) -> None:
        """Add a path that changed while it was looked at."""
        self.busy_count += 1
        if len(self.busy) < _MOST_SHOWN:
            self.busy.append(path)

    @property
    def has_findings(self) -> bool:
        """Return whether anything differs."""
        return any(found.count for found in self.kinds.values())

    @property
    def needs_repair(self) -> bool:
        """Return whether anything of the image is missing or changed; extra files alone are never a reason."""
        return bool(self.kinds[MISSING].count or self.kinds[CHANGED].count)

    @property
    def verdict(self) -> str:
        """Return the answer in one word."""
        states = (
            (self.has_findings, DRIFTED),
            (bool(self.not_verifiable), NOT_VERIFIABLE),
            (bool(self.incomplete), INCOMPLETE),
            (bool(self.busy_count), BUSY),
            (bool(self.suspects), SUSPECT),
        )
        return next((word for holds, word in states if holds), CLEAN)

    @property
    def are_most_suspect(self) -> bool:
        """Return whether most files were touched, as after a backup was restored."""
        return len(self.suspects) > max(20, self.files // 2)

    def to_result(self) -> dict[str, t.Any]:
        """Return what the module's result shows."""
        return {
            "verdict": self.verdict,
            "verified": self.level,
            "entries": self.entries,
            **{
                kind: {"count": found.count, "files": [finding.to_result() for finding in found.sorted()[:_MOST_SHOWN]]}
                for kind, found in self.kinds.items()
            },
            "suspects": {
                "count": len(self.suspects),
                "most": self.are_most_suspect,
                "paths": [] if self.are_most_suspect else _shown(sorted(self.suspects.values())),
            },
            "busy": {"count": self.busy_count, "paths": _shown(sorted(self.busy))},
            "reason": self.not_verifiable or self.incomplete or None,
        }

    def to_lines(self) -> list[str]:
        """Return the findings for a diff."""
        findings = [finding for found in self.kinds.values() for finding in found.sorted()]
        return [finding.to_line() for finding in sorted(findings, key=_order)]


def _shown(paths: t.Sequence[str]) -> list[str]:
    return [shown_path(path) for path in paths[:_MOST_SHOWN]]
