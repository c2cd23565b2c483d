# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""runc and crun as runtimes of the role."""

from __future__ import annotations

import json
import posixpath
import typing as t

from ...module_utils._errors import show
from .control import foreground
from .etc_files import MADE
from .model import Container
from .quoting import shell, systemd
from .request import Request
from .runtime import Context, Places
from .service import restart_lines
from .runtime_spec import dropped_labels, runtime_spec

_MOST_SHOWN = 10
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


class OciRuntime:
    """A program with runc's command line, which runs OCI bundles."""

    shown = "spec"
    needs_user_info = False

    def __init__(self, program: str) -> None:
        self.program = program
        self.programs = (program,)

    def folder(self, request: Request) -> str:
        return request.folder or f"/var/lib/hypervisor.oci/bundles/{request.name}"

    def rootfs(self, request: Request, folder: str) -> str:
        return request.rootfs or f"{folder}/rootfs"

    def check(self, request: Request, places: Places) -> None:
        """All of it is checked when the document is merged."""

    def file(self, request: Request, places: Places) -> str:
        return f"{places.folder}/config.json"

    def render(self, context: Context) -> str:
        document = runtime_spec(
            context.container, network=context.request.network, settings=context.request.runtime_spec_settings
        )
        return spec_text(document)

    def wrapper(self, context: Context) -> str | None:
        # JSON holds every word
        return None

    def version(self) -> list[str]:
        return []

    def warnings(self, container: Container) -> list[str]:
        return label_warnings(container)

    def directories(self, request: Request, places: Places) -> list[dict[str, t.Any]]:
        return [{"path": posixpath.dirname(places.rootfs), "passable": True}]

    def unit(self, request: Request) -> str:
        return f"hypervisor-oci-{request.name}.service"

    def unit_file(self, request: Request) -> str:
        return f"/etc/systemd/system/{self.unit(request)}"

    def unit_text(self, context: Context) -> str:
        name = context.request.name
        folder = systemd(context.places.folder)
        return MADE + (
            f"[Unit]\nDescription=Container {name}\nAfter=network.target\nStartLimitIntervalSec=0\n\n[Service]\n"
            f"ExecStartPre=-{self.program} delete --force {name}\n"
            f"ExecStart={self.program} run --bundle {folder} {name}\n"
            f"ExecStopPost=-{self.program} delete --force {name}\n"
            "# crun makes a mapped user the owner of what it reads from, and the default, /dev/null, is the node's own\n"
            "StandardInput=data\nStandardInputData=Cg==\nKillMode=mixed\n"
            f"KillSignal={context.container.stop_signal}\n"
            f"TimeoutStopSec={context.request.stop_timeout}\n"
            + restart_lines(context.request)
            + "Delegate=yes\n\n[Install]\nWantedBy=multi-user.target\n"
        )

    def wanted_units(self, request: Request) -> list[str]:
        return []

    def control(self, context: Context) -> str:
        prepare = (
            "    # what a node that crashed has left\n"
            f'    {self.program} delete --force "$name" >/dev/null 2>&1 || true\n'
        )
        folder = shell(context.places.folder)
        command = f'{self.program} run --bundle {folder} "$name"'
        return foreground(prepare, command, _STOP.replace("@runtime@", self.program))

    def log(self, request: Request, places: Places) -> list[str]:
        unit = self.unit(request)
        return ["journalctl", "--unit", unit, "--lines=20", "--no-pager", "--output=cat"]  # fmt: skip

    def id_ranges(self, request: Request) -> list[dict[str, str]]:
        return []


def spec_text(document: t.Mapping[str, t.Any]) -> str:
    """Return the text of config.json, in ASCII: no byte of an image stands in the file as it was."""
    return json.dumps(document, indent=2) + "\n"


def label_warnings(container: Container) -> list[str]:
    """Return a warning if labels of the image were left out, since a runtime would obey them as annotations."""
    dropped = dropped_labels(container)
    if not dropped:
        return []
    shown = ", ".join(map(show, dropped[:_MOST_SHOWN]))
    rest = len(dropped) - _MOST_SHOWN
    more = f" and {rest} more" if rest > 0 else ""
    return [f"labels of the image did not become annotations, since a runtime would obey them: {shown}{more}"]
