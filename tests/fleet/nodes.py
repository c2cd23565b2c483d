# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which Pythons the nodes of a fleet get, and the web server of a fleet that has one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t

from ..tools import pythons
from .fleet import Fleet, FleetError, wait_for

_HERE = os.path.dirname(os.path.abspath(__file__))
_SYSTEM = "/usr/bin/python3"
WEB = "web"


def python_paths() -> tuple[dict[str, str], list[str]]:
    """Pythons by version: the oldest and the newest that the controller's ansible-core is tested with on nodes.

    Where this machine lacks one there is its own Python in its stead; the second value says so.
    """
    from ansible.release import __version__

    core = ".".join(__version__.split(".")[:2])
    wanted = pythons.NODES.get(core)
    if wanted is None:
        wanted = pythons.NODES[max(pythons.NODES)]
    found = {}
    said = []
    for version in (wanted[0], wanted[-1]):
        path = pythons.find(version)
        if path is None:
            said.append(f"no Python {version} here: a node has {_SYSTEM} instead")
        found[version] = path or _SYSTEM
    return found, said


class WebServer:
    """Serves a folder of the controller in a node's network."""

    def __init__(self, fleet: Fleet, folder: str) -> None:
        self._fleet = fleet
        self.folder = folder
        self.log = os.path.join(fleet.folder, "web.log")
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, name: str) -> str:
        """Of a file in the folder."""
        return f"http://{self._fleet.nodes[WEB].address}/{name}"

    def start(self, die_after: int = 0, authorization: str = "") -> None:
        """Serve; with ``die_after`` only so many bytes, with ``authorization`` only whom sends that header."""
        node = self._fleet.nodes[WEB]
        script = os.path.join(_HERE, "webserver.py")
        self._process = subprocess.Popen(
            [
                *("nsenter", "-t", str(node.pid), "-n", "--"),
                *(sys.executable, "-I", "-B", script),
                *(node.address, "80", self.folder, self.log, str(die_after), authorization),
            ],
            stdin=subprocess.DEVNULL,
        )
        wait_for("the web server", lambda: node.listens(80))

    def stop(self) -> None:
        """End it, with all connections."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def died(self) -> bool:
        """Whether it ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def served(self) -> list[dict[str, t.Any]]:
        """The answers since the last call."""
        try:
            with open(self.log, encoding="utf-8") as file:
                lines = [json.loads(line) for line in file]
        except FileNotFoundError:
            return []
        os.unlink(self.log)
        return lines

    def sent(self) -> int:
        """Bytes of bodies since the last call; raises ``FleetError`` if nothing was asked for."""
        answers = self.served()
        if not answers:
            raise FleetError("the web server was asked for nothing")
        return sum(answer["sent"] for answer in answers)
