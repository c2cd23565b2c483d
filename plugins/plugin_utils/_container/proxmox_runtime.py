# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Proxmox VE as a runtime of the role."""

from __future__ import annotations

import typing as t

from . import proxmox
from .lxc_values import plan_start
from .model import Container
from .request import Request
from .runtime import Context, Places


class Proxmox:
    """A container of Proxmox VE, which has its volumes, networks and number already."""

    programs = ("pct",)
    shown = "settings"
    needs_user_info = False

    def folder(self, request: Request) -> str:
        return f"{request.state_folder}/{request.name}"

    def rootfs(self, request: Request, folder: str) -> str:
        return f"/var/lib/lxc/{request.vmid or ''}/rootfs"

    def check(self, request: Request, places: Places) -> None:
        """All of it is checked when the configuration is rendered."""

    def file(self, request: Request, places: Places) -> str:
        return f"/etc/pve/lxc/{request.vmid}.conf"

    def render(self, context: Context) -> str:
        request = context.request
        starts = request.autostart and request.state != "stopped"
        noted = context.node.note.get("places") or {}
        return proxmox.render_proxmox(
            context.container,
            context.node.configuration,
            wrapper=context.wrapper,
            version=context.node.version,
            settings={"onboot": 1 if starts else 0, **request.proxmox_settings},
            drop_mounts=[mount["target"] for mount in noted.get("mounts") or ()],
        )

    def wrapper(self, context: Context) -> str | None:
        if not proxmox.needs_wrapper(context.container):
            return None
        return plan_start(context.container, False).script

    def version(self) -> list[str]:
        return ["dpkg-query", "--show", "--showformat=${Version}", "pve-container"]

    def warnings(self, container: Container) -> list[str]:
        return []

    def directories(self, request: Request, places: Places) -> list[dict[str, t.Any]]:
        return [{"path": places.rootfs.rpartition("/")[0], "passable": True}]

    def unit(self, request: Request) -> str:
        return f"pve-container@{request.vmid}"

    def unit_file(self, request: Request) -> str:
        return ""

    def unit_text(self, context: Context) -> str:
        return ""

    def wanted_units(self, request: Request) -> list[str]:
        return []

    def control(self, context: Context) -> str:
        return ""

    def log(self, request: Request, places: Places) -> list[str]:
        unit = self.unit(request)
        return ["journalctl", "--unit", unit, "--lines=10", "--no-pager", "--output=cat"]  # fmt: skip

    def id_ranges(self, request: Request) -> list[dict[str, str]]:
        return []
