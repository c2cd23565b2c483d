# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""LXC for the role: docs/behaviour.md, section 10."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import ContainerError
from ansible_collections.hypervisor.oci.tests.unit.container_plans import MAPS, file_of, node_of, planned
from ansible_collections.hypervisor.oci.tests.unit.lxc_settings import Misread, require_known

_SECCOMP = "/usr/share/lxc/config/common.seccomp"


def test_a_line_of_the_administrator_replaces_its_kind() -> None:
    text = file_of(planned("lxc"), "/config")["content"]
    assert "lxc.net.0.type = empty\n" in text
    assert "lxc.cgroup2.devices.allow = c 136:* rwm\n" in text
    text = file_of(planned("lxc", lxc_settings=["lxc.net.0.type = veth"]), "/config")["content"]
    assert "empty" not in text
    result = planned("lxc", **MAPS)
    assert "devices.allow" not in file_of(result, "/config")["content"]
    assert result["id_ranges"] == [
        {"path": "/etc/subuid", "line": "root:100000:65536"},
        {"path": "/etc/subgid", "line": "root:100000:65536"},
    ]
    assert file_of(result, "/exec")["owner"] == 101000


@pytest.mark.parametrize(
    ("version", "legacy"), [(None, True), ("5.0.2", True), ("6.0.4", True), ("7.0.0", False), ("7.0", False)]
)
def test_keys_of_cgroup_v1_only_where_lxc_knows_them(version: str | None, legacy: bool) -> None:
    """LXC 7 does not load a configuration with them."""
    text = file_of(planned("lxc", node=node_of(version=version)), "/config")["content"]
    assert ("lxc.cgroup.devices.deny" in text) is legacy
    assert "lxc.cgroup2.devices.deny = a\n" in text


@pytest.mark.parametrize("version", ["5.0.0", "6.0.0", "7.0.0"])
@pytest.mark.parametrize("maps", [{}, MAPS])
def test_each_release_knows_all_keys(version: str, maps: dict[str, t.Any]) -> None:
    """By the table of keys of each release."""
    settings = ["lxc.prlimit.nofile = 1024", "lxc.cgroup2.memory.max = 1G"]
    node = node_of(version=version, paths=frozenset([_SECCOMP]))
    text = file_of(planned("lxc", node=node, lxc_settings=settings, **maps), "/config")["content"]
    require_known(text, version)


def test_a_key_of_cgroup_v1_is_not_for_release_7() -> None:
    with pytest.raises(Misread, match=r"LXC 7\.0\.0 does not know cgroup\.memory\.limit"):
        require_known("lxc.cgroup.memory.limit = 1\n", "7.0.0")
    with pytest.raises(Misread):
        require_known("lxc.environment.runtime = A=1\n", "6.0.0")
    require_known("lxc.cgroup.relative = 1\n", "7.0.0")


def test_the_unit_does_not_open_the_folder_of_all_containers() -> None:
    """The unit of LXC 7 has StateDirectory=lxc, by which systemd sets /var/lib/lxc to 0755 at each start."""
    unit = file_of(planned("lxc", node=node_of(systemd=True)), "hypervisor.oci.conf")["content"]
    assert "\n[Service]\nStateDirectory=\n" in unit


def test_system_calls_are_filtered_where_lxc_brings_a_filter() -> None:
    assert "seccomp" not in file_of(planned("lxc"), "/config")["content"]
    text = file_of(planned("lxc", node=node_of(paths=frozenset([_SECCOMP]))), "/config")["content"]
    assert f"lxc.seccomp.profile = {_SECCOMP}\n" in text


def test_it_starts_with_the_node_without_systemd() -> None:
    assert "lxc.start.auto = 1\n" in file_of(planned("lxc"), "/config")["content"]
    for other in (planned("lxc", autostart=False), planned("lxc", state="stopped"), planned("lxc", node=node_of(True))):
        assert "lxc.start.auto" not in file_of(other, "/config")["content"]


def test_the_folder_has_the_containers_name() -> None:
    with pytest.raises(ContainerError, match="^folder: '/srv/other' must end with the container's name 'web'"):
        planned("lxc", folder="/srv/other")
    with pytest.raises(ContainerError, match="^settings: the value contains a control character"):
        planned("lxc", lxc_settings=["a\nb"])
