# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role's variables, parsed: docs/behaviour.md, section 10."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import ContainerError
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.request import parse_request
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.runtimes import OWN_VARIABLES
from ansible_collections.hypervisor.oci.tests.unit.container_plans import request_of


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"runtime": "docker"}, "runtime must be one of lxc, nspawn, runc, crun, proxmox, not 'docker'"),
        ({"name": "web\n"}, "name: invalid container name 'web\\n'"),
        ({"name": ""}, "name is missing"),
        ({"src": ""}, "src is missing"),
        ({"keep": -1}, "keep must not be negative"),
        ({"stop_timeout": "soon"}, "stop_timeout must be a whole number"),
        ({"stop_timeout": True}, "stop_timeout must be a whole number"),
        ({"force": "perhaps"}, "force must be true or false"),
        ({"user": ["a"]}, "user must be a string"),
        ({"user": True}, "user must be a string"),
        ({"env": ["A=1"]}, "env must be a mapping"),
        ({"mounts": {"source": "/a"}}, "mounts must be a list of mappings"),
        ({"mounts": ["/a"]}, "mounts must be a list of mappings"),
        ({"entrypoint": [["a"]]}, "entrypoint must be a list of strings"),
        ({"dns": ["1.1.1.1\nsearch x"]}, "dns: the value contains a control character"),
        ({"extra_hosts": {"a\nb": "1.1.1.1"}}, "extra_hosts: the value contains a control character"),
        ({"reachable": "yes"}, "reachable must be one of"),
        ({"fetch": "me"}, "fetch must be one of node, controller, not 'me'"),
        ({"verify": "all"}, "verify must be one of none, metadata, content, not 'all'"),
        ({"repair": "paths"}, "repair needs verify, metadata or content"),
        ({"rootfs_options": {"verify": "content"}}, "rootfs_options.verify has a variable of its own; set verify"),
        ({"rootfs_options": {"repair": "none"}}, "rootfs_options.repair has a variable of its own; set repair"),
        ({"lxc_settings": "lxc.net.0.type = none"}, "lxc_settings must be a list of strings"),
        ({"state_folder": "/"}, "state_folder: '/' is not an absolute path below /"),
        ({"qqq": 1}, "container_qqq is not a variable of this role; the role's README lists them"),
    ],
)
def test_what_is_refused(given: dict[str, t.Any], says: str) -> None:
    with pytest.raises(ContainerError) as caught:
        request_of(**{"runtime": "runc", **given})
    assert says in caught.value.message
    assert caught.value.message.isprintable()


def test_yaml_is_taken_as_it_was_meant() -> None:
    request = request_of("lxc", restart=False, user=1000, stop_timeout="5", wrapper="no", command=[1, "a"], vmid="")
    assert (request.restart, request.user, request.stop_timeout, request.wrapper) == ("no", "1000", 5, False)
    assert request.command == ["1", "a"]
    assert "vmid" not in request.own


def test_none_and_empty_texts_are_not_given() -> None:
    request = request_of("runc", hostname=None, platform="", command=None)
    assert (request.hostname, request.platform, request.command) == (None, None, None)


def test_each_runtime_has_its_own_variables() -> None:
    request = parse_request({"name": "a", "runtime": "x", "src": "a", "y": {"z": 1}}, {"x": {"y": "Facts"}})
    assert request.own == {"y": {"z": 1}}
    with pytest.raises(ContainerError, match="container_vmid is not a variable"):
        parse_request({"name": "a", "runtime": "x", "src": "a", "vmid": 1}, {"x": {"y": "Facts"}})
    assert {name for kinds in OWN_VARIABLES.values() for name in kinds} == {
        "lxc_settings",
        "nspawn_settings",
        "runtime_spec_settings",
        "proxmox_settings",
        "vmid",
    }
