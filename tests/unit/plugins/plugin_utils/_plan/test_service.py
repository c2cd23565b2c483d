# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Units, and what starts with the node: docs/behaviour.md, section 10."""

from __future__ import annotations

import re
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import ContainerError
from ansible_collections.hypervisor.oci.tests.unit.container_plans import file_of, node_of, planned

_SERVED = ["lxc", "nspawn", "runc", "crun"]


def _under_systemd(runtime: str, **more: t.Any) -> dict[str, t.Any]:
    return planned(runtime, node=node_of(systemd=True), **more)


def test_units_expand_nothing() -> None:
    unit = file_of(_under_systemd("runc", folder="/b/%n $HOME"), ".service")
    assert 'run --bundle "/b/%%n $$HOME" web\n' in unit["content"]
    assert "KillSignal=SIGQUIT\n" in unit["content"]
    assert unit["content"].endswith("[Install]\nWantedBy=multi-user.target\n")
    drop_in = file_of(_under_systemd("lxc"), "hypervisor.oci.conf")
    assert "lxc-start -F -n web -P " in drop_in["content"]


def test_unless_stopped_is_always_for_systemd() -> None:
    unit = file_of(_under_systemd("runc", restart="unless-stopped"), ".service")
    assert "\nRestart=always\n" in unit["content"]
    with pytest.raises(ContainerError, match="^restart: 'always' needs systemd"):
        planned("runc", restart="always")


@pytest.mark.parametrize("runtime", _SERVED)
@pytest.mark.parametrize(
    ("more", "enabled"),
    [({}, True), ({"autostart": False}, False), ({"state": "stopped"}, False), ({"state": "present"}, None)],
)
def test_what_starts_with_the_node(runtime: str, more: dict[str, t.Any], enabled: bool | None) -> None:
    service = _under_systemd(runtime, **more)["service"]
    assert service["enabled"] is enabled
    assert service["unit"] in service["units"]
    assert ("machines.target" in service["units"]) is (runtime == "nspawn" and bool(enabled))
    note = planned(runtime, **more)["service"]["note"]
    assert bool(note) is (runtime != "lxc" and not more)


@pytest.mark.parametrize(
    ("text", "runs", "stays"),
    [
        ("ActiveState=active\nNRestarts=0", True, True),
        ("ActiveState=active\nNRestarts=2", True, False),
        ("NRestarts=0\nActiveState=active", True, True),
        ("ActiveState=activating\nNRestarts=0", True, False),
        ("ActiveState=deactivating\nNRestarts=0", True, False),
        ("ActiveState=failed\nNRestarts=0", False, False),
        ("ActiveState=inactive\nNRestarts=0", False, False),
    ],
)
def test_what_systemd_says_of_a_unit(text: str, runs: bool, stays: bool) -> None:
    service = _under_systemd("runc")["service"]
    assert bool(re.search(service["running"], text)) is runs
    assert bool(re.search(service["stays"], text)) is stays


@pytest.mark.parametrize("runtime", _SERVED)
def test_absent_removes_the_unit(runtime: str) -> None:
    service = _under_systemd(runtime, state="absent")["service"]
    assert service["removed"] in (service["unit_file"], service["unit_file"].rpartition("/")[0])
    assert "web" in service["removed"].rpartition("/")[2]
