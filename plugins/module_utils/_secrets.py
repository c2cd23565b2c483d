# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Telling Ansible what is secret, where it can be told.

From ansible-core 2.22 on, registered text is masked in whatever Ansible logs or shows, and results keep it. Before that,
Ansible takes the values of ``no_log`` options out of results themselves, by what they are: a short one would also be taken
out of an image's facts. So nothing more is told to it there, and what is secret is masked by us before it gets there.
"""

from __future__ import annotations

import typing as t

try:
    from ansible.module_utils.secrets import register_secrets  # type: ignore[import-not-found]
except ImportError:
    register_secrets = None

# Shorter text is no secret, but a part of many words.
_SHORTEST = 4


def register(values: t.Iterable[str | None]) -> None:
    """Let Ansible mask these values from now on, where it knows how to; those of ``no_log`` options it knows already."""
    if register_secrets is not None:
        register_secrets([value for value in values if value and len(value) >= _SHORTEST])
