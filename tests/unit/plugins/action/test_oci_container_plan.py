# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The action of the role: its words for variables, and what it makes of results of tasks (docs/behaviour.md, section 10)."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.action import oci_container_plan as action
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import ContainerError, Option
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.plan import plan
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.request import parse_request
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.runtimes import OWN_VARIABLES


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"command": "httpd -f"}, "container_command must be a list of strings"),
        ({"env": {"FLAG": True}}, "container_env.FLAG must be a string; put it between quotes"),
        ({"uid_map": ["0:1:1"]}, "container_uid_map and container_gid_map belong together; set both or neither"),
        (
            {"runtime": "lxc", "lxc_settings": ["a\nb"]},
            "container_lxc_settings: the value contains a control character",
        ),
        ({"runtime": "nspawn", "nspawn_settings": {"Exec": 1}}, "container_nspawn_settings.Exec must be a mapping"),
        ({"runtime": "proxmox", "vmid": 5}, "container_vmid is missing"),
        ({"mounts": [{"source": "/a", "target": "/b", "x": 1}]}, "container_mounts: unknown key 'x'"),
        ({"name": "a b"}, "container_name: invalid container name 'a b'"),
        ({"runtime": "docker"}, "container_runtime must be one of"),
        ({"nmae": "web"}, "container_nmae is not a variable of this role; did you mean container_name?"),
    ],
)
def test_messages_name_the_roles_variables(given: dict[str, t.Any], says: str) -> None:
    variables = {"name": "web", "runtime": "runc", "src": "a.tar", **given}
    with pytest.raises(ContainerError) as caught:
        plan(parse_request(variables, OWN_VARIABLES))
    assert action._in_role(caught.value, variables).startswith(says)


def test_what_is_no_option_keeps_its_name() -> None:
    """Neither a field of the image nor foreign text is taken for a variable."""
    error = ContainerError(
        Option("image.env.command"), ": 'command' and settings; set ", Option("command"), " or uid_map"
    )
    assert action._in_role(error, {}) == "image.env.command: 'command' and settings; set container_command or uid_map"
    assert error.message == "image.env.command: 'command' and settings; set command or uid_map"


def test_the_root_from_results_of_tasks() -> None:
    assert action._root(None) is None
    assert action._root({"result": {}}) is None
    root = action._root({"result": {"image": {}}, "user_info": {}, "key": ""})
    assert root is not None
    assert (root.user_info, root.mounts, root.key) == (None, None, None)
    known = action._root({"result": {"image": {}}, "mounts": []})
    assert known is not None
    assert known.mounts == []


def test_plain_types() -> None:
    class Lazy(dict):  # type: ignore[type-arg]
        pass

    assert not isinstance(action._plain(Lazy(a=(1, [Lazy()])))["a"][1][0], Lazy)
