# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans of one container for every runtime, for the tests of ``_plan``."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.known import Node, Root
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.plan import plan
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.request import Request, parse_request
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.runtimes import OWN_VARIABLES, RUNTIMES

CONF = "arch: amd64\nrootfs: local:vm-100-disk-0,size=1G\n"
CONF_PATH = "/etc/pve/lxc/100.conf"
NOTE_PATH = "/var/lib/hypervisor.oci/containers/web/volume.json"
MAPS: dict[str, t.Any] = {"uid_map": ["0:100000:65536"], "gid_map": ["0:100000:65536"]}
IMAGE: dict[str, t.Any] = {
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
RESULT: dict[str, t.Any] = {"image": IMAGE, "manifest_digest": "sha256:1", "changed": True}
ROOT = Root(
    RESULT, {"nspawn": {"getent": True, "uid": 1000, "gid": 1001, "groups": []}}, [{"source": "/v", "target": "/data"}]
)
# every runtime under every service
CASES = [(name, systemd) for name in RUNTIMES for systemd in ((False, True) if name != "proxmox" else (False,))]


def request_of(runtime: str, **more: t.Any) -> Request:
    """Return what minimal variables and some more ask for."""
    return parse_request({"name": "web", "runtime": runtime, "src": "a.tar", "vmid": 100, **more}, OWN_VARIABLES)


def node_of(systemd: bool = False, note: t.Any = None, **more: t.Any) -> Node:
    """Return a node whose resolver is systemd-resolved, and which has a container of Proxmox VE."""
    texts = {
        CONF_PATH: CONF,
        "/etc/resolv.conf": "nameserver 127.0.0.1\n",
        "/run/systemd/resolve/resolv.conf": "nameserver 10.0.0.1\n",
    }
    if note is not None:
        texts[NOTE_PATH] = note if isinstance(note, str) else json.dumps(note)
    return Node(**{"paths": frozenset(["/run/systemd/system"] if systemd else []), "texts": texts, **more})


def planned(
    runtime: str, *, root: Root | None = ROOT, node: Node | None = None, contents: bool = True, **more: t.Any
) -> dict[str, t.Any]:
    """Return the result of a plan."""
    return plan(request_of(runtime, **more), node or node_of(), root).as_result(contents)


def file_of(result: dict[str, t.Any], end: str) -> dict[str, t.Any]:
    """Return the file whose path has this end."""
    found: dict[str, t.Any] = next(item for item in result["files"] if item["path"].endswith(end))
    return found
