# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``oci_rootfs`` is given by a task that sets only what the caller says: its own defaults for all else."""

from __future__ import annotations

import typing as t

from ansible.module_utils.common.text.formatters import human_to_bytes
from ansible_collections.hypervisor.oci.plugins.module_utils._options import options_from
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.node_source import node_source
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.offered import offered
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.options import Options
from ansible_collections.hypervisor.oci.plugins.modules.oci_rootfs import ARGUMENT_SPEC

# The same images on every machine, and no test that waits for minutes.
_OURS: dict[str, t.Any] = {"platform": "linux/amd64", "lock_timeout": 5}


def arguments(**given: t.Any) -> dict[str, t.Any]:
    """Arguments for ``options_of``."""
    values = {name: spec.get("default") for name, spec in ARGUMENT_SPEC.items()}
    for name in ("max_size", "cache_max_size"):
        values[name] = human_to_bytes(values[name])
    return {**values, **_OURS, **given}


def options_of(params: dict[str, t.Any]) -> Options:
    """The options of the module that the action plugin runs with these arguments."""
    return options_from(params, offered if params.get("_offer") else node_source)
