# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proxmox VE for the role: docs/behaviour.md, section 10."""

from __future__ import annotations

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import ContainerError
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.plan import plan
from ansible_collections.hypervisor.oci.tests.unit.container_plans import CONF, NOTE_PATH, node_of, planned, request_of


def test_it_edits_the_file_of_the_manager() -> None:
    result = planned("proxmox", proxmox_settings={"memory": 64})
    assert result["is_managed"]
    assert result["former_configuration"] == CONF
    assert result["configuration_differs"]
    assert "memory: 64\n" in result["configuration"]
    assert "onboot: 1\n" in result["configuration"]
    assert "onboot: 0\n" in planned("proxmox", state="stopped")["configuration"]
    assert "/etc/pve/lxc/100.conf" not in result["removed"] + [item["path"] for item in result["files"]]
    assert result["volume_commands"] == {"mount": ["pct", "mount", "100"], "unmount": ["pct", "unmount", "100"]}


def test_its_logs_are_where_every_node_of_a_cluster_has_a_folder() -> None:
    """LXC does not start a container whose log it cannot open, and the container may move to a node without the role."""
    text = planned("proxmox", log_folder="/srv/log")["configuration"]
    assert "lxc.log.file: /var/log/lxc/100.oci.log.lxc\nlxc.log.level: INFO\n" in text
    assert "lxc.console.logfile: /var/log/lxc/100.oci.log\n" in text
    script = next(item for item in planned("proxmox")["files"] if item["path"].endswith("/control"))
    assert "log=/var/log/lxc/100.oci.log\n" in script["content"]
    own = planned("proxmox", proxmox_settings={"lxc.log.level": "ERROR", "lxc.console.logfile": None})["configuration"]
    assert "lxc.log.level: ERROR\n" in own and "lxc.console.logfile" not in own


@pytest.mark.parametrize("vmid", [None, 0, 99, "x"])
def test_a_number_is_required(vmid: object) -> None:
    with pytest.raises(ContainerError, match="^vmid "):
        plan(request_of("proxmox", vmid=vmid))


def test_a_container_that_does_not_exist() -> None:
    with pytest.raises(ContainerError, match="^vmid: this node has no container 100; create it with pct create"):
        planned("proxmox", node=node_of(texts={}))


def test_former_mounts_are_removed() -> None:
    """Those that the last run noted, and no others."""
    conf = CONF + "mp0: /srv/a,mp=/old\nmp1: /srv/b,mp=/kept\n"
    note = '{"places": {"mounts": [{"source": "/srv/a", "target": "/old"}]}}'
    node = node_of(texts={"/etc/pve/lxc/100.conf": conf, NOTE_PATH: note})
    text = planned("proxmox", node=node)["configuration"]
    assert "mp=/old" not in text
    assert "mp1: /srv/b,mp=/kept\n" in text


def test_its_volume_is_not_compared() -> None:
    with pytest.raises(ContainerError, match="^verify: the root file system lies in a volume"):
        planned("proxmox", verify="metadata")
