# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the examples of one page: twice, with a failure in between if a step can fail."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import typing as t
from dataclasses import dataclass

import yaml

from .extract import Example
from .images import UPDATED, write_all
from .node import Node

# The programs of the ansible-core in this Python, wherever it is installed.
_PLAYBOOK = [sys.executable, "-c", "from ansible.cli.playbook import main; main()"]
_CONFIG_PROGRAM = [sys.executable, "-c", "from ansible.cli.config import main; main()"]
# seconds
_PATIENCE = 300
_CHANGED = re.compile(r"^node1 +: ok=\d+ +changed=(\d+) ", re.MULTILINE)
_CONFIG = """\
[defaults]
localhost_warning = false
interpreter_python = auto_silent
stdout_callback = default
[inventory]
inventory_unparsed_warning = false
"""
# Variables that a page takes as given, because its text says where they come from.
_GIVEN: dict[str, dict[str, t.Any]] = {
    "plugins/filter/visible.yml": {"log": {"stdout_lines": ["one", "two\x1b[2J"]}},
    "plugins/modules/oci_container_plan.py": {
        "container_name": "web",
        "container_runtime": "runc",
        "container_src": "web.oci.tar",
    },
}
# Variables that every inventory of the examples has.
_VARIABLES = {"rack": "rack1", "images_password": "password", "vault_registry_password": "password"}
_UNPACKED = {"hypervisor.oci.oci_rootfs": {"src": "web.oci.tar", "dest": "/var/lib/lxc/web/rootfs"}, "register": "web"}
# Pages whose tasks use the result of an earlier one that they do not show, by its name.
_NEEDS_ROOTFS = {
    "plugins/filter/proxmox_config.yml": "web",
    "plugins/filter/volumes.yml": "result",
    "plugins/modules/oci_container_files.py": "web",
    "plugins/modules/oci_mount_points.py": "web",
    "plugins/modules/oci_volume.py": "web",
}
# Pages whose tasks are about a container that runs, and what starts it.
_NEED_CONTAINER = ("plugins/modules/oci_container_health.py",)
_STARTED: dict[str, t.Any] = {
    "ansible.builtin.include_role": {"name": "hypervisor.oci.container"},
    "vars": {
        "container_name": "web",
        "container_runtime": "runc",
        "container_src": "web.oci.tar",
        "container_restart": "no",
    },
}
# Pages whose tasks do not converge: a later one undoes an earlier one.
_CHANGING = ("plugins/modules/oci_container_files.py", "plugins/modules/oci_rootfs.py")
# Restart policies need systemd, which does not run in the sandbox.
_WITHOUT_SYSTEMD = {"container_restart": "no"}


class Broken(Exception):
    """An example that does not do what its page says."""


@dataclass
class Project:
    """A folder with playbooks and archives, the node that they are for, and the folder of collections."""

    page: str
    folder: str
    collections: str
    node: Node
    digests: tuple[str, str] = ("", "")
    version: int = 0

    def write_images(self, version: int, damaged: bool = False, starts: bool = True) -> None:
        """Replace all archives by another version."""
        self.digests = write_all(self.folder, version, damaged, starts)
        self.version = version

    def play(self, plays: t.Any, substitutes: bool = False, extra: dict[str, t.Any] | None = None) -> str:
        """Run a playbook that must succeed. Return its output. Raises ``Broken``."""
        status, output = self._play(plays, substitutes, extra or {})
        if status:
            raise Broken(f"{self.page}: the playbook failed\n{output}")
        return output

    def must_fail(
        self, plays: t.Any, why: str, substitutes: bool = False, extra: dict[str, t.Any] | None = None
    ) -> None:
        """Run a playbook that must fail with a reason. Raises ``Broken``."""
        status, output = self._play(plays, substitutes, extra or {})
        if not status or why not in output:
            raise Broken(f"{self.page}: the playbook did not fail because of {why!r}\n{output}")

    def changes_nothing(self, plays: t.Any, substitutes: bool = False, extra: dict[str, t.Any] | None = None) -> None:
        """Run a playbook that must not change anything. Raises ``Broken``."""
        output = self.play(plays, substitutes, extra)
        counts = _CHANGED.findall(output)
        if counts != ["0"]:
            raise Broken(f"{self.page}: the playbook changed something again\n{output}")

    def _play(self, plays: t.Any, substitutes: bool, extra: dict[str, t.Any]) -> tuple[int, str]:
        playbook = plays
        if not isinstance(plays, str):
            playbook = self._write("play.yml", yaml.safe_dump(plays, sort_keys=False))
        web, app = self.digests
        variables = {**_VARIABLES, "web_digest": web, "nginx_digest": web, "app_digest": app, **extra}
        inventory = {"hypervisors": {"hosts": {"node1": _HOST}}}
        command = [*_PLAYBOOK, "--inventory", self._write("inventory.yml", json.dumps(inventory))]
        command += ["--extra-vars", "@" + self._write("extra.json", json.dumps(variables)), playbook]
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=self._environment(substitutes),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=_PATIENCE,
            )
        except subprocess.TimeoutExpired as error:
            raise Broken(f"{self.page}: the playbook did not end in {_PATIENCE} seconds\n{error.output}") from error
        return done.returncode, done.stdout

    def _environment(self, substitutes: bool) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        first = [self.node.programs] if substitutes else []
        return {
            **inherited,
            "ANSIBLE_CONFIG": self._write("ansible.cfg", _CONFIG),
            "ANSIBLE_COLLECTIONS_PATH": self.collections,
            "ANSIBLE_HOME": os.path.join(self.folder, ".ansible"),
            "ANSIBLE_NOCOLOR": "1",
            # where the node has what login programs write
            "HOME": "/root",
            "PATH": os.pathsep.join([*first, self.node.clouds, inherited["PATH"]]),
            "SSL_CERT_FILE": self.node.authorities,
        }

    def _write(self, name: str, text: str) -> str:
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path


