# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs ansible-playbook against a fleet, and tells what came of it and what it cost.

Only to be used inside of ``namespaces.enter``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import typing as t
from dataclasses import dataclass

from .fleet import Counters, Fleet, FleetError, arguments_of, on_controller, pids, stat_of, wait_for

_HERE = os.path.dirname(os.path.abspath(__file__))
MODULE = "hypervisor.oci.oci_rootfs"
_CONFIG = """\
[defaults]
localhost_warning = false
host_key_checking = true
retry_files_enabled = false
interpreter_python = auto_silent
[inventory]
inventory_unparsed_warning = false
"""


def collections_folder() -> str:
    """The folder of collections that this file lies in, or that Python imports this collection from."""
    own = _HERE.partition(f"{os.sep}ansible_collections{os.sep}")
    for folder in [own[0]] * bool(own[1]) + sys.path:
        if os.path.isdir(os.path.join(folder, "ansible_collections", "hypervisor")):
            return os.path.abspath(folder)
    raise FleetError("this collection is not in a folder of collections")


@dataclass(frozen=True)
class Task:
    """How one task ended on one host; ``status`` is ok, failed, unreachable or skipped, times in seconds."""

    host: str
    name: str
    status: str
    began: float
    ended: float
    result: dict[str, t.Any]

    @property
    def changed(self) -> bool:
        """Whether it says so."""
        return bool(self.result.get("changed"))

    @property
    def message(self) -> str:
        """The error's text."""
        return str(self.result.get("msg", ""))


@dataclass(frozen=True)
class Run:
    """One run of ansible-playbook: CPU time is the controller's, its ssh clients' included."""

    status: int
    seconds: float
    cpu: float
    output: str
    tasks: tuple[Task, ...]
    counters: t.Mapping[str, Counters]

    def of(self, host: str, name: str = "rootfs") -> Task:
        """Return the result of a task on a host. Raises ``FleetError`` if the task has none."""
        found = [task for task in self.tasks if (task.host, task.name) == (host, name)]
        if not found:
            raise FleetError(f"no result of {name!r} from {host}:\n{self.output}")
        return found[-1]

    def must(self) -> Run:
        """Itself; raises ``FleetError`` if anything failed."""
        if self.status:
            raise FleetError(f"ansible-playbook ended with {self.status}:\n{self.output}")
        return self


def rootfs(name: str = "rootfs", **options: t.Any) -> dict[str, t.Any]:
    """A task that provisions; its name is what ``Run.of`` finds it by."""
    return {"name": name, MODULE: options}


def play(*tasks: dict[str, t.Any], **keywords: t.Any) -> dict[str, t.Any]:
    """A play for all nodes of the inventory."""
    return {"hosts": "fleet", "gather_facts": False, **keywords, "tasks": list(tasks)}


