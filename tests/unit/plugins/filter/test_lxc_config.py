# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters lxc_config, exec_wrapper and container (docs/behaviour.md, section 9)."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.hypervisor.oci.plugins.filter import container as container_filter
from ansible_collections.hypervisor.oci.plugins.filter import exec_wrapper as exec_wrapper_filter
from ansible_collections.hypervisor.oci.plugins.filter import lxc_config as lxc_config_filter
from ansible_collections.hypervisor.oci.tests.unit.lxc_settings import read

IMAGE: dict[str, t.Any] = {
    "entrypoint": ["/bin/app"],
    "cmd": ["--image"],
    "env": {"A": "image", "B": "{{ lookup('pipe', 'id') }}"},
    "working_dir": "/srv",
    "user": "app",
    "uid": 1000,
    "gid": 1000,
    "groups": [10],
    "home": "/home/app",
    "stop_signal": "SIGQUIT",
    "exposed_ports": ["80/tcp"],
    "volumes": ["/data"],
    "labels": {"a\nlxc.hook.start = /x": "{{ x }}\n"},
    "architecture": "amd64",
    "os": "linux",
    "created": None,
}
NAMED = {"name": "web", "rootfs": "/srv/web"}
MIXED = ['it\'s "x"', "a\nb"]

lxc_config = lxc_config_filter.FilterModule().filters()["lxc_config"]
exec_wrapper = exec_wrapper_filter.FilterModule().filters()["exec_wrapper"]
container = container_filter.FilterModule().filters()["container"]


def test_the_image_alone() -> None:
    config = read(lxc_config(IMAGE, **NAMED))
    assert config.init == [b"/bin/app", b"--image"]
    assert config.environment[:2] == [
        (b"A", b"image"),
        # template syntax is text like any other
        (b"B", b"{{ lookup('pipe', 'id') }}"),
    ]
    assert config.environment[2][0] == b"PATH"
    assert config.environment[3] == (b"HOME", b"/home/app")
    assert (config.uid, config.gid, config.groups) == (1000, 1000, [10])
    assert (config.cwd, config.halt, config.uts) == (b"/srv", 3, b"web")
    assert config.rootfs == (b"dir", b"/srv/web")
    # labels, ports and volumes are facts
    assert config.others == []


def test_overrides_and_settings() -> None:
    config = read(
        lxc_config(
            IMAGE,
            **NAMED,
            hostname="other",
            entrypoint=["/bin/sh", "-c", "exec x"],
            env={"A": "mine", "N": 5},
            user={"name": "w", "uid": 3, "gid": 4, "groups": [], "home": "/w"},
            working_dir="/x",
            stop_signal=15,
            mounts=[{"source": "/s", "target": "/t"}],
            uid_map=["0:100000:65536"],
            gid_map=["0:100000:65536"],
            settings=["lxc.net.0.type = empty"],
            version="7.0.0",
        )
    )
    assert config.init == [b"/bin/sh", b"-c", b"exec x"]
    assert config.runtime[0] == (b"A", b"mine")
    assert config.runtime[-1] == (b"HOME", b"/w")
    assert (config.uid, config.gid, config.groups) == (3, 4, [])
    assert (config.cwd, config.halt, config.uts) == (b"/x", 15, b"other")
    assert len(config.mounts) == 1
    assert len(config.idmap) == 2
    assert config.others == [(b"lxc.net.0.type", b"empty")]


def test_the_wrapper() -> None:
    """Section 9: both filters, given the same, go together."""
    given: dict[str, t.Any] = {**NAMED, "command": MIXED, "version": "6.0.0"}
    with pytest.raises(AnsibleFilterError, match="command: LXC cannot express"):
        lxc_config(IMAGE, **given)
    config = read(lxc_config(IMAGE, wrapper="/w", **given))
    assert config.init == [b"/bin/sh", b"/dev/.hypervisor-oci-exec"]
    script = exec_wrapper(IMAGE, **given)
    assert script.endswith("exec '/bin/app' 'it'\\''s \"x\"' 'a\nb'\n")
    assert "export" not in script
    hooks = {**NAMED, "settings": ["lxc.hook.start = /x"]}
    assert "export A='image'\n" in exec_wrapper(IMAGE, **hooks)
    assert exec_wrapper(IMAGE, runtime_environment=True, **hooks) == ""


