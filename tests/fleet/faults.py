# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of what goes wrong in a fleet: each time the old tree or the new one, whole, and a rerun converges.

docs/behaviour.md, sections 1 and 7.
"""

from __future__ import annotations

import os
import signal
import typing as t
from dataclasses import dataclass

from .fleet import DISK
from .lab import ALPHA, BRAVO, CHARLIE, DELTA, Lab, failed, require
from .samples import Sample, sample, write
from .sending import MODULE_RUNS, NEW_IMAGE, ONE_LAYER

_MB = 1_000_000
_LAYERS = 4
# Enough for two blobs to have arrived, by far not all.
_MIDDLE = 2_700_000


@dataclass(frozen=True)
class Update:
    """A node that has the old image, and is to get the new one."""

    name: str
    dest: str
    source: str
    old: Sample
    new: Sample


def _update(lab: Lab, name: str, case: str) -> Update:
    old = sample(f"{case}-old", 100_000)
    new = sample(f"{case}-new", _MB, layers=_LAYERS)
    first = write(lab.images, f"{case}-old.oci.tar", old)
    dest = f"{DISK}/{case}/rootfs"
    lab.provision(name, src=first, dest=dest).must()
    lab.shows(name, dest, old)
    return Update(name, dest, write(lab.images, f"{case}-new.oci.tar", new), old, new)


def _resumes(lab: Lab, update: Update) -> str:
    """A rerun sends at least one blob less than all of them."""
    run = lab.converges(update.name, update.source, update.dest, update.new)
    total = run.counters[update.name].total
    limit = NEW_IMAGE * update.new.size * (_LAYERS - 1) / _LAYERS + MODULE_RUNS
    require(total <= limit, f"the rerun took {total} bytes: blobs that had arrived went again")
    return f"the rerun took {total} bytes of {update.new.size}"


def node_killed(lab: Lab) -> str:
    """A node loses its power in the middle of the transfer."""
    update = _update(lab, ALPHA, "killed")
    node = lab.fleet.nodes[ALPHA]
    playbook = lab.start(ALPHA, src=update.source, dest=update.dest)
    lab.wait_until_sent(playbook, ALPHA, _MIDDLE)
    node.kill()
    run = lab.finish(playbook)
    message = failed(run, ALPHA)
    node.start()
    lab.shows(ALPHA, update.dest, update.old)
    return f"{message.splitlines()[0][:80]!r}; {_resumes(lab, update)}"


def _interrupted(lab: Lab, number: signal.Signals, case: str) -> str:
    update = _update(lab, BRAVO, case)
    playbook = lab.start(BRAVO, src=update.source, dest=update.dest)
    lab.wait_until_sent(playbook, BRAVO, _MIDDLE)
    playbook.interrupt(number)
    run = lab.finish(playbook)
    require(run.status != 0, f"it went well:\n{run.output}")
    lab.shows(BRAVO, update.dest, update.old)
    lab.forgive_ansible(BRAVO)
    return _resumes(lab, update)


def controller_interrupted(lab: Lab) -> str:
    """Ctrl-C in the middle of the transfer."""
    return _interrupted(lab, signal.SIGINT, "interrupted")


def controller_killed(lab: Lab) -> str:
    """The controller's processes are killed in the middle of the transfer."""
    return _interrupted(lab, signal.SIGKILL, "controller-killed")


def _restarted(lab: Lab, case: str, sessions: bool) -> tuple[Update, bool]:
    """What was to be done, and whether it was done."""
    update = _update(lab, DELTA, case)
    node = lab.fleet.nodes[DELTA]
    playbook = lab.start(DELTA, src=update.source, dest=update.dest)
    lab.wait_until_sent(playbook, DELTA, _MIDDLE)
    node.stop_sshd(sessions)
    node.start_sshd()
    run = lab.finish(playbook)
    wanted = update.new if run.status == 0 else update.old
    lab.shows(DELTA, update.dest, wanted)
    return update, run.status == 0


