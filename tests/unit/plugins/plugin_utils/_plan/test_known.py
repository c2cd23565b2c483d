# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a container's files are: docs/behaviour.md, section 10."""

from __future__ import annotations

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.runtimes import RUNTIMES
from ansible_collections.hypervisor.oci.tests.unit.container_plans import planned


@pytest.mark.parametrize("runtime", list(RUNTIMES))
def test_places(runtime: str) -> None:
    places = planned(runtime, state_folder="/s", volumes_folder="/v", log_folder="/l")["places"]
    assert (places["own_folder"], places["own_volumes"]) == ("/s/web", "/v/web")
    assert (places["previous"], places["note"]) == ("/s/web/previous", "/s/web/volume.json")
    rootfs = {"lxc": "/var/lib/lxc/web/rootfs", "nspawn": "/var/lib/machines/web", "proxmox": "/var/lib/lxc/100/rootfs"}
    assert places["rootfs"] == rootfs.get(runtime, "/var/lib/hypervisor.oci/bundles/web/rootfs")
