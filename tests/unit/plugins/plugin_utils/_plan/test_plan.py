# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a container, for every runtime under every service: docs/behaviour.md, section 10."""

from __future__ import annotations

import json
import subprocess
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import ContainerError
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.known import Node, Root
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.plan import plan
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.request import parse_request
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.runtimes import OWN_VARIABLES, RUNTIMES

_SECRET = "s3cret\nexport A='b'"
_CONF = "arch: amd64\nrootfs: local:vm-100-disk-0,size=1G\n"
_IMAGE = {
    "cmd": ["/bin/app", "two words", "line\nend"],
    "env": {},
    "user": "app",
    "uid": 1000,
    "gid": 1001,
    "home": "/home/app",
    "volumes": ["/data"],
    "stop_signal": "SIGQUIT",
    "working_dir": "/srv",
}
_NSS = {"getent": True, "uid": 1000, "gid": 1001, "groups": []}
_RESULT = {"image": _IMAGE, "manifest_digest": "sha256:1", "changed": True}
_ROOT = Root(_RESULT, {"nspawn": _NSS}, [{"source": "/v", "target": "/data"}])
_CASES = [
    (runtime, systemd) for runtime in RUNTIMES for systemd in ((False, True) if runtime != "proxmox" else (False,))
]


def _node(systemd: bool = False, note: t.Any = None) -> Node:
    texts = {
        "/etc/pve/lxc/100.conf": _CONF,
        "/etc/resolv.conf": "nameserver 127.0.0.1\n",
        "/run/systemd/resolve/resolv.conf": "nameserver 10.0.0.1\n",
    }
    if note is not None:
        texts["/var/lib/hypervisor.oci/containers/web/volume.json"] = json.dumps(note)
    return Node(paths=frozenset(["/run/systemd/system"] if systemd else []), texts=texts)


def _plan(runtime: str, *, root: Root | None = _ROOT, systemd: bool = False, **more: t.Any) -> dict[str, t.Any]:
    variables = {"name": "web", "runtime": runtime, "src": "a.tar", "vmid": 100}
    return plan(parse_request({**variables, **more}, OWN_VARIABLES), _node(systemd), root).as_result(contents=True)


def _file(planned: dict[str, t.Any], name: str) -> dict[str, t.Any]:
    return next(item for item in planned["files"] if item["path"].endswith(name))


@pytest.mark.parametrize(("runtime", "systemd"), _CASES)
def test_only_closed_files_hold_the_environment(runtime: str, systemd: bool) -> None:
    planned = _plan(runtime, systemd=systemd, env={"TOKEN": _SECRET})
    held = 0
    for item in planned["files"]:
        if "s3cret" in item["content"]:
            held += 1
            assert int(item["mode"], 8) & 0o077 == 0, item["path"]
            assert item["shown"] != "all", item["path"]
    assert held + ("s3cret" in (planned["configuration"] or "")) >= 1
    assert "s3cret" in json.dumps(planned)
    request = parse_request(
        {"name": "web", "runtime": runtime, "src": "a.tar", "vmid": 100, "env": {"TOKEN": _SECRET}}, OWN_VARIABLES
    )
    assert "s3cret" not in json.dumps(plan(request, _node(systemd), _ROOT).as_result(contents=False))


@pytest.mark.parametrize(("runtime", "systemd"), _CASES)
def test_the_plan_is_plain_data(runtime: str, systemd: bool) -> None:
    planned = _plan(runtime, systemd=systemd)
    assert json.loads(json.dumps(planned)) == planned
    commands = [planned["service"][name] for name in ("stop", "status", "log")]
    for command in [*commands, *planned["service"]["start"]]:
        assert command and all(isinstance(word, str) for word in command)
    assert len({item["path"] for item in planned["files"]}) == len(planned["files"])


