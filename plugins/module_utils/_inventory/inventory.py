# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory of a tree: files that give rights away, by kind (docs/behaviour.md, section 13)."""

from __future__ import annotations

import json
import typing as t
import zlib
from dataclasses import dataclass

SETUID = "setuid"
SETGID = "setgid"
CAPABILITIES = "capabilities"
DEVICES = "devices"
WORLD_WRITABLE = "world_writable"
UNOWNED = "unowned"
KINDS = (SETUID, SETGID, CAPABILITIES, DEVICES, WORLD_WRITABLE, UNOWNED)

# Findings of one kind that are kept with their paths; an image with more of a judged kind is refused.
MOST_KEPT = 100_000
# Bytes of all paths that are kept.
_MOST_BYTES = 32 * 1024 * 1024
# Findings of one kind that a result shows.
_MOST_SHOWN = 1_000
# An inventory as it is stored is never larger than this when it is decompressed.
_MOST_STORED = 256 * 1024 * 1024

Detail = t.Dict[str, t.Any]


class InventoryError(ValueError):
    """A stored inventory that cannot be read."""


class Finding(t.NamedTuple):
    """One file: its absolute path in the root, with undecodable bytes as ``os.fsdecode`` gives them.

    ``detail`` depends on the kind: ``uid`` or ``gid`` in the container for set-id files; ``permitted`` and
    ``inheritable`` (names), ``effective`` (a boolean) and perhaps ``root_id`` for capabilities; ``device`` (``c 1:3``);
    ``type`` (``file`` or ``directory``) for world-writable ones; ``uid`` and ``gid`` for unowned ones.
    """

    path: str
    detail: Detail


@dataclass(frozen=True)
class Inventory:
    """The findings of each kind, sorted by path, and how many there are; beyond ``MOST_KEPT`` only the count is known."""

    findings: dict[str, tuple[Finding, ...]]
    counts: dict[str, int]

    def is_whole(self, kind: str) -> bool:
        """Return whether the paths of all files of this kind are known."""
        return len(self.findings[kind]) == self.counts[kind]

    def to_result(self) -> dict[str, t.Any]:
        """Return count and files of each kind for the module's result, not more than 1,000 files of a kind."""
        return {
            kind: {
                "count": self.counts[kind],
                "files": [{"path": finding.path, **finding.detail} for finding in self.findings[kind][:_MOST_SHOWN]],
            }
            for kind in KINDS
        }

    @property
    def is_shown(self) -> bool:
        """Return whether ``to_result`` shows all that is known."""
        return all(len(findings) <= _MOST_SHOWN for findings in self.findings.values())

    def to_bytes(self) -> bytes:
        """Return the whole inventory, compressed, to be stored."""
        return zlib.compress(json.dumps({"findings": self.findings, "counts": self.counts}).encode("ascii"), 6)


class Collector:
    """Collects findings into an inventory, within bounds of memory."""

    def __init__(self) -> None:
        self._findings: dict[str, list[Finding]] = {kind: [] for kind in KINDS}
        self._counts = dict.fromkeys(KINDS, 0)
        self._size = 0

    def add(self, kind: str, path: str, detail: Detail) -> None:
        """Add a file."""
        self._counts[kind] += 1
        kept = self._findings[kind]
        self._size += len(path)
        if len(kept) < MOST_KEPT and self._size <= _MOST_BYTES:
            kept.append(Finding(path, detail))

    def inventory(self) -> Inventory:
        """Return what was added."""
        findings = {kind: tuple(sorted(kept, key=_path_of)) for kind, kept in self._findings.items()}
        return Inventory(findings, dict(self._counts))


def _path_of(finding: Finding) -> str:
    return finding.path


def inventory_from_result(shown: t.Mapping[str, t.Any]) -> Inventory:
    """Return the inventory that a recorded result shows."""
    findings = {kind: tuple(_from_shown(item) for item in shown[kind]["files"]) for kind in KINDS}
    return Inventory(findings, {kind: shown[kind]["count"] for kind in KINDS})


def _from_shown(item: Detail) -> Finding:
    return Finding(item["path"], {key: item[key] for key in item if key != "path"})


def inventory_from(data: bytes) -> Inventory:
    """Parse a stored inventory. Raises ``InventoryError``."""
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(data, _MOST_STORED)
        if unpacker.unconsumed_tail:
            raise InventoryError(f"it is larger than {_MOST_STORED} bytes")
        value = json.loads(text)
        return Inventory(
            {
                kind: tuple(Finding(str(path), dict(detail)) for path, detail in value["findings"][kind])
                for kind in KINDS
            },
            {kind: int(value["counts"][kind]) for kind in KINDS},
        )
    except (zlib.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InventoryError(str(error)) from error
