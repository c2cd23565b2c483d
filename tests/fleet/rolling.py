# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of the playbook rolling_update: canaries first, and a node that fails or is gone stays as it was.

docs/fleet.md, and docs/behaviour.md, section 7 (staged, previous).
"""

from __future__ import annotations

import json
import typing as t

from .controller import Run
from .fleet import DISK
from .lab import ALPHA, BRAVO, CHARLIE, DELTA, NODES, Lab, require
from .samples import Sample, sample, write

_PLAYBOOK = "hypervisor.oci.rolling_update"
_EXCHANGE = "Exchange the trees"
_DEST = f"{DISK}/rolling/rootfs"
# What runs in the tree is played by a file that holds its version, which a node on which SICK is cannot run.
_RUNNING = "/run/node/running"
_SICK = "/run/node/sick"


def _update(lab: Lab, source: str, **variables: t.Any) -> Run:
    given = {
        "rolling_update_hosts": "fleet",
        "rolling_update_src": source,
        "rolling_update_dest": _DEST,
        "rolling_update_batches": [1, "100%"],
        "rolling_update_stop": ["rm", "-f", _RUNNING],
        "rolling_update_start": ["cp", f"{_DEST}/etc/version", _RUNNING],
        "rolling_update_check": ["test", "!", "-e", _SICK],
        "rolling_update_retries": 1,
        "rolling_update_delay": 0,
        **variables,
    }
    lab.controller.disconnect()
    arguments = ["-e", json.dumps(given)]
    return lab.finish(lab.controller.start(_PLAYBOOK, NODES, arguments))


def _exchanged(run: Run) -> list[str]:
    """The nodes that took the new tree into use, in that order."""
    done = [task for task in run.tasks if task.name == _EXCHANGE and task.changed]
    return [task.host for task in sorted(done, key=lambda task: task.ended)]


def _runs(lab: Lab, name: str, wanted: Sample) -> None:
    """The tree is the wanted one, and what runs was started from it."""
    lab.shows(name, _DEST, wanted)
    version = lab.fleet.nodes[name].run("cat", _RUNNING)
    require(version == wanted.version, f"{name}: runs {version!r}")


def rolling_update(lab: Lab) -> str:
    """A sick canary, then a node that is gone and another that is sick, then what is left for a rerun."""
    old, new = (sample(f"rolling-{turn}", 200_000, layers=2) for turn in ("old", "new"))
    source = write(lab.images, "rolling-old.oci.tar", old)
    lab.provision(*NODES, src=source, dest=_DEST).must()
    for name in NODES:
        lab.fleet.nodes[name].run("cp", f"{_DEST}/etc/version", _RUNNING)
    source = write(lab.images, "rolling-new.oci.tar", new)

    lab.fleet.nodes[ALPHA].run("touch", _SICK)
    run = _update(lab, source)
    require(run.status != 0, "a sick canary did not stop the update")
    require(_exchanged(run) == [ALPHA], f"exchanged: {_exchanged(run)}")
    for name in NODES:
        _runs(lab, name, old)
    lab.fleet.nodes[ALPHA].run("rm", _SICK)

    # one of three in the second batch is gone, one is sick, and so many are allowed
    lab.fleet.nodes[DELTA].stop_sshd(sessions=True)
    lab.fleet.nodes[CHARLIE].run("touch", _SICK)
    run = _update(lab, source, rolling_update_max_fail_percentage=70)
    require(run.status != 0, "a node that is gone was not noticed")
    require(_exchanged(run)[0] == ALPHA, f"not the canary first: {_exchanged(run)}")
    for name, tree in zip(NODES, (new, new, old, old)):
        _runs(lab, name, tree)

    lab.fleet.nodes[DELTA].start_sshd()
    lab.fleet.nodes[CHARLIE].run("rm", _SICK)
    run = _update(lab, source).must()
    done = sorted(_exchanged(run))
    require(done == [CHARLIE, DELTA], f"exchanged by the rerun: {done}")
    for name in NODES:
        _runs(lab, name, new)
        lab.is_tidy(name, _DEST)
    return "canary first; a sick or lost node stays as it was; a rerun does the rest"


def audit(lab: Lab) -> str:
    """One line for each root file system, also for a node that is gone, and for what is not ours."""
    wanted = sample("audited", 100_000)
    source = write(lab.images, "audited.oci.tar", wanted)
    dest = f"{DISK}/audited/one"
    lab.provision(*NODES, src=source, dest=dest).must()
    bravo = lab.fleet.nodes[BRAVO]
    bravo.run("mv", dest, f"{DISK}/audited/two")
    lab.fleet.nodes[DELTA].stop_sshd(sessions=True)
    report = f"{lab.images}/audit.md"
    given = {
        "audit_hosts": "fleet",
        "audit_report": report,
        "audit_folders": [f"{DISK}/audited"],
        "audit_verify": "metadata",
    }
    lab.controller.disconnect()
    lab.finish(lab.controller.start("hypervisor.oci.audit", NODES, ["-e", json.dumps(given)]))
    lab.fleet.nodes[DELTA].start_sshd()
    with open(report, encoding="utf-8") as file:
        lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in file][2:]
    require([line[0] for line in lines] == list(NODES), f"not a line for each node: {lines}")
    for line in lines:
        expected = {BRAVO: [dest, "missing"], DELTA: ["not reachable", ""]}.get(line[0])
        require(line[1] == dest or expected is not None, f"{line}")
        if expected is not None:
            require(line[1:3] == expected, f"{line}, not {expected}")
        else:
            require(line[3].startswith("sha256:") and line[5:] == ["0", "0", "0", "0", "clean", "no"], f"{line}")
    return "a table of all nodes, with one that is gone"


CHECKS = (rolling_update, audit)
