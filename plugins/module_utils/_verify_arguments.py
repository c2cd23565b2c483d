# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The arguments of a comparison of a tree with its image; ``_drift.options`` checks them."""

from __future__ import annotations

import typing as t

VERIFY_ARGUMENTS: dict[str, t.Any] = {
    "verify": {"type": "str", "choices": ["none", "metadata", "content"], "default": "none"},
    "verify_exclude": {"type": "list", "elements": "str"},
    "verify_exclude_extra": {"type": "list", "elements": "str"},
    "verify_timeout": {"type": "int", "default": 600},
}
REPAIR_ARGUMENTS: dict[str, t.Any] = {
    "repair": {"type": "str", "choices": ["none", "paths", "recreate"], "default": "none"}
}
