# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Register secrets with Ansible, if its version supports that.

From 2.22 on, ansible-core masks registered text in everything that it logs or shows, and results keep it. Earlier versions
remove the values of ``no_log`` options from results, wherever they occur: a short value would also be removed from an
image's facts. So nothing is registered there, and this collection masks its secrets itself.
"""

from __future__ import annotations

import typing as t

try:
    from ansible.module_utils.secrets import register_secrets  # type: ignore[import-not-found]
except ImportError:
    register_secrets = None

# What is shown instead of a secret, and instead of one that is another now.
MASK = "********"
CHANGED = f"{MASK} (changed)"

# Shorter text is no secret, but a part of many words.
_SHORTEST = 4


def register(values: t.Iterable[str | None]) -> None:
    """Register values to mask; Ansible knows those of ``no_log`` options already."""
    if register_secrets is not None:
        register_secrets([value for value in values if value and len(value) >= _SHORTEST])