def sshd_restarted(lab: Lab) -> str:
    """sshd is restarted in the middle of the transfer, without the connections at work, and with them."""
    update, done = _restarted(lab, "gently", sessions=False)
    require(done, "a transfer failed whose connection was left alone")
    lab.is_tidy(DELTA, update.dest)
    # Ansible may or may not try again by itself
    update, done = _restarted(lab, "restarted", sessions=True)
    lab.converges(DELTA, update.source, update.dest, update.new)
    return f"with its connection cut, the transfer {'went on' if done else 'failed'}"


def web_server_died(lab: Lab) -> str:
    """The web server dies in the middle of a blob."""
    update = _update(lab, ALPHA, "web")
    url = lab.web.url(os.path.basename(update.source))
    options: dict[str, t.Any] = {"url_retries": 1, "timeout": 5}
    lab.web.start(die_after=_MIDDLE)
    try:
        run = lab.provision(ALPHA, src=url, dest=update.dest, **options)
        require(lab.web.died(), "the web server is still there")
    finally:
        lab.web.stop()
    message = failed(run, ALPHA)
    require(run.of(ALPHA).status == "failed", "a module's error is not one of ssh")
    lab.shows(ALPHA, update.dest, update.old)
    lab.is_tidy(ALPHA, update.dest)
    lab.web.start()
    try:
        lab.converges(ALPHA, url, update.dest, update.new)
    finally:
        lab.web.stop()
    return repr(message[:120])


def cache_corrupt(lab: Lab) -> str:
    """A blob of the cache has another content: it is sent again, that one alone."""
    part = sample("corrupt", _MB, layers=3)
    source = write(lab.images, "corrupt.oci.tar", part)
    cache = f"{DISK}/corrupt-cache"
    dest = f"{DISK}/corrupt/rootfs"
    lab.provision(CHARLIE, src=source, dest=dest, cache_dir=cache).must()
    digest, size = list(part.blobs.items())[1]
    path = os.path.join(lab.path(CHARLIE, cache), *digest.split(":"))
    with open(path, "r+b") as file:
        file.seek(size // 2)
        byte = file.read(1)
        file.seek(size // 2)
        file.write(bytes([byte[0] ^ 1]))
    other = f"{DISK}/corrupt-again/rootfs"
    run = lab.converges(CHARLIE, source, other, part, cache_dir=cache)
    total = run.counters[CHARLIE].total
    limit = ONE_LAYER * size + 1.5 * MODULE_RUNS
    require(total <= limit, f"{total} bytes for one corrupt blob of {size}")
    lab.provision(CHARLIE, src=source, dest=f"{DISK}/corrupt-third/rootfs", cache_dir=cache).must()
    lab.shows(CHARLIE, f"{DISK}/corrupt-third/rootfs", part)
    return f"{total} bytes for a blob of {size}"


def two_at_once(lab: Lab) -> str:
    """Two playbooks want two images in one place; then two want the same one."""
    update = _update(lab, CHARLIE, "twice")
    other = sample("twice-other", _MB, layers=2)
    source = write(lab.images, "twice-other.oci.tar", other)
    sources = (update.source, source)
    both = [lab.start(CHARLIE, src=one, dest=update.dest) for one in sources]
    runs = [lab.finish(one) for one in both]
    for run in runs:
        require(run.status == 0, f"one of two at once failed:\n{run.output}")
    lab.shows(CHARLIE, update.dest, update.new, other)
    lab.is_tidy(CHARLIE, update.dest)
    lab.converges(CHARLIE, update.source, update.dest, update.new)

    both = [lab.start(CHARLIE, src=source, dest=update.dest) for _turn in range(2)]
    runs = [lab.finish(one) for one in both]
    for run in runs:
        require(run.status == 0, f"one of two at once failed:\n{run.output}")
    lab.shows(CHARLIE, update.dest, other)
    lab.converges(CHARLIE, source, update.dest, other)
    return "both went well"


# Lines of checks that have no node in common.
CHECKS = (
    (node_killed, web_server_died),
    (controller_interrupted, controller_killed),
    (two_at_once, cache_corrupt),
    (sshd_restarted,),
)
