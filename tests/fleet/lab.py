# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the checks of a fleet share: nodes, a controller, a web server, and questions to ask of them."""

from __future__ import annotations

import itertools
import os
import threading
import typing as t

from ..tools.removal import remove_below
from .controller import Controller, Playbook, Run, play, rootfs
from .fleet import DISK, Fleet, FleetError, Node, Spec, wait_for
from .nodes import WEB, WebServer, python_paths
from .samples import Sample, tree

RATE = "20mbit"
ALPHA, BRAVO, CHARLIE, DELTA = "alpha", "bravo", "charlie", "delta"
# Bytes that an offer and the folders around it may take.
_OFFER = 100_000
NODES = (ALPHA, BRAVO, CHARLIE, DELTA)
# More nodes, which are all alike, for checks of many.
CROWD = (*NODES, "echo", "foxtrot", "golf", "hotel")
# Those whose images come from a registry of their own, which lies on a third, so that nobody else's traffic is counted.
INDIA, JULIETT, STORE = "india", "juliett", "store"
# Of the web server and the registry: slow enough that a transfer can be interrupted where it should be.
WEB_RATE = "80mbit"


class Broken(Exception):
    """A promise was not kept; the text says which, and what was seen."""


def require(kept: bool, otherwise: str) -> None:
    """Raise ``Broken`` unless a promise was kept."""
    if not kept:
        raise Broken(otherwise)


class Lab:
    """Nodes that differ, more that do not, and two that are servers."""

    def __init__(self, folder: str, rate: str = RATE, web_rate: str = WEB_RATE) -> None:
        found, self.remarks = python_paths()
        oldest, newest = list(found.values())
        self.fleet = Fleet(
            folder,
            [
                Spec(ALPHA, rate=rate),
                Spec(BRAVO, user="admin", disk="ext4", disk_size="256M", rate=rate),
                Spec(CHARLIE, python=oldest, rate=rate),
                Spec(DELTA, python=newest, disk="ext4", disk_size="256M", rate=rate),
                *(Spec(name, rate=rate) for name in CROWD[len(NODES) :]),
                Spec(WEB, sshd=False, rate=web_rate),
                Spec(INDIA, rate=rate),
                Spec(JULIETT, disk="ext4", disk_size="256M", rate=rate),
                Spec(STORE, sshd=False, rate=web_rate),
            ],
        )
        self.fleet.start()
        self._own = threading.local()
        self._numbers = itertools.count(1)
        self.images = os.path.join(folder, "images")
        os.mkdir(self.images)
        self.web = WebServer(self.fleet, self.images)

    @property
    def controller(self) -> Controller:
        """Each thread has one of its own, as administrators do who know nothing of each other."""
        if not hasattr(self._own, "controller"):
            name = f"controller-{next(self._numbers)}"
            self._own.controller = Controller(self.fleet, name)
        return self._own.controller

    # -- runs

    def provision(self, *names: str, arguments: t.Sequence[str] = (), **options: t.Any) -> Run:
        """One task on these nodes, over new connections; whatever comes of it, no traceback."""
        return self.finish(self.start(*names, arguments=arguments, **options))

    def start(self, *names: str, arguments: t.Sequence[str] = (), **options: t.Any) -> Playbook:
        """The same, not waited for."""
        self.controller.disconnect()
        plays = [play(rootfs(**options))]
        return self.controller.start(plays, names, arguments, ANSIBLE_FORKS="8")

    def finish(self, playbook: Playbook) -> Run:
        """Wait for it."""
        run = playbook.finish()
        require("Traceback" not in run.output, f"a traceback:\n{run.output}")
        return run

    def wait_until_sent(self, playbook: Playbook, name: str, size: int) -> None:
        """Until so many bytes went to a node; raises ``Broken`` if the playbook ended before."""

        def there() -> bool:
            if playbook.process.poll() is not None:
                raise Broken(f"ended before {size} bytes went: {playbook.output()}")
            return playbook.carried(name).to_node >= size

        wait_for(f"{size} bytes to {name}", there)

    # -- nodes

    def path(self, name: str, dest: str) -> str:
        """A ``dest`` of a node, as a path here."""
        return os.path.join(self.fleet.nodes[name].disk, os.path.relpath(dest, DISK))

    def shows(self, name: str, dest: str, *samples: Sample) -> Sample:
        """Return the sample whose whole tree is at ``dest``. Raises ``Broken`` if no sample matches."""
        found = tree(self.path(name, dest))
        for one in samples:
            if found == one.files:
                return one
        raise Broken(f"{name}: {dest} holds no whole tree of {len(samples)} samples, but {sorted(found)}")

    def is_tidy(self, name: str, dest: str) -> None:
        """Nothing but ``dest`` and its private folder; nothing in the user's temporary folder, nor the controller's."""
        node = self.fleet.nodes[name]
        folder, base = os.path.split(dest)
        found = set(os.listdir(self.path(name, folder)))
        expected = {base, f".{base}.oci_rootfs"}
        require(found <= expected, f"{name}: left in {folder}: {found - expected}")
        found = set(os.listdir(node.disk)) - {"lost+found", "cache"}
        found = {one for one in found if one.startswith(".") or one == "drop"}
        require(not found, f"{name}: left on the disk: {found}")
        left = node.run("sh", "-c", f"ls -A {_temporary(node)} 2>/dev/null || true")
        require(not left, f"{name}: left in the temporary folder: {left.split()}")
        local = os.listdir(os.path.join(self.controller.folder, "tmp"))
        require(not local, f"left on the controller: {local}")

    def forgive_ansible(self, name: str) -> None:
        """Ansible leaves its temporary folders behind when it is interrupted; on the node no blob may lie in there."""
        node = self.fleet.nodes[name]
        folder = _temporary(node)
        used = node.run("sh", "-c", f"du -sb {folder} 2>/dev/null || echo 0")
        size = int(used.split()[0])
        require(size < _OFFER, f"{name}: {size} bytes left in {folder}")
        node.run("rm", "-rf", folder)
        local = os.path.join(self.controller.folder, "tmp")
        for left in os.listdir(local):
            remove_below(local, os.path.join(local, left))

    def converges(self, name: str, source: str, dest: str, wanted: Sample, **options: t.Any) -> Run:
        """A rerun makes it right, and the next has nothing to do; returns the first of them."""
        first = self.provision(name, src=source, dest=dest, **options)
        require(first.status == 0, f"the rerun failed:\n{first.output}")
        self.shows(name, dest, wanted)
        self.is_tidy(name, dest)
        second = self.provision(name, src=source, dest=dest, **options)
        require(
            second.status == 0 and not second.of(name).changed,
            f"the run after the rerun changed something or failed:\n{second.output}",
        )
        return first


def _temporary(node: Node) -> str:
    home = "/root" if node.spec.user == "root" else f"/home/{node.spec.user}"
    return f"{home}/.ansible/tmp"


def failed(run: Run, name: str) -> str:
    """The message of a task that has to have failed, or of a node that was lost; raises ``Broken`` if it went well."""
    try:
        task = run.of(name)
    except FleetError:
        # ended before there was a result
        require(run.status != 0, f"it went well:\n{run.output}")
        return ""
    require(task.status in ("failed", "unreachable"), f"{name}: {task.status}")
    return task.message
