# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container whose runtime or place changes under one name: docs/behaviour.md, section 10."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import ContainerError
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.known import Node
from ansible_collections.hypervisor.oci.tests.unit.container_plans import (
    CASES,
    CONF,
    CONF_PATH,
    file_of,
    node_of,
    planned,
)

_MADE = "/var/lib/hypervisor.oci/containers/web/made.json"


def _node_with(text: str, systemd: bool = False) -> Node:
    return node_of(systemd, texts={_MADE: text, CONF_PATH: CONF, "/etc/pve/lxc/101.conf": CONF})


def _made(runtime: str, systemd: bool = False, **more: t.Any) -> str:
    made = file_of(planned(runtime, node=_node_with("", systemd), **more), "/made.json")
    assert (made["path"], made["mode"]) == (_MADE, "0600")
    text: str = made["content"]
    return text


@pytest.mark.parametrize(("runtime", "systemd"), CASES)
@pytest.mark.parametrize("state", ["started", "stopped", "present", "absent"])
def test_the_same_place(runtime: str, systemd: bool, state: str) -> None:
    text = _made(runtime, systemd)
    assert _MADE in planned(runtime, node=_node_with(text, systemd), state=state)["look"]


@pytest.mark.parametrize("state", ["started", "absent"])
@pytest.mark.parametrize(
    ("former", "now", "says"),
    [
        (("lxc", {}), ("runc", {}), "was made with the runtime 'lxc' and has its files at '/var/lib/lxc/web/config'"),
        (("nspawn", {}), ("lxc", {}), "the runtime 'nspawn' and has its files at '/etc/systemd/nspawn/web.nspawn'"),
        (("proxmox", {}), ("lxc", {}), "the runtime 'proxmox' and has its files at '/etc/pve/lxc/100.conf'"),
        (("proxmox", {}), ("proxmox", {"vmid": 101}), "has its files at '/etc/pve/lxc/100.conf', not at"),
        (("runc", {"folder": "/srv/a/web"}), ("runc", {}), "has its files at '/srv/a/web/config.json', not at"),
        (("lxc", {"rootfs": "/srv/web"}), ("lxc", {}), "has its files at '/srv/web', not at '/var/lib/lxc/web/rootfs'"),
    ],
)
def test_another_place_is_an_error(state: str, former: t.Any, now: t.Any, says: str) -> None:
    """It would leave the former container behind, running."""
    text = _made(former[0], **former[1])
    with pytest.raises(ContainerError) as caught:
        planned(now[0], node=_node_with(text), state=state, **now[1])
    said = str(caught.value)
    assert said.startswith("name: 'web' was made with") and says in said
    assert said.endswith(" and the state absent")


def test_runc_and_crun_share_a_place() -> None:
    assert planned("crun", node=_node_with(_made("runc")))["files"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}"])
def test_a_record_that_says_nothing(text: str) -> None:
    assert planned("lxc", node=_node_with(text))["files"]
