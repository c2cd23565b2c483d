# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The health check of a container, from image and variables (docs/behaviour.md, section 15)."""

from __future__ import annotations

import json
import typing as t
from dataclasses import replace

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import ContainerError
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.health import check_of
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.known import Root
from ansible_collections.hypervisor.oci.tests.unit.container_plans import IMAGE, ROOT, node_of, planned, request_of

SECOND = 1_000_000_000


def check(health: t.Any = "image", **image: t.Any) -> t.Any:
    return check_of(request_of("runc", health=health), {"healthcheck": image} if image else {})


@pytest.mark.parametrize(
    ("image", "argv"),
    [
        ({"Test": ["CMD", "curl", "-f", "localhost"]}, ("curl", "-f", "localhost")),
        ({"Test": ["CMD-SHELL", "a | b"]}, ("/bin/sh", "-c", "a | b")),
        ({"Test": ["CMD-SHELL", "a"], "Shell": ["/bin/bash", "-ec"]}, ("/bin/bash", "-ec", "a")),
    ],
)
def test_the_image_s_check(image: dict[str, t.Any], argv: tuple[str, ...]) -> None:
    assert check(**image).argv == argv


@pytest.mark.parametrize(
    "image", [{}, {"Test": ["NONE"]}, {"Test": []}, {"Test": ["CMD"]}, {"Test": ["OTHER", "x"]}, {"Interval": SECOND}]
)
def test_an_image_without_a_check(image: dict[str, t.Any]) -> None:
    assert check(**image) is None


def test_docker_s_defaults() -> None:
    found = check(Test=["CMD", "x"])
    assert (found.interval, found.timeout, found.start_period, found.start_interval, found.retries) == (30, 30, 0, 5, 3)
    assert found.longest == 180
    assert check(Test=["CMD", "x"], Interval=0, Timeout=-5, Retries=0, StartInterval=0) == found


def test_an_image_s_nanoseconds() -> None:
    found = check(
        Test=["CMD", "x"],
        Interval=SECOND // 2,
        Timeout=2 * SECOND,
        StartPeriod=60 * SECOND,
        StartInterval=SECOND,
        Retries=5,
    )
    assert (found.interval, found.timeout, found.start_period, found.start_interval, found.retries) == (
        0.5,
        2,
        60,
        1,
        5,
    )
    assert check(Test=["CMD", "x"], Interval=10**30).interval == 86_400


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"test": "a b"}, (("/bin/sh", "-c", "a b"), 30, 3)),
        ({"test": ["a", "b"]}, (("a", "b"), 30, 3)),
        ({"test": ["CMD", "a"], "interval": 1.5, "retries": 1}, (("a",), 1.5, 1)),
        ({"test": ["CMD-SHELL", "a"], "interval": "1m30s", "retries": "2"}, (("/bin/sh", "-c", "a"), 90, 2)),
        ({"test": "a", "interval": "500ms"}, (("/bin/sh", "-c", "a"), 0.5, 3)),
        ({"test": "a", "interval": "1h"}, (("/bin/sh", "-c", "a"), 3600, 3)),
    ],
)
def test_a_check_of_the_administrator(given: dict[str, t.Any], expected: tuple[t.Any, ...]) -> None:
    found = check(given, Test=["CMD", "other"], Interval=SECOND)
    assert (found.argv, found.interval, found.retries) == expected


def test_no_check() -> None:
    assert check("none", Test=["CMD", "x"]) is None
    assert check({"test": ["NONE"]}, Test=["CMD", "x"]) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("off", "health must be image, none or a mapping"),
        ({}, "health.test must be a command"),
        ({"test": []}, "health.test must be a command"),
        ({"test": [1]}, "health.test must be a command"),
        ({"test": ["CMD"]}, "health.test is empty"),
        ({"test": ""}, "health.test is empty"),
        ({"test": "a", "every": 1}, "health.every is not a part of a health check"),
        ({"test": "a", "interval": 0}, "health.interval is '0'"),
        ({"test": "a", "timeout": -1}, "health.timeout is '-1'"),
        ({"test": "a", "interval": True}, "health.interval is 'True'"),
        ({"test": "a", "interval": "1 day"}, "health.interval is '1 day'"),
        ({"test": "a", "interval": "inf"}, "health.interval is 'inf'"),
        ({"test": "a", "interval": 10**9}, "health.interval is '1000000000'"),
        ({"test": "a", "retries": 0}, "health.retries is '0'"),
        ({"test": "a", "retries": True}, "health.retries is 'True'"),
    ],
)
def test_what_is_wrong_with_a_variable(given: t.Any, message: str) -> None:
    """It is told before anything is known of the node."""
    with pytest.raises(ContainerError) as caught:
        planned("runc", root=None, health=given)
    assert caught.value.message.startswith(message)


def with_check(*words: str) -> Root:
    """A root whose image has a check, and a command that LXC can express."""
    image = {**IMAGE, "cmd": ["/bin/app"], "healthcheck": {"Test": ["CMD", *words]}}
    return replace(ROOT, result={**ROOT.result, "image": image})


def health_of(runtime: str, **given: t.Any) -> dict[str, t.Any]:
    return dict(planned(runtime, root=with_check("well", "$HOME"), **given)["health"])


def test_how_it_joins_a_container_of_lxc() -> None:
    found = health_of("lxc")
    assert found["command"][:5] == ["lxc-attach", "-P", "/var/lib/lxc", "-n", "web"]
    assert found["command"][-3:] == ["--", "well", "$HOME"]
    assert "--clear-env" in found["command"]
    assert found["command"][found["command"].index("--set-var") + 1] == found["mark"] == "HYPERVISOR_OCI_CHECK=web"
    assert (found["input"], found["wait"]) == ("", 180)
    assert health_of("lxc", health_wait=5)["wait"] == 5


