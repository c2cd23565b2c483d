# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Proxmox VE for the role (docs/behaviour.md, section 10)."""

from __future__ import annotations

import re
from dataclasses import replace

from .._container import proxmox
from .._container.model import Container, ContainerError, Option
from .attach import attach
from .control import told_script
from .health import Check, Joining, mark_of
from .known import Node, Places
from .lxc_runtime import LOG_LEVEL, LXC_LOG
from .quoting import shell
from .request import Request
from .runtime import Context, Directory, File, Service

_LEAST_VMID = 100
_ROOT_VOLUME = re.compile(r"^rootfs: *[^,\n]*", re.MULTILINE)
# pct's own words are the reason if LXC was not reached
_START = 'mkdir -p -m 0700 "${2%/*}"; exec pct start "$1" >"$2" 2>&1'
_TELLER = LXC_LOG.replace("errors() {", "errors_of_lxc() {") + """\
alive() {
    [ "$(pct status @vmid@ 2>/dev/null)" = 'status: running' ]
}

errors() {
    found=$(errors_of_lxc)
    [ -n "$found${status-}" ] || found=$(tail -n 10 @said@ 2>/dev/null | head -c 2048)
    [ -z "$found" ] || echo "$found"
}

"""
_RUNNING = r"\Astatus: running$"


class Proxmox:
    """A container of Proxmox VE, which already has its volumes, networks and number."""

    programs = ("pct",)
    version_command = ("dpkg-query", "--show", "--showformat=${Version}", "pve-container")
    variables = {"proxmox_settings": "Facts", "vmid": "int | None"}
    settings = "proxmox_settings"
    shown = "settings"
    needs_user_info = False
    is_managed = True
    paths: tuple[str, ...] = ()

    def folder(self, request: Request) -> str:
        return f"{request.state_folder}/{request.name}"

    def rootfs(self, request: Request, folder: str) -> str:
        del folder
        return f"/var/lib/lxc/{_vmid(request)}/rootfs"

    def file(self, request: Request, places: Places) -> str:
        del places
        return f"/etc/pve/lxc/{_vmid(request)}.conf"

    def check(self, request: Request, places: Places) -> None:
        """Check nothing: the configuration is checked when it is rendered."""

    def render(self, context: Context) -> str:
        request = context.request
        path = self.file(request, context.places)
        if path not in context.node.texts:
            vmid = _vmid(request)
            raise ContainerError(Option("vmid"), f": this node has no container {vmid}; create it with pct create")
        settings = {
            "onboot": 1 if request.starts_with_node else 0,
            "lxc.console.logfile": _log(request),
            "lxc.log.file": f"{_log(request)}.lxc",
            "lxc.log.level": LOG_LEVEL,
            **(request.own.get("proxmox_settings") or {}),
        }
        options = proxmox.ProxmoxOptions(context.wrapper, context.node.version, settings, context.former_targets)
        return proxmox.render_proxmox(context.container, context.node.texts[path], options)

    def wrapper(self, context: Context) -> str | None:
        if not proxmox.needs_wrapper(context.container):
            return None
        return proxmox.wrapper_script(context.container)

    def warnings(self, container: Container) -> list[str]:
        del container
        return []

    def directories(self, request: Request, places: Places) -> list[Directory]:
        del request
        return [Directory(places.rootfs.rpartition("/")[0], passable=True)]

    def service(self, request: Request, places: Places, node: Node) -> Service:
        del node
        vmid = str(_vmid(request))
        return Service(
            kind="proxmox",
            start=[[places.control, "begin"], ["sh", "-c", _START, "sh", vmid, _said(request)]],
            stop=["pct", "shutdown", vmid, "--forceStop", "1", "--timeout", str(request.stop_timeout)],
            status=["pct", "status", vmid],
            log=[places.control, "log"],
            running=_RUNNING,
            alive=["status: running"],
            stays=_RUNNING,
            status_codes=[0],
        )

    def join(self, context: Context, check: Check) -> Joining:
        # pct exec takes neither user nor environment
        selected = ("-n", str(_vmid(context.request)))
        container = context.container
        return attach(selected, container, mark_of(context.request), check.argv, bool(container.env))

    def join_files(self, context: Context, argv: tuple[str, ...]) -> list[File]:
        del context, argv
        return []

    def service_files(self, context: Context) -> list[File]:
        text = _TELLER.replace("@vmid@", str(_vmid(context.request))).replace("@said@", shell(_said(context.request)))
        context = replace(context, places=replace(context.places, log=_log(context.request)))
        return [File(context.places.control, told_script(context, text), mode="0700")]

    def id_ranges(self, request: Request) -> list[dict[str, str]]:
        del request
        return []

    def volume(self, request: Request, node: Node) -> str:
        text = node.texts.get(f"/etc/pve/lxc/{_vmid(request)}.conf", "")
        match = _ROOT_VOLUME.search(text)
        return match.group() if match else ""

    def volume_commands(self, request: Request) -> dict[str, list[str]]:
        vmid = str(_vmid(request))
        return {"mount": ["pct", "mount", vmid], "unmount": ["pct", "unmount", vmid]}


def _log(request: Request) -> str:
    """Return the file of the console, in a folder that every node of a cluster has: the container may move to another."""
    return f"/var/log/lxc/{_vmid(request)}.oci.log"


def _said(request: Request) -> str:
    """Return the file that holds what pct wrote when it started the container."""
    return f"/run/hypervisor.oci/{request.name}.said"


def _vmid(request: Request) -> int:
    vmid: int = request.own.get("vmid") or 0
    if vmid < _LEAST_VMID:
        raise ContainerError(
            Option("vmid"), " is missing; set it to the number of a container of Proxmox VE whose root volume exists"
        )
    return vmid
