# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""systemd-nspawn as a runtime of the role."""

from __future__ import annotations

import posixpath
import typing as t
from collections.abc import Mapping

from .._container import nspawn
from .._container.model import ContainerError, Option
from .by_systemd import by_systemd
from .control import foreground
from .etc_files import MADE
from .health import Check, Joining, mark_of
from .known import Places
from .quoting import shell, systemd
from .request import Request
from .runtime import Context, Directory
from .service import ServedRuntime, restart_lines
from .stack import script_prefix, unit_lines, unit_prefix

_DEFAULTS: dict[str, dict[str, t.Any]] = {"Exec": {"ResolvConf": "off", "Timezone": "off", "LinkJournal": "no"}}
_NO_CHECK = (
    "systemd-nspawn has no command that joins a container whose first process is not systemd with D-Bus, and its seccomp filter"
    " cannot be taken over, so a health check would have more rights than the container"
)
# names of a first program that is, or leads to, systemd
_INITS = ("init", "systemd")
_NOT_REGISTERED = "a container of systemd-nspawn is reached by its name only where systemd runs the node"
_STOP = """\
    # nspawn sends the container its KillSignal, and ends it when it is asked a second time
    kill -s TERM "$pid"
    ended_within "$timeout" && return
    kill -s TERM "$pid"
    ended_within 5 && return
    kill -s KILL "$pid"
    ended_within 5
"""


class Nspawn(ServedRuntime):
    """systemd-nspawn, which reads /etc/systemd/nspawn/NAME.nspawn."""

    programs = ("systemd-nspawn",)
    variables = {"nspawn_settings": "Facts"}
    settings = "nspawn_settings"
    needs_user_info = True

    def folder(self, request: Request) -> str:
        return f"{request.state_folder}/{request.name}"

    def rootfs(self, request: Request, folder: str) -> str:
        return request.rootfs or f"/var/lib/machines/{request.name}"

    def check(self, request: Request, places: Places) -> None:
        for section, keys in _given(request).items():
            if not isinstance(keys, Mapping):
                raise ContainerError(Option(f"settings.{section}"), " must be a mapping")

    def file(self, request: Request, places: Places) -> str:
        return f"/etc/systemd/nspawn/{request.name}.nspawn"

    def render(self, context: Context) -> str:
        return nspawn.render_nspawn(
            context.container, settings=_settings(context.request), nss=context.nss, wrapper=context.wrapper
        )

    def wrapper(self, context: Context) -> str | None:
        return nspawn.wrapper_script(context.container)

    def directories(self, request: Request, places: Places) -> list[Directory]:
        return [Directory("/etc/systemd/nspawn", mode="0755")]

    def unit(self, request: Request) -> str:
        return f"systemd-nspawn@{request.name}.service"

    def unit_text(self, context: Context) -> str:
        rootfs = systemd(context.places.rootfs)
        return MADE + (
            f"[Unit]\nStartLimitIntervalSec=0\n\n[Service]\n{unit_lines(context)}ExecStart=\n"
            f"ExecStart={unit_prefix(context)}systemd-nspawn --quiet --keep-unit --settings=trusted --console=pipe"
            f" --machine={context.request.name} --directory={rootfs}\n"
            "# systemd-nspawn, too, gives what it reads from to the container's user, and the default, /dev/null, is the"
            " node's own\n"
            "StandardInput=data\nStandardInputData=Cg==\n"
            f"TimeoutStopSec={context.request.stop_timeout}\n" + restart_lines(context.request)
        )

    def join(self, context: Context, check: Check) -> Joining:
        if not _may_be_systemd(context):
            return Joining(refusal=_NO_CHECK)
        if not context.node.systemd:
            return Joining(refusal=_NOT_REGISTERED)
        return by_systemd(context.request.name, context.container, mark_of(context.request), check)

    def units(self, request: Request, is_enabled: bool) -> list[str]:
        return [self.unit(request), *(["machines.target"] if is_enabled else [])]

    def control(self, context: Context) -> str:
        rootfs = shell(context.places.rootfs)
        command = (
            f'{script_prefix(context)}systemd-nspawn --quiet --machine="$name" --directory={rootfs} \\\n'
            "        --settings=trusted --register=no --keep-unit --console=pipe"
        )
        return foreground("", command, _STOP)


def _may_be_systemd(context: Context) -> bool:
    """Return whether the first process is systemd; as long as nobody has looked, whether it has such a name."""
    if context.nss is None:
        return posixpath.basename(context.container.argv[0]) in _INITS
    return bool(context.nss.get("systemd"))


def _given(request: Request) -> t.Mapping[str, t.Any]:
    return request.own.get("nspawn_settings") or {}


def _settings(request: Request) -> dict[str, t.Any]:
    """Return the role's settings with the administrator's merged in; their section Network replaces the role's."""
    network = {"Private": request.network == "private", "VirtualEthernet": False}
    settings = {**_DEFAULTS, "Network": network}
    if "Network" in _given(request):
        settings["Network"] = {}
    for section, keys in _given(request).items():
        settings[section] = {**settings.get(section, {}), **keys}
    return settings
