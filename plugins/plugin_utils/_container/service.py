# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""What starts and stops a container on the node: systemd, a script of the role, or Proxmox VE."""

from __future__ import annotations

import typing as t

from .model import ContainerError
from .request import Request
from .runtime import Node, Places, Runtime

Service = t.Dict[str, t.Any]
# systemd starts them alike
_SYSTEMD_RESTARTS = {"unless-stopped": "always"}


def service_of(request: Request, places: Places, node: Node, runtime: Runtime) -> Service:
    """Return the commands of the service, and the patterns that tell from its status whether the container runs.

    Raises ``ContainerError`` if the service cannot do what is asked for.
    """
    if request.runtime == "proxmox":
        return _proxmox(request, places, runtime)
    if node.systemd:
        return _systemd(request, places, runtime)
    if request.restart != "no" and request.state != "absent":
        raise ContainerError(f"restart: '{request.restart}' needs systemd, which does not run on this node; use 'no'")
    return _script(request, places)


def restart_lines(request: Request) -> str:
    """Return the lines of a unit that say when systemd starts it again."""
    restart = _SYSTEMD_RESTARTS.get(request.restart, request.restart)
    return f"Restart={restart}\nRestartSec=1\n"


def _enabled(request: Request) -> bool | None:
    if request.state == "stopped":
        return False
    return request.autostart if request.state == "started" else None


def _systemd(request: Request, places: Places, runtime: Runtime) -> Service:
    unit = runtime.unit(request)
    file = runtime.unit_file(request)
    enabled = _enabled(request)
    return {
        "kind": "systemd",
        "unit": unit,
        # it counts how often the unit was started again, and only reset-failed lets it forget
        "start": [["systemctl", "reset-failed", unit], ["systemctl", "start", unit]],
        "stop": ["systemctl", "stop", unit],
        "status": ["systemctl", "show", "--property=ActiveState", "--property=NRestarts", unit],
        "status_codes": [0],
        "running": r"(?m)^ActiveState=(?!inactive$|failed$)",
        # one that systemd has to start again and again does not run
        "stays": r"(?ms)\A(?=.*^ActiveState=active$)(?=.*^NRestarts=0$)",
        "log": runtime.log(request, places),
        "units": [unit, *(runtime.wanted_units(request) if enabled else [])],
        "enabled": enabled,
        "unit_file": file,
        "removed": file if file.endswith(".service") else file.rpartition("/")[0],
        "note": "",
    }  # fmt: skip


def _script(request: Request, places: Places) -> Service:
    script = places.control
    starts_itself = request.runtime == "lxc"
    note = ""
    if request.autostart and request.state == "started" and not starts_itself:
        note = f"Without systemd, nothing starts {request.name} when the node starts"
    return {
        "kind": "script",
        "unit": "",
        "start": [[script, "start"]],
        "stop": [script, "stop"],
        "status": [script, "status"],
        # 2: there is no such script
        "status_codes": [0, 2, 3],
        "running": r"\Arunning$",
        "stays": r"\Arunning$",
        "log": [script, "log"],
        "units": [],
        "enabled": None,
        "unit_file": "",
        "removed": "",
        "note": note,
    }


def _proxmox(request: Request, places: Places, runtime: Runtime) -> Service:
    vmid = str(request.vmid)
    timeout = str(request.stop_timeout)
    return {
        "kind": "proxmox",
        "unit": "",
        "start": [["pct", "start", vmid]],
        "stop": ["pct", "shutdown", vmid, "--forceStop", "1", "--timeout", timeout],
        "status": ["pct", "status", vmid],
        "status_codes": [0],
        "running": r"\Astatus: running$",
        "stays": r"\Astatus: running$",
        "log": runtime.log(request, places),
        "units": [],
        "enabled": None,
        "unit_file": "",
        "removed": "",
        "note": "",
    }