@pytest.mark.parametrize("runtime", ["lxc", "nspawn", "runc", "crun"])
def test_the_control_script_is_a_shell_script(runtime: str) -> None:
    planned = _plan(runtime, log_folder="/var/log/it's $HOME `id` %n")
    script = _file(planned, "/control")
    assert script["mode"] == "0700"
    assert "@" not in script["content"].replace("printf '%s@'", "")
    done = subprocess.run(
        ["sh", "-n"], input=script["content"], text=True, capture_output=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "signal=QUIT\n" in script["content"]
    assert "log='/var/log/it'\"'\"'s $HOME `id` %n/web.log'\n" in script["content"]


def test_units_expand_nothing() -> None:
    unit = _file(_plan("runc", systemd=True, folder="/b/%n $HOME"), ".service")
    assert 'run --bundle "/b/%%n $$HOME" web\n' in unit["content"]
    assert "KillSignal=SIGQUIT\n" in unit["content"]
    assert unit["content"].endswith("[Install]\nWantedBy=multi-user.target\n")
    drop_in = _file(_plan("lxc", systemd=True), "hypervisor.oci.conf")
    assert "lxc-start -F -n web -P " in drop_in["content"]


def test_unless_stopped_is_always_for_systemd() -> None:
    unit = _file(_plan("runc", systemd=True, restart="unless-stopped"), ".service")
    assert "\nRestart=always\n" in unit["content"]
    with pytest.raises(ContainerError, match="needs systemd"):
        _plan("runc", restart="always")


def test_the_resolver_of_the_node_is_passed_on() -> None:
    text = _file(_plan("runc"), "/resolv.conf")["content"]
    assert text.endswith("\nnameserver 10.0.0.1\n")
    text = _file(_plan("runc", network="host"), "/resolv.conf")["content"]
    assert text.endswith("\nnameserver 127.0.0.1\n")
    text = _file(_plan("runc", dns=["9.9.9.9"], dns_search=["a", "b"]), "/resolv.conf")["content"]  # fmt: skip
    assert text.endswith("\nnameserver 9.9.9.9\nsearch a b\n")


def test_a_line_of_the_administrator_replaces_its_kind() -> None:
    text = _file(_plan("lxc"), "/config")["content"]
    assert "lxc.net.0.type = empty\n" in text
    assert "lxc.cgroup2.devices.allow = c 136:* rwm\n" in text
    text = _file(_plan("lxc", lxc_settings=["lxc.net.0.type = veth"]), "/config")["content"]  # fmt: skip
    assert "empty" not in text
    maps = {"uid_map": ["0:100000:65536"], "gid_map": ["0:100000:65536"]}
    planned = _plan("lxc", **maps)
    assert "devices.allow" not in _file(planned, "/config")["content"]
    assert planned["id_ranges"] == [
        {"path": "/etc/subuid", "line": "root:100000:65536"},
        {"path": "/etc/subgid", "line": "root:100000:65536"},
    ]
    assert _file(planned, "/exec")["owner"] == 101000


@pytest.mark.parametrize("runtime", list(RUNTIMES))
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"command": "httpd -f"}, "command must be a list of strings"),
        ({"env": {"FLAG": True}}, "env.FLAG"),
        ({"env": {"FLAG": None}}, "env.FLAG"),
        ({"mount": []}, "container_mount is not a variable of this role; did you mean container_mounts?"),
        ({"state": "running"}, "state must be one of started, stopped, present, absent, not 'running'"),
        ({"log_folder": "/log\n"}, "is not an absolute path"),
        ({"uid_map": ["0:1"]}, "uid"),
        ({"volumes": [{"target": "/proc/x"}]}, "volumes"),
        ({"mounts": [{"source": "/var/lib/hypervisor.oci/volumes/a/b/c", "target": "/m"}]}, "lies in a volume"),
    ],
)  # fmt: skip
def test_the_variables_alone_are_judged(runtime: str, given: dict[str, t.Any], says: str) -> None:
    """Before the node is looked at, and so before anything is unpacked or stopped."""
    variables = {"name": "web", "runtime": runtime, "src": "a.tar", "vmid": 100}
    with pytest.raises(ContainerError) as caught:
        plan(parse_request({**variables, **given}, OWN_VARIABLES))
    assert says in caught.value.message


@pytest.mark.parametrize("runtime", list(RUNTIMES))
def test_a_user_that_is_not_looked_up_yet_is_no_error(runtime: str) -> None:
    maps = {"uid_map": ["0:100000:65536"], "gid_map": ["0:100000:65536"]}
    unresolved = {**_IMAGE, "uid": None, "gid": None}
    for user in (None, "app", "1:1"):
        if runtime == "nspawn" and user == "1:1":
            continue
        _plan(runtime, root=Root({"image": unresolved}), user=user, **maps)
        # the image is there already, and its accounts are looked up later
        _plan(runtime, root=Root({"image": _IMAGE}), user=user, **maps)
        _plan(runtime, root=None, user=user, **maps)
    with pytest.raises(ContainerError, match="unknown user"):
        _plan(runtime, root=Root({"image": unresolved}, {}, []), **maps)


def test_how_a_server_is_spoken_to_is_not_noted() -> None:
    plain = _plan("proxmox")
    spoken = _plan("proxmox", rootfs_options={"url_password": "s3cret", "headers": {"A": "s3cret"}})  # fmt: skip
    other = _plan("proxmox", rootfs_options={"devices": "skip"})
    assert plain["volume_key"] == spoken["volume_key"] != other["volume_key"]
    assert "s3cret" not in json.dumps([spoken["files"], spoken["note"], spoken["configuration"]])
    assert not plain["is_filled"]
    note = json.loads(_file(plain, "volume.json")["content"])
    request = parse_request({"name": "web", "runtime": "proxmox", "src": "a", "vmid": 100}, OWN_VARIABLES)
    again = plan(request, _node(note=note), _ROOT).as_result(contents=True)
    assert again["is_filled"]
    assert _file(again, "volume.json") == _file(plain, "volume.json")