_HOST = {"ansible_connection": "local", "ansible_user": "root", "ansible_python_interpreter": sys.executable}


def run_page(project: Project, found: t.Sequence[Example]) -> str:
    """Run all examples of a page, and return what was run. Raises ``Broken``."""
    tasks = [task for example in found if example.is_tasks for task in example.value]
    plays = [example.value for example in found if example.is_play]
    updates = [example.value for example in found if isinstance(example.value, dict)]
    configurations = [example.text for example in found if isinstance(example.value, str)]
    with project.node.mirror(os.path.join(project.folder, "images")):
        if tasks:
            run_tasks(project, tasks)
        for play in plays:
            if any("roles" in one for one in play):
                run_role(project, play)
            else:
                run_update(project, play, "web", {})
    for update in updates:
        run_update(project, "hypervisor.oci.rolling_update", "app", update)
        run_interrupted_update(project, update)
    for text in configurations:
        check_configuration(project, text)
    return f"{len(tasks)} tasks, {len(plays)} plays, {len(updates)} updates, {len(configurations)} configurations"


def run_tasks(project: Project, tasks: list[t.Any]) -> None:
    """Run the tasks of a page in one play: with an image, a damaged one, a new one, and again."""
    name = _NEEDS_ROOTFS.get(project.page)
    before = [{**_UNPACKED, "register": name}] if name else []
    before += [_STARTED] if project.page in _NEED_CONTAINER else []
    play = [
        {
            "hosts": "hypervisors",
            "gather_facts": False,
            "vars": _GIVEN.get(project.page, {}),
            "tasks": [*before, *tasks],
        }
    ]
    project.write_images(1)
    project.play(play)
    if any("hypervisor.oci.oci_rootfs" in task for task in tasks):
        project.write_images(2, damaged=True)
        project.must_fail(play, "sha256:")
    project.write_images(3)
    project.play(play)
    if project.page in _CHANGING:
        project.play(play)
    else:
        project.changes_nothing(play)


def run_role(project: Project, play: list[t.Any]) -> None:
    """Run a container: with an image, one that does not start, the first again; on the README also a new one, and none."""
    project.write_images(1)
    project.play(play, extra=_WITHOUT_SYSTEMD)
    project.write_images(2, starts=False)
    project.must_fail(play, "FAILED!", extra=_WITHOUT_SYSTEMD)
    project.write_images(1)
    project.changes_nothing(play, extra=_WITHOUT_SYSTEMD)
    if project.page == "README.md":
        project.write_images(4)
        project.play(play, extra=_WITHOUT_SYSTEMD)
        project.play(play, extra={**_WITHOUT_SYSTEMD, "container_state": "absent"})


def run_update(project: Project, plays: t.Any, name: str, extra: dict[str, t.Any]) -> None:
    """Update a container, with a failure of each program that starts or stops it, and run again."""
    offset = UPDATED if name == "app" else 0
    project.write_images(1)
    project.play(plays, True, extra)
    _require_version(project, name, 1 + offset)
    # the rolling update goes on when stopping fails, but not with a tree in use
    for version, program, why in ((2, "lxc-stop", "FAILED!"), (3, "lxc-start", "failed on purpose")):
        project.write_images(version)
        project.node.fail_once(program)
        project.must_fail(plays, why, True, extra)
        project.play(plays, True, extra)
        _require_version(project, name, version + offset)
    project.changes_nothing(plays, True, extra)


def run_interrupted_update(project: Project, extra: dict[str, t.Any]) -> None:
    """A container that a run left stopped after the exchange is started by the next run."""
    project.node.stop("app")
    project.play("hypervisor.oci.rolling_update", True, extra)
    _require_version(project, "app", project.version + UPDATED)


def _require_version(project: Project, name: str, version: int) -> None:
    runs = project.node.version_of(name)
    if runs != version:
        raise Broken(f"{project.page}: the container {name} runs version {runs}, and not {version}")


def check_configuration(project: Project, text: str) -> None:
    """Let ansible-config read a configuration file. Raises ``Broken``."""
    path = os.path.join(project.folder, "example.cfg")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    done = subprocess.run(
        [*_CONFIG_PROGRAM, "validate", "--config", path, "--type", "all"],
        capture_output=True,
        check=False,
        text=True,
        timeout=_PATIENCE,
    )
    if done.returncode:
        raise Broken(f"{project.page}: ansible-config refuses a configuration\n{done.stdout}{done.stderr}")
