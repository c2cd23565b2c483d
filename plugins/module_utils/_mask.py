# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The text that a diff shows instead of a secret value."""

from __future__ import annotations

MASK = "********"
CHANGED = f"{MASK} (changed)"
