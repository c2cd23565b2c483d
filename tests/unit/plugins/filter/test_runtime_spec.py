# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter runtime_spec (docs/behaviour.md, section 9)."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display
from ansible_collections.hypervisor.oci.plugins.filter.runtime_spec import FilterModule

IMAGE: dict[str, t.Any] = {
    "entrypoint": ["/bin/app"],
    "cmd": ["--image"],
    "env": {"A": "image"},
    "working_dir": "/srv",
    "user": "app:staff",
    "uid": 1000,
    "gid": 50,
    "groups": [],
    "home": "/home/app",
    "stop_signal": "SIGQUIT",
    "exposed_ports": ["80/tcp"],
    "labels": {"a": "b"},
    "architecture": "amd64",
    "os": "linux",
    "created": None,
}


def text(image: t.Any = None, **arguments: t.Any) -> str:
    """What the filter gives."""
    given = {"name": "web", "rootfs": "/srv/web", **arguments}
    return t.cast(str, FilterModule().filters()["runtime_spec"](image or IMAGE, **given))


def test_image_alone() -> None:
    document = json.loads(text())
    process = document["process"]
    assert process["args"] == ["/bin/app", "--image"]
    assert process["user"] == {"uid": 1000, "gid": 50}
    assert {"A=image", "HOME=/home/app"}.issubset(process["env"])
    assert document["root"]["path"] == "/srv/web"
    assert document["annotations"]["a"] == "b"


def test_overrides_and_settings() -> None:
    document = json.loads(
        text(
            entrypoint=["/bin/sh", "-c"],
            command=["a\nb\u2028ü"],
            user={"name": "x", "uid": 7, "gid": 8, "groups": [9], "home": None},
            network="host",
            uid_map=["0:100000:10"],
            gid_map=["0:100000:10"],
            mounts=[{"target": "/t", "type": "tmpfs"}],
            settings={"process": {"noNewPrivileges": True}},
        )
    )
    process = document["process"]
    assert process["args"] == ["/bin/sh", "-c", "a\nb\u2028ü"]
    assert process["user"] == {"uid": 7, "gid": 8, "additionalGids": [9]}
    assert process["noNewPrivileges"] is True
    assert document["linux"]["uidMappings"][0]["hostID"] == 100000
    assert document["mounts"][-1]["destination"] == "/t"
    assert {"type": "network"} not in document["linux"]["namespaces"]


def test_none_is_as_if_not_given() -> None:
    assert text(network=None, settings=None, mounts=None) == text()


def test_the_text_is_ascii_and_ends_with_a_line() -> None:
    written = text(command=["ü\u2028\x7f\x9b"])
    assert written.isascii()
    assert written.endswith("}\n")


def test_labels_that_are_dropped_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """conversion.md: what is left out should be told."""
    told: list[str] = []
    monkeypatch.setattr(Display, "warning", lambda _self, message, *_more: told.append(message))
    written = text({**IMAGE, "labels": {"run.oci.handler\n": "x", "a": "b"}})
    assert "run.oci.handler" not in written
    assert len(told) == 1
    assert "run.oci.handler" in told[0]
    assert "\n" not in told[0]


@pytest.mark.parametrize(
    "arguments",
    [
        {"command": ["a\0b"]},
        {"unknown": 1},
        {"rootfs": "relative"},
        {"network": "bridge"},
        {"network": 7},
        {"settings": {"a": float("nan")}},
        {"settings": "x"},
    ],
)
def test_errors_are_of_ansible(arguments: t.Any) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        text(**arguments)
    assert "\n" not in str(caught.value)
