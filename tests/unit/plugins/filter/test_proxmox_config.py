# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter proxmox_config (docs/behaviour.md, section 9)."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.hypervisor.oci.plugins.filter.proxmox_config import FilterModule
from ansible_collections.hypervisor.oci.tests.unit.pve_settings import mount_points, parse

IMAGE: dict[str, t.Any] = {
    "entrypoint": ["/entry"],
    "cmd": ["run", "a b"],
    "env": {"A": "{{ 7*7 }}"},
    "working_dir": "/srv",
    "user": "app",
    "uid": 1000,
    "gid": 1000,
    "groups": [],
    "home": None,
    "stop_signal": "SIGINT",
    "labels": {"x\nlxc.hook.start: /x": "y"},
    "architecture": "amd64",
    "os": "linux",
}
CURRENT = "ostype: unmanaged\nrootfs: local:vm-1-disk-0,size=1G\n"

proxmox_config = FilterModule().filters()["proxmox_config"]


def test_the_image_alone() -> None:
    text = proxmox_config(IMAGE, current=CURRENT, name="web")
    section = parse(text).main
    assert section.properties == {
        "ostype": "unmanaged",
        "rootfs": "local:vm-1-disk-0,size=1G",
        "hostname": "web",
        "entrypoint": '"/entry run "a b""',
        "cmode": "console",
    }
    assert section.env[0] == "A={{ 7*7 }}"
    assert section.lxc == [
        ("lxc.init.cwd", "/srv"),
        ("lxc.init.uid", "1000"),
        ("lxc.init.gid", "1000"),
        ("lxc.signal.halt", "SIGINT"),
    ]
    assert proxmox_config(IMAGE, current=text, name="web") == text
    # where the role has mounted the root volume changes nothing
    assert proxmox_config(IMAGE, current=text, name="web", rootfs="/mnt") == text


def test_all_arguments() -> None:
    given: dict[str, t.Any] = {
        "name": "web",
        "hostname": "other",
        "command": ['it\'s "x"'],
        "wrapper": "/w",
        "version": "6.1.10",
        "settings": {"memory": 256},
        "mounts": [{"source": "/s", "target": "/t"}],
        "uid_map": ["0:100000:65536"],
        "gid_map": ["0:100000:65536"],
        "user": "5:6",
    }
    text = proxmox_config(IMAGE, current=CURRENT, **given)
    section = parse(text).main
    assert section.properties["hostname"] == "other"
    assert section.properties["memory"] == "256"
    assert section.properties["unprivileged"] == "1"
    assert section.properties["entrypoint"] == "/bin/sh /dev/.hypervisor-oci-exec"
    assert mount_points(section) == {"mp0": {"volume": "/s", "mp": "/t"}}
    assert section.values("lxc.init.uid") == ["5"]
    given["mounts"] = []
    text = proxmox_config(IMAGE, current=text, drop_mounts=["/t"], **given)
    assert mount_points(parse(text).main) == {}


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"current": CURRENT}, "name is missing"),
        ({"current": "", "name": "web"}, "current has no rootfs"),
        ({"current": None, "name": "web"}, "current must be"),
        ({"current": CURRENT, "name": "a_b"}, "hostname: "),
        ({"current": CURRENT, "name": "web", "version": "6.0.18"}, "user: "),
        ({"current": CURRENT, "name": "web", "settings": {"mp0": "x"}}, "settings"),
        ({"current": CURRENT, "name": "web", "command": ["a\nb"]}, "command: "),
    ],
)
def test_errors(arguments: dict[str, t.Any], what: str) -> None:
    """One sentence, as an error of a filter."""
    with pytest.raises(AnsibleFilterError) as caught:
        proxmox_config(IMAGE, **arguments)
    assert what in str(caught.value)
