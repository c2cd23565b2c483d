# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Device nodes that give no access to the host (docs/behaviour.md, section 4)."""

from __future__ import annotations

# Major and minor numbers of null, zero, full, random, urandom, tty, console, ptmx, and overlayfs's whiteout.
SAFE_CHARACTER_DEVICES = frozenset([(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (0, 0)])