def test_a_wrapper_for_each_runtime() -> None:
    assert exec_wrapper(IMAGE, **NAMED) == ""
    blank = {**NAMED, "command": ["a b"]}
    assert exec_wrapper(IMAGE, version="5.0.2", **blank) != ""
    for runtime in ("lxc", "proxmox", "nspawn"):
        assert exec_wrapper(IMAGE, runtime=runtime, **blank) == ""
        lines = {**NAMED, "command": ["a\nb"]}
        assert exec_wrapper(IMAGE, runtime=runtime, **lines) != ""
    for runtime in ("runc", "crun"):
        odd: dict[str, t.Any] = {**NAMED, "command": ["a\nb"]}
        odd["env"] = {"a.b": "x\ny"}
        assert exec_wrapper(IMAGE, runtime=runtime, **odd) == ""
    with pytest.raises(AnsibleFilterError, match="runtime: unknown runtime 'docker'"):
        exec_wrapper(IMAGE, runtime="docker", **NAMED)
    with pytest.raises(AnsibleFilterError, match=r"env\.a\.b: a shell does not"):
        exec_wrapper(IMAGE, **{**NAMED, "command": ["a\nb"], "env": {"a.b": "x"}})


def test_the_model() -> None:
    found = container(
        IMAGE,
        **NAMED,
        mounts=[{"source": "/s", "target": "/t", "options": ["ro"]}],
        uid_map=["0:100000:65536"],
        gid_map=["0:100000:65536"],
    )
    assert found == {
        "name": "web",
        "rootfs": "/srv/web",
        "hostname": "web",
        "argv": ["/bin/app", "--image"],
        "env": {
            **IMAGE["env"],
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/home/app",
        },
        "working_dir": "/srv",
        "user": {"name": "app", "uid": 1000, "gid": 1000, "groups": [10], "home": "/home/app"},
        "stop_signal": "SIGQUIT",
        "architecture": "amd64",
        "os": "linux",
        "created": None,
        "mounts": [{"source": "/s", "target": "/t", "read_only": True, "type": "bind", "options": []}],
        "uid_map": ["0:100000:65536"],
        "gid_map": ["0:100000:65536"],
        "volumes": ["/data"],
        "exposed_ports": ["80/tcp"],
        "labels": IMAGE["labels"],
        "needs_wrapper": False,
    }
    json.dumps(found)
    # what it gives can be given again
    again = {key: found[key] for key in ("user", "mounts", "uid_map", "gid_map")}
    assert container(IMAGE, **NAMED, **again) == found


def test_needs_wrapper() -> None:
    given = {**NAMED, "command": MIXED[:1]}
    for runtime, needed in (("lxc", True), ("proxmox", True), ("nspawn", False), ("runc", False), ("crun", False)):
        assert container(IMAGE, runtime=runtime, **given)["needs_wrapper"] is needed
    given = {**NAMED, "settings": ["lxc.include = /x"]}
    assert container(IMAGE, **given)["needs_wrapper"] is True
    assert container(IMAGE, version="7.0", **given)["needs_wrapper"] is False


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({}, "name is missing"),
        ({"name": "web"}, "rootfs is missing"),
        ({**NAMED, "nosuch": 1}, "unknown override 'nosuch'"),
        ({**NAMED, "env": ["A"]}, "has no '='"),
        ({**NAMED, "settings": "x"}, "settings must be a list"),
        ({**NAMED, "version": "new"}, "invalid version of LXC 'new'"),
    ],
)
def test_errors(arguments: dict[str, t.Any], what: str) -> None:
    """One sentence, as an error of a filter."""
    for function in (lxc_config, exec_wrapper, container):
        with pytest.raises(AnsibleFilterError) as caught:
            function(IMAGE, **arguments)
        assert what in str(caught.value)


@pytest.mark.parametrize("image", [None, "x", [], 5])
def test_images_that_are_none(image: t.Any) -> None:
    for function in (lxc_config, exec_wrapper, container):
        with pytest.raises(AnsibleFilterError, match="image must be a mapping"):
            function(image, **NAMED)
