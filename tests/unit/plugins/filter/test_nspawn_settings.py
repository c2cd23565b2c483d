# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter nspawn_settings (docs/behaviour.md, section 9)."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.hypervisor.oci.plugins.filter.nspawn_settings import FilterModule
from ansible_collections.hypervisor.oci.tests.unit.systemd_settings import Bind, read

IMAGE: dict[str, t.Any] = {
    "entrypoint": ["/bin/app"],
    "cmd": ["--image"],
    "env": {"A": "image", "B": "image"},
    "working_dir": "/srv",
    "user": "app",
    "uid": 1000,
    "gid": 1000,
    "groups": [10],
    "home": "/home/app",
    "stop_signal": "SIGQUIT",
    "labels": {"a\nb": "{{ x }}"},
    "architecture": "amd64",
    "os": "linux",
}
NSS = {"getent": True, "uid": 1000, "gid": 1000, "groups": [10]}


def render(image: t.Any = None, **arguments: t.Any) -> dict[tuple[str, str], t.Any]:
    """The file, read back."""
    name = {"name": "web", "rootfs": "/srv/web", **arguments}
    text = FilterModule().filters()["nspawn_settings"](image or IMAGE, **name)
    return read(text)


def test_image_alone() -> None:
    values = render(nss=NSS)
    assert values[("Exec", "Parameters")] == ["/bin/app", "--image"]
    assert {"A=image", "B=image", "HOME=/home/app"}.issubset(values[("Exec", "Environment")])
    assert values[("Exec", "WorkingDirectory")] == ["/srv"]
    assert values[("Exec", "User")] == ["app"]
    assert values[("Exec", "KillSignal")] == ["SIGQUIT"]
    assert values[("Exec", "Hostname")] == ["web"]


def test_overrides_settings_and_wrapper() -> None:
    values = render(
        command=["a\nb"],
        env={"B": "mine"},
        user="0:0",
        hostname="other",
        working_dir="/x y",
        stop_signal=15,
        mounts=[{"source": "/data", "target": "/d", "read_only": True}],
        uid_map=["0:100000:65536"],
        gid_map=["0:100000:65536"],
        wrapper="/srv/wrapper",
        settings={"Network": {"Zone": "z"}, "Files": {"Bind": ["/q"]}},
    )
    assert values[("Exec", "Parameters")][0] == "/bin/sh"
    assert "B=mine" in values[("Exec", "Environment")]
    assert ("Exec", "User") not in values
    assert values[("Exec", "Hostname")] == ["other"]
    assert values[("Exec", "WorkingDirectory")] == ["/x y"]
    assert values[("Exec", "KillSignal")] == ["SIGTERM"]
    assert values[("Exec", "PrivateUsers")] == ["100000:65536"]
    assert values[("Files", "BindReadOnly")][0] == Bind("/data", "/d", "")
    assert values[("Files", "Bind")] == [Bind("/q", "/q", "")]
    assert values[("Network", "Zone")] == ["z"]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"user": "0:0", "command": ["a\nb"]},
        {"user": "0:0", "unknown": 1},
        {"user": "0:0", "name": None},
        {"user": "0:0", "settings": {"Exec": {"Boot": "yes"}}},
        {"user": "0:0", "settings": "[Exec]"},
        {"user": "0:0", "nss": "x", "image": {"entrypoint": "/bin/x"}},
        {"user": "1000:1000", "nss": "x"},
        {"user": "0:0", "wrapper": 7, "command": ["\n"]},
    ],
)
def test_errors_are_of_ansible(arguments: t.Any) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        render(arguments.pop("image", None), **arguments)
    assert "\n" not in str(caught.value)


def test_facts_that_are_none() -> None:
    for image in ("x", ["x"], 7):
        with pytest.raises(AnsibleFilterError):
            render(image)
