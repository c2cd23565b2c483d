# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files that describe a container: docs/behaviour.md, section 10."""

from __future__ import annotations

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.known import Root
from ansible_collections.hypervisor.oci.tests.unit.container_plans import CASES, IMAGE, MAPS, file_of, node_of, planned


@pytest.mark.parametrize(("runtime", "systemd"), CASES)
def test_which_files(runtime: str, systemd: bool) -> None:
    names = {item["path"].rpartition("/")[2] for item in planned(runtime, node=node_of(systemd))["files"]}
    unit = {"runc": "hypervisor-oci-web.service", "crun": "hypervisor-oci-web.service"}.get(
        runtime, "hypervisor.oci.conf"
    )
    wanted = {"lxc": {"config", "exec"}, "nspawn": {"web.nspawn", "exec"}, "proxmox": {"volume.json", "exec"}}.get(
        runtime, {"config.json"}
    )
    if runtime != "proxmox":
        wanted |= {"hosts", "hostname", "resolv.conf", *([unit] if systemd else [])}
    assert names == wanted | {"control"}


def test_the_wrapper_belongs_to_the_containers_user() -> None:
    wrapper = file_of(planned("lxc", **MAPS), "/exec")
    assert (wrapper["mode"], wrapper["owner"], wrapper["shown"]) == ("0400", 101000, "script")
    assert file_of(planned("lxc"), "/exec")["owner"] == 1000


def test_a_wrapper_that_is_not_needed() -> None:
    result = planned("lxc", root=Root({"image": {**IMAGE, "cmd": ["/bin/app"]}}))
    assert not [item for item in result["files"] if item["path"].endswith("/exec")]
