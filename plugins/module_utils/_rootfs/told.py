# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What layers have told while they were applied, for a later one to go on with."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass


@dataclass(frozen=True)
class Told:
    """What the layers of a tree have told while they were applied, as values of JSON: a later layer goes on from there.

    ``report`` are the counts, ``budget`` what has been used of the limits, ``candidates`` what may belong into the inventory.
    """

    report: dict[str, t.Any]
    budget: dict[str, int]
    candidates: dict[str, t.Any]
