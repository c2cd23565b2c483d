# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put back what differs in the tree at dest, path by path (docs/behaviour.md, section 17)."""

from __future__ import annotations

import typing as t

from .._drift.compare import Compared
from .._drift.findings import CHANGED, MISSING
from .._drift.options import Verifying
from .._drift.repair import Plan, Repair
from .._errors import show
from .._report import Report
from .._rootfs.attributes import Policy
from .._unpack import DamagedEntry
from .reread import Reread
from .target import Target
from .verify import Basis, compare_metadata, note_proven, opening


def repair_paths(target: Target, basis: Basis, compared: Compared, layers: Reread) -> list[str]:
    """Repair what was found; return warnings. Raises ``OciError``, and ``OSError``."""
    drift = compared.drift
    findings = [finding for kind in (MISSING, CHANGED) for finding in drift.kinds[kind].kept]
    repairs = Plan(basis.recorded, basis.rules, findings, compared.equal)
    with opening(target.dest, writing=True) as top:
        while True:
            try:
                sound = Repair(top, basis.recorded, Policy(Report(), basis.options), repairs).run(layers)
                break
            except DamagedEntry:
                # it is gone from the cache, and comes from the source now
                continue
    after = compare_metadata(target.dest, basis, t.cast(Verifying, target.options.verifying))
    tree = target.dest.load().tree
    if tree is not None and not target.options.ignore_use:
        # nobody uses the tree: what was made now is as it should be
        note_proven(
            target.dest, tree, basis, {number: after.suspects[number] for number in sound & after.suspects.keys()}
        )
    if after.drift.needs_repair:
        return [f"{show(target.dest.path)} differs again after it was repaired; stop what changes it, and run again"]
    return []
