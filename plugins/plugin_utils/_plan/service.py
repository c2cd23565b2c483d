# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The base of runtimes that systemd runs, or a control script on nodes without systemd."""

from __future__ import annotations

import typing as t

from .._container.model import Container, ContainerError, Option
from .control import control_script, journal_script
from .health import Check, Joining
from .known import Node, Places
from .request import Request
from .runtime import Context, Directory, File, Service
from .stack import mounter_files

# systemd starts them alike
_SYSTEMD_RESTARTS = {"unless-stopped": "always"}
_ALIVE = [f"ActiveState={state}" for state in ("active", "activating", "deactivating", "reloading", "refreshing")]
# patterns for the output of systemctl show
_RUNNING = r"(?m)^ActiveState=(?!inactive$|failed$)"
# a unit that systemd started again does not stay
_STAYS = r"(?ms)\A(?=.*^ActiveState=active$)(?=.*^NRestarts=0$)"


class ServedRuntime:
    """What these runtimes share; each says what its unit and its control script contain."""

    version_command: tuple[str, ...] = ()
    variables: t.Mapping[str, str] = {}
    settings = "settings"
    shown = "settings"
    needs_user_info = False
    is_managed = False
    paths: tuple[str, ...] = ()
    # whether it starts containers with the node without systemd
    starts_with_node = False

    def join(self, context: Context, check: Check) -> Joining:
        """Return how a health check gets into the container."""
        raise NotImplementedError

    def join_files(self, context: Context, argv: tuple[str, ...]) -> list[File]:
        """Return no file."""
        del context, argv
        return []

    def unit(self, request: Request) -> str:
        """Return the name of the unit."""
        raise NotImplementedError

    def unit_file(self, request: Request) -> str:
        """Return the file of the role that makes or changes that unit."""
        return f"/etc/systemd/system/{self.unit(request)}.d/hypervisor.oci.conf"

    def unit_text(self, context: Context) -> str:
        """Return the text of that file."""
        raise NotImplementedError

    def control(self, context: Context) -> str:
        """Return the functions ``alive``, ``start``, ``stop`` and ``log`` of the control script."""
        raise NotImplementedError

    def units(self, request: Request, is_enabled: bool) -> list[str]:
        """Return the units to enable or disable."""
        del is_enabled
        return [self.unit(request)]

    def teller(self, context: Context) -> str:
        """Return the script that tells how the last start under systemd ended."""
        return journal_script(context, self.unit(context.request))

    def check(self, request: Request, places: Places) -> None:
        """Check nothing: the renderer checks it all."""

    def warnings(self, container: Container) -> list[str]:
        """Return no warning."""
        del container
        return []

    def directories(self, request: Request, places: Places) -> list[Directory]:
        """Return no directory."""
        del request, places
        return []

    def id_ranges(self, request: Request) -> list[dict[str, str]]:
        """Return no line."""
        del request
        return []

    def volume(self, request: Request, node: Node) -> str:
        """Return nothing: the root is a directory."""
        del request, node
        return ""

    def volume_commands(self, request: Request) -> dict[str, list[str]]:
        """Return nothing: the root is a directory."""
        del request
        return {}

    def service(self, request: Request, places: Places, node: Node) -> Service:
        """Return the service. Raises ``ContainerError`` for a restart policy without systemd."""
        if node.systemd:
            return self._systemd(request, places)
        if request.restart != "no" and request.state != "absent":
            raise ContainerError(
                Option("restart"), f": '{request.restart}' needs systemd, which does not run on this node; use 'no'"
            )
        return self._script(request, places)

    def service_files(self, context: Context) -> list[File]:
        """Return the script of the container, and its unit's file under systemd."""
        if context.node.systemd:
            unit = File(self.unit_file(context.request), self.unit_text(context))
            return [unit, File(context.places.control, self.teller(context), mode="0700"), *mounter_files(context)]
        script = control_script(context, self.control(context))
        return [File(context.places.control, script, mode="0700"), *mounter_files(context)]

    def _systemd(self, request: Request, places: Places) -> Service:
        unit, file = self.unit(request), self.unit_file(request)
        enabled = {"started": request.autostart, "stopped": False}.get(request.state)
        return Service(
            kind="systemd",
            # systemd counts how often it restarted the unit until reset-failed
            start=[[places.control, "begin"], ["systemctl", "reset-failed", unit], ["systemctl", "start", unit]],
            stop=["systemctl", "stop", unit],
            status=["systemctl", "show", "--property=ActiveState", "--property=NRestarts", unit],
            log=[places.control, "log"],
            running=_RUNNING,
            alive=_ALIVE,
            stays=_STAYS,
            status_codes=[0],
            unit=unit,
            units=self.units(request, bool(enabled)),
            enabled=enabled,
            unit_file=file,
            removed=file if file.endswith(".service") else file.rpartition("/")[0],
        )

    def _script(self, request: Request, places: Places) -> Service:
        script = places.control
        wants_start = request.autostart and request.state == "started"
        note = f"Without systemd, {request.name} does not start with the node"
        return Service(
            kind="script",
            start=[[script, "start"]],
            stop=[script, "stop"],
            status=[script, "status"],
            log=[script, "log"],
            running=r"\Arunning$",
            alive=["running"],
            stays=r"\Arunning$",
            # 2: the script does not exist
            status_codes=[0, 2, 3],
            note=note if wants_start and not self.starts_with_node else "",
        )


def restart_lines(request: Request) -> str:
    """Return the lines of a unit that say when systemd starts it again."""
    restart = _SYSTEMD_RESTARTS.get(request.restart, request.restart)
    return f"Restart={restart}\nRestartSec=1\n"