class Controller:
    """Where playbooks are run from: a folder with all that Ansible keeps, its open connections among it."""

    def __init__(self, fleet: Fleet, name: str, settings: t.Mapping[str, str] | None = None) -> None:
        self.fleet = fleet
        self.folder = os.path.join(fleet.folder, name)
        self.settings = dict(settings or {})
        for name in ("home", "tmp", "cp", "files"):
            os.makedirs(os.path.join(self.folder, name))
        with open(self._path("ansible.cfg"), "w", encoding="ascii") as file:
            file.write(_CONFIG)
        self._number = 0

    def _path(self, *names: str) -> str:
        return os.path.join(self.folder, *names)

    def environment(self, results: str, settings: t.Mapping[str, str]) -> dict[str, str]:
        """Nothing of the user's own configuration, and nothing in the user's home."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ANSIBLE_", "COVERAGE_", "PYTHON", "SSH_"))
        }
        return {
            **kept,
            "HOME": self._path("home"),
            "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "ANSIBLE_CONFIG": self._path("ansible.cfg"),
            "ANSIBLE_HOME": self._path("home", ".ansible"),
            "ANSIBLE_LOCAL_TEMP": self._path("tmp"),
            "ANSIBLE_COLLECTIONS_PATH": collections_folder(),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": self._path("cp"),
            "ANSIBLE_CALLBACK_PLUGINS": os.path.join(_HERE, "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "fleet_results",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            # a node that is gone is tried again by each way of sending a file
            "ANSIBLE_TIMEOUT": "3",
            "FLEET_RESULTS": results,
            **self.settings,
            **settings,
        }

    def start(
        self,
        plays: t.Sequence[dict[str, t.Any]] | str,
        names: t.Iterable[str] | None = None,
        arguments: t.Sequence[str] = (),
        **settings: str,
    ) -> Playbook:
        """Start ansible-playbook with plays, or a playbook's name, on the nodes of these names, or all that have sshd."""
        self._number += 1
        stem = f"{self._number:03}"
        inventory, results = (self._path(f"{stem}.{name}") for name in ("inventory.json", "results"))
        if names is None:
            names = self.fleet.managed
        hosts = self.fleet.inventory(names)
        with open(inventory, "w", encoding="utf-8") as file:
            json.dump({"all": {"children": hosts}}, file)
        playbook = plays
        if not isinstance(playbook, str):
            # JSON is YAML
            playbook = self._path(f"{stem}.playbook.json")
            with open(playbook, "w", encoding="utf-8") as file:
                json.dump(plays, file)
        command = [program("ansible-playbook"), "-i", inventory, *arguments, playbook]
        environment = self.environment(results, settings)
        return Playbook(self, list(hosts["fleet"]["hosts"]), command, environment)

    def run(
        self,
        plays: t.Sequence[dict[str, t.Any]] | str,
        names: t.Iterable[str] | None = None,
        arguments: t.Sequence[str] = (),
        **settings: str,
    ) -> Run:
        """Start it and wait for its end."""
        return self.start(plays, names, arguments, **settings).finish()

    def connections(self) -> list[int]:
        """The ssh clients of this controller that run in the background, and keep a connection open."""
        sockets = self._path("cp").encode()
        return [
            pid
            for pid in pids()
            if on_controller(pid) and (stat := stat_of(pid)).command == "ssh"
            # left by whoever had started it to process 1, which is us
            and stat.parent == os.getpid() and sockets in arguments_of(pid)
        ]

    def disconnect(self) -> float:
        """End the ssh clients that keep connections open; returns the processor time that they took, in seconds."""
        clients = self.connections()
        spent = sum(stat_of(pid).cpu for pid in clients)
        for pid in clients:
            os.kill(pid, signal.SIGTERM)
        for pid in clients:
            wait_for(f"the end of ssh client {pid}", lambda: _reaped(pid))  # noqa: B023
        return spent


class Playbook:
    """ansible-playbook at work."""

    def __init__(
        self, controller: Controller, names: t.Sequence[str], command: list[str], environment: dict[str, str]
    ) -> None:
        self._controller = controller
        self._nodes = {name: controller.fleet.nodes[name] for name in names}
        self._results = environment["FLEET_RESULTS"]
        self._output = f"{self._results}.output"
        self._before = {name: node.counters() for name, node in self._nodes.items() if node.pid}
        self._spent = self._clients()
        self._began = time.monotonic()
        with open(self._output, "wb") as file:
            self.process = subprocess.Popen(
                command,
                env=environment,
                cwd=os.path.dirname(self._results),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def carried(self, name: str) -> Counters:
        """What a node's link has carried since the start."""
        return self._nodes[name].counters() - self._before[name]

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Ctrl-C: the signal to all of it, as a terminal does."""
        os.killpg(self.process.pid, number)

    def finish(self, timeout: float = 180) -> Run:
        """Wait for the end. Raises ``FleetError`` if it does not come in time."""
        deadline = time.monotonic() + timeout
        while True:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                self.interrupt(signal.SIGKILL)
                self.process.wait()
                raise FleetError(f"no end in {timeout} s:\n{self.output()}")
            time.sleep(0.01)
        seconds = time.monotonic() - self._began
        self.process.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        clients = self._clients()
        carried = {name: self.carried(name) for name in self._before if self._nodes[name].pid}
        return Run(
            self.process.returncode,
            seconds,
            usage.ru_utime + usage.ru_stime + clients - self._spent,
            self.output(),
            self.tasks(),
            carried,
        )

    def _clients(self) -> float:
        return sum(stat_of(pid).cpu for pid in self._controller.connections())

    def output(self) -> str:
        """What it has printed."""
        with open(self._output, encoding="utf-8", errors="replace") as file:
            return file.read()

    def tasks(self) -> tuple[Task, ...]:
        """What has ended."""
        try:
            with open(self._results, encoding="utf-8") as file:
                lines = [json.loads(line) for line in file]
        except FileNotFoundError:
            return ()
        return tuple(Task(name=line.pop("task"), **line) for line in lines)


def _reaped(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def program(name: str) -> str:
    """The path of a program of ansible-core: beside our Python, or on the PATH."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    found = beside if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise FleetError(f"{name} is not there: it comes with ansible-core")
    return found
