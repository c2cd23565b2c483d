# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a container, for every runtime under every service: docs/behaviour.md, section 10."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import ContainerError
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.known import Root
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.plan import plan
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.runtimes import RUNTIMES
from ansible_collections.hypervisor.oci.tests.unit.container_plans import (
    CASES,
    IMAGE,
    MAPS,
    node_of,
    planned,
    request_of,
)

_GOLDEN = Path(__file__).parent / "golden"
_HEADER = "".join(Path(__file__).read_text("utf-8").splitlines(keepends=True)[:3])
_SECRET = "s3cret\nexport A='b'"


@pytest.mark.parametrize(("runtime", "systemd"), CASES)
def test_the_whole_plan(runtime: str, systemd: bool) -> None:
    """``GOLDEN_PLANS=write`` writes what is expected anew, for a change that is wanted."""
    result = planned(runtime, node=node_of(systemd), **MAPS)
    text = _HEADER + json.dumps(result, indent=1) + "\n"
    path = _GOLDEN / f"{runtime}-{'systemd' if systemd else 'script'}.txt"
    if os.environ.get("GOLDEN_PLANS") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize(("runtime", "systemd"), CASES)
def test_only_closed_files_hold_the_environment(runtime: str, systemd: bool) -> None:
    env = {"TOKEN": _SECRET}
    result = planned(runtime, node=node_of(systemd), env=env)
    held = 0
    for item in result["files"]:
        if "s3cret" in item["content"]:
            held += 1
            assert int(item["mode"], 8) & 0o077 == 0, item["path"]
            assert item["shown"] != "all", item["path"]
    assert held + ("s3cret" in (result["configuration"] or "")) >= 1
    options = {"url_password": "s3cret"}
    shown = planned(
        runtime, node=node_of(systemd), env=env, src="http://u:s3cret@h/a", rootfs_options=options, contents=False
    )
    assert "s3cret" not in json.dumps(shown)


@pytest.mark.parametrize(("runtime", "systemd"), CASES)
def test_the_plan_is_plain_data(runtime: str, systemd: bool) -> None:
    result = planned(runtime, node=node_of(systemd))
    assert json.loads(json.dumps(result)) == result
    commands = [result["service"][name] for name in ("stop", "status", "log")]
    for command in [*commands, *result["service"]["start"]]:
        assert command and all(isinstance(word, str) for word in command)
    assert len({item["path"] for item in result["files"]}) == len(result["files"])


@pytest.mark.parametrize("runtime", list(RUNTIMES))
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"command": "httpd -f"}, "command must be a list of strings"),
        ({"env": {"FLAG": True}}, "env.FLAG must be a string"),
        ({"env": {"FLAG": None}}, "env.FLAG has no value"),
        ({"mount": []}, "container_mount is not a variable of this role; did you mean container_mounts?"),
        ({"state": "running"}, "state must be one of started, stopped, present, absent, not 'running'"),
        ({"log_folder": "/log\n"}, "is not an absolute path"),
        ({"uid_map": ["0:1"]}, "uid"),
        ({"volumes": [{"target": "/proc/x"}]}, "volumes"),
        ({"mounts": [{"source": "/var/lib/hypervisor.oci/volumes/a/b/c", "target": "/m"}]}, "lies in a volume"),
        ({"rootfs": "/a/../b"}, "is not an absolute path without '..'"),
    ],
)
def test_the_variables_alone_are_judged(runtime: str, given: dict[str, t.Any], says: str) -> None:
    """Before the node is looked at, and so before anything is unpacked or stopped."""
    if runtime == "proxmox" and "rootfs" in given:
        # its root is Proxmox VE's
        return
    with pytest.raises(ContainerError) as caught:
        plan(request_of(runtime, **given))
    assert says in caught.value.message


