# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""runc and crun as runtimes of the role."""

from __future__ import annotations

import posixpath
import typing as t

from .._container.model import Container
from .._container.runtime_spec import label_warnings, runtime_spec, spec_text
from .control import foreground
from .etc_files import MADE
from .health import Check, Joining, mark_of
from .known import Places
from .quoting import shell, systemd
from .request import Request
from .runtime import Context, Directory, File
from .service import ServedRuntime, restart_lines
from .stack import script_prefix, unit_lines, unit_prefix

_STOP = """\
    # the runtime waits in the foreground and passes signals on
    kill -s "$signal" "$pid"
    ended_within "$timeout" && return
    @runtime@ kill "$name" KILL || true
    ended_within 5 && return
    @runtime@ delete --force "$name" || true
    kill -s KILL "$pid" || true
    ended_within 5
"""


def _check_file(places: Places) -> str:
    """Return the path of the process that a health check is: that of the container with another command."""
    return f"{places.own_folder}/check.json"


class OciRuntime(ServedRuntime):
    """A program with runc's command line, which runs OCI bundles."""

    variables = {"runtime_spec_settings": "Facts"}
    settings = "runtime_spec_settings"
    shown = "spec"

    def __init__(self, program: str) -> None:
        self.program = program
        self.programs = (program,)

    def folder(self, request: Request) -> str:
        return request.folder or f"/var/lib/hypervisor.oci/bundles/{request.name}"

    def rootfs(self, request: Request, folder: str) -> str:
        return request.rootfs or f"{folder}/rootfs"

    def file(self, request: Request, places: Places) -> str:
        return f"{places.folder}/config.json"

    def render(self, context: Context) -> str:
        return spec_text(self._document(context))

    def _document(self, context: Context) -> dict[str, t.Any]:
        return runtime_spec(
            context.container,
            network=context.request.network,
            settings=context.request.own.get("runtime_spec_settings") or {},
        )

    def wrapper(self, context: Context) -> str | None:
        del context
        # JSON expresses every word
        return None

    def warnings(self, container: Container) -> list[str]:
        return label_warnings(container)

    def directories(self, request: Request, places: Places) -> list[Directory]:
        return [Directory(posixpath.dirname(places.rootfs), passable=True)]

    def join(self, context: Context, check: Check) -> Joining:
        del check
        name = context.request.name
        return Joining((self.program, "exec", "--process", _check_file(context.places), name))

    def join_files(self, context: Context, argv: tuple[str, ...]) -> list[File]:
        process = self._document(context)["process"]
        env = [*process.get("env", ()), mark_of(context.request)]
        check = {**process, "args": list(argv), "env": env, "terminal": False}
        # a diff shows no value of the environment
        return [File(_check_file(context.places), spec_text(check), "none", "0600")]

    def unit(self, request: Request) -> str:
        return f"hypervisor-oci-{request.name}.service"

    def unit_text(self, context: Context) -> str:
        name = context.request.name
        folder = systemd(context.places.folder)
        return MADE + (
            f"[Unit]\nDescription=Container {name}\nAfter=network.target\nStartLimitIntervalSec=0\n\n[Service]\n"
            f"ExecStartPre=-{self.program} delete --force {name}\n"
            f"{unit_lines(context)}ExecStart={unit_prefix(context)}{self.program} run --bundle {folder} {name}\n"
            f"ExecStopPost=-{self.program} delete --force {name}\n"
            "# crun makes a mapped user the owner of what it reads from, and the default, /dev/null, is the node's own\n"
            "StandardInput=data\nStandardInputData=Cg==\nKillMode=mixed\n"
            f"KillSignal={context.container.stop_signal}\n"
            f"TimeoutStopSec={context.request.stop_timeout}\n"
            + restart_lines(context.request)
            + "Delegate=yes\n\n[Install]\nWantedBy=multi-user.target\n"
        )

    def control(self, context: Context) -> str:
        prepare = (
            "    # what a node that crashed has left\n"
            f'    {self.program} delete --force "$name" >/dev/null 2>&1 || true\n'
        )
        folder = shell(context.places.folder)
        command = f'{script_prefix(context)}{self.program} run --bundle {folder} "$name"'
        return foreground(prepare, command, _STOP.replace("@runtime@", self.program))

    def unit_file(self, request: Request) -> str:
        return f"/etc/systemd/system/{self.unit(request)}"