@pytest.mark.parametrize("runtime", ["lxc", "proxmox"])
def test_the_environment_is_in_no_command_line(runtime: str) -> None:
    """What LXC's configuration cannot express comes from a script that a shell of the container reads."""
    found = health_of(runtime, env={"TOKEN": "s3cret\nline"})
    assert "s3cret" not in json.dumps(found["command"])
    assert found["command"][-2:] == ["--", "/bin/sh"]
    assert "export TOKEN='s3cret\nline'\n" in found["input"]
    assert found["input"].endswith("exec 'well' '$HOME'\n")
    assert health_of(runtime, env={"TOKEN": "s3cret\nline"}, contents=False)["input"] == ""


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_a_check_of_runc_is_the_container_s_process(runtime: str) -> None:
    result = planned(runtime, root=with_check("well"), env={"TOKEN": "s3cret"})
    files = {item["path"]: item for item in result["files"]}
    path = result["health"]["command"][-2]
    assert result["health"]["command"] == [runtime, "exec", "--process", path, "web"]
    process = json.loads(files[path]["content"])
    container = json.loads(next(item["content"] for item in files.values() if item["path"].endswith("config.json")))
    assert process.pop("args") == ["well"]
    assert process["env"].pop() == "HYPERVISOR_OCI_CHECK=web"
    first = container["process"]
    del first["args"]
    assert process == first
    assert (files[path]["mode"], files[path]["shown"]) == ("0600", "none")


def with_systemd(**image: t.Any) -> Root:
    """A root whose first program is systemd, as the node has found out."""
    checked = with_check("well", "$HOME")
    facts = {**checked.image, "cmd": ["/sbin/init"], "user": "", "uid": 0, "gid": 0, **image}
    info = {"user": {}, "nspawn": {"getent": True, "uid": 0, "gid": 0, "groups": [], "systemd": True}}
    return replace(checked, result={**ROOT.result, "image": facts}, user_info=info)


def test_the_systemd_of_a_machine_runs_the_check() -> None:
    """As a service that ends with it; what systemd would interpret, or a command line show, comes from a script."""
    given: dict[str, t.Any] = {"env": {"TOKEN": "s3cret %h"}, "node": node_of(True)}
    result = planned("nspawn", root=with_systemd(), **given)
    found = result["health"]
    assert result["program"] == "/sbin/init"
    assert found["command"][0] == "systemd-run"
    assert {"--machine=web", "--wait", "--pipe", "--collect", "--uid=0", "--gid=0", "--working-directory=/srv"} < set(
        found["command"]
    )
    assert {"--setenv=HYPERVISOR_OCI_CHECK=web", "--property=KillSignal=SIGKILL"} < set(found["command"])
    assert "--property=RuntimeMaxSec=31.000s" in found["command"]
    assert found["command"][-2:] == ["--", "/bin/sh"]
    assert "s3cret" not in json.dumps(found["command"])
    assert "export TOKEN='s3cret %h'\n" in found["input"]
    assert found["input"].endswith("exec 'well' '$HOME'\n")
    own = planned("nspawn", root=with_systemd(), node=node_of(True), health={"test": ["true"], "timeout": "500ms"})
    assert "--property=RuntimeMaxSec=1.500s" in own["health"]["command"]


def test_a_machine_that_is_not_reached() -> None:
    """Without systemd on the node, or with variables that a shell does not pass on."""
    assert "where systemd runs the node" in planned("nspawn", root=with_systemd())["health"]["refusal"]
    found = planned("nspawn", root=with_systemd(), node=node_of(True), env={"a.b": "c"})["health"]
    assert (found["command"], found["input"]) == ([], "")
    assert "its environment cannot be passed on" in found["refusal"]


@pytest.mark.parametrize(
    ("program", "may_be"), [("/sbin/init", True), ("/lib/systemd/systemd", True), ("/bin/app", False)]
)
def test_before_anybody_has_looked_into_the_tree(program: str, may_be: bool) -> None:
    """What cannot be systemd is refused before anything is stopped."""
    root = replace(with_systemd(cmd=[program]), user_info=None, mounts=None)
    assert bool(planned("nspawn", root=root, node=node_of(True))["health"]["command"]) is may_be


@pytest.mark.parametrize("systemd", [False, None])
def test_nspawn_cannot_be_joined(systemd: bool | None) -> None:
    """The image's own check is left out, which is told; one that the variables give is an error."""
    root = with_systemd()
    assert root.user_info is not None
    info = {"nspawn": {**root.user_info["nspawn"], "systemd": systemd}}
    found = planned("nspawn", root=replace(root, user_info=info), node=node_of(True))["health"]
    assert found["command"] == []
    assert "seccomp filter" in found["refusal"]
    assert "seccomp filter" in health_of("nspawn")["refusal"]
    with pytest.raises(ContainerError) as caught:
        health_of("nspawn", health={"test": "true"})
    assert caught.value.message.startswith("health: systemd-nspawn has no command")


@pytest.mark.parametrize("runtime", ["lxc", "runc", "nspawn", "proxmox"])
def test_a_container_without_a_check(runtime: str) -> None:
    result = planned(runtime, node=node_of(False))
    assert result["health"] is None
    assert not [item for item in result["files"] if "check" in item["path"]]