@pytest.mark.parametrize("runtime", list(RUNTIMES))
def test_missing_programs(runtime: str) -> None:
    with pytest.raises(ContainerError, match="^runtime: 'one', 'two' is not installed on this node"):
        planned(runtime, node=node_of(missing=("one", "two")))
    assert planned(runtime, node=node_of(missing=("one",)), state="absent")["service"]


@pytest.mark.parametrize("runtime", list(RUNTIMES))
def test_an_image_that_cannot_be_described(runtime: str) -> None:
    """With the image, before anything is stopped: a word with a control character when the wrapper is not allowed."""
    image = {**IMAGE, "cmd": ["/bin/app", "a\nb"]}
    known = Root({"image": image})
    if runtime in ("runc", "crun"):
        planned(runtime, root=known, wrapper=False)
        return
    with pytest.raises(ContainerError, match="command"):
        planned(runtime, root=known, wrapper=False)


@pytest.mark.parametrize("runtime", list(RUNTIMES))
def test_nothing_is_rendered_for_absent(runtime: str) -> None:
    result = planned(runtime, state="absent", root=None, src=None)
    assert (result["files"], result["volumes"]) == ([], [])
    assert "version" not in result["look"][4:]
    assert "src" not in result["rootfs_arguments"]
    assert all(path.startswith("/") for path in result["removed"])


def test_the_arguments_of_oci_rootfs() -> None:
    result = planned("runc", rootfs_options={"devices": "skip", "dest": "/elsewhere"}, ref="web:1", keep=3)
    assert result["rootfs_arguments"] == {
        "devices": "skip",
        "remote_src": False,
        "ref": "web:1",
        "force": False,
        "reachable": "fail",
        "uid_map": [],
        "gid_map": [],
        "src": "a.tar",
        "dest": "/var/lib/hypervisor.oci/bundles/web/rootfs",
        "keep": 3,
    }
    fetched = planned("runc", src="docker://alpine", fetch="controller")["rootfs_arguments"]
    assert (fetched["src"], fetched["fetch"]) == ("docker://alpine", "controller")


def test_the_arguments_for_a_registry() -> None:
    """What the role's variables do not say may stand among the further options."""
    given: dict[str, t.Any] = {"registry_auth_file": "/root/auth.json", "registry_mirrors": ["mirror.example/hub"]}
    further = {"registry_plain_http": True, "registry_mirrors": ["other.example"]}
    result = planned("runc", src="docker://nginx:1.27", rootfs_options=further, **given)["rootfs_arguments"]
    assert {name: result[name] for name in result if name.startswith("registry_")} == {
        "registry_auth_file": "/root/auth.json",
        "registry_mirrors": ["mirror.example/hub"],
        "registry_plain_http": True,
    }
    assert planned("runc", registry_plain_http="no")["rootfs_arguments"]["registry_plain_http"] is False
    assert not any(name.startswith("registry_") for name in planned("runc")["rootfs_arguments"])


def test_signatures_are_demanded_as_the_variables_say() -> None:
    given: dict[str, t.Any] = {
        "signature_keys": ["keys/a.pub", "keys/b.pub"],
        "signature_threshold": "2",
        "signature_identity": "registry.example.org/web",
        "signatures": ["web.sigstore.json"],
    }
    arguments = planned("runc", **given)["rootfs_arguments"]
    assert {name: arguments[name] for name in given} == {**given, "signature_threshold": 2}
    assert not {*given} & {*planned("runc")["rootfs_arguments"]}


def test_a_policy_is_passed_on() -> None:
    policy = {"setuid": ["/usr/bin/su"], "capabilities": {}}
    assert planned("runc", policy=policy)["rootfs_arguments"]["policy"] == policy
    assert "policy" not in planned("runc")["rootfs_arguments"]


@pytest.mark.parametrize("name", ["policy", "signature_keys", "signature_threshold", "signature_identity"])
@pytest.mark.parametrize("value", [None, "", []])
def test_an_empty_value_never_means_that_none_are(name: str, value: t.Any) -> None:
    with pytest.raises(ContainerError, match="is empty or undefined"):
        planned("runc", **{name: value})
