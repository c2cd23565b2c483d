# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of a registry that fails, or whose clients do: the old tree or the new one, whole, and a rerun converges.

docs/behaviour.md, sections 1, 7 and 11. Bytes are those on the registry's link, without the headers of packets.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import typing as t

from .controller import Playbook
from .fetching import kept_on_controller, wait_until_kept
from .fleet import DISK, run, wait_for
from .lab import INDIA, JULIETT, STORE, Lab, failed, require
from .nodes import WEB
from .registry import Registry
from .samples import Sample, sample, write

_MB = 1_000_000
_BLOB = 10 * _MB
# So large that a client can be killed at 90 %.
_KILLED = 20 * _MB
LARGE = 200 * _MB
NODE, CONTROLLER = "node", "controller"
# What may be fetched again of a blob that was interrupted at 90 %; a fetch of documents, and a run with nothing to do.
_REST = 0.11
_DOCUMENTS = 60_000
# Of the bytes that the packets of one pull carry, TLS included.
_FACTOR, _TLS = 1.01, 20_000


class _Pull(t.NamedTuple):
    """A node that has the old image, and is to get the new one from a registry or from the web server."""

    name: str
    dest: str
    src: str
    old: Sample
    new: Sample
    options: dict[str, t.Any]
    server: str = STORE

    def start(self, lab: Lab) -> Playbook:
        """Let it be fetched."""
        return lab.start(self.name, src=self.src, dest=self.dest, **self.options)

    def kept(self, lab: Lab) -> int:
        """Bytes of blobs that lie where they are fetched to."""
        if self.options["fetch"] == CONTROLLER:
            return kept_on_controller(lab)
        top, base = os.path.split(lab.path(self.name, self.dest))
        folder = os.path.join(top, f".{base}.oci_rootfs", "partial")
        try:
            return sum(os.lstat(os.path.join(folder, name)).st_size for name in os.listdir(folder))
        except FileNotFoundError:
            return 0

    def start_and_wait(self, lab: Lab, part: float) -> Playbook:
        """Let it be fetched until that part of the blob is there."""
        before = self.kept(lab)
        playbook = self.start(lab)
        wait_until_kept(playbook, lambda: self.kept(lab) - before, part * self.new.size)
        return playbook

    def converges(self, lab: Lab, most: float) -> str:
        """A rerun makes it right, for which the server sends at most so many bytes of the blob."""
        before = _sent(lab, self.server)
        lab.converges(self.name, self.src, self.dest, self.new, **self.options)
        sent = _sent(lab, self.server) - before
        # the second run of the rerun asks, too
        require(sent <= most + 2 * _DOCUMENTS, f"the rerun took {sent} bytes of {self.new.size}")
        return f"the rerun took {sent} bytes of {self.new.size}"


def _sent(lab: Lab, server: str = STORE) -> int:
    """Bytes that packets of the registry's node have carried, or the web server's."""
    return lab.fleet.nodes[server].counters().payload


def _old(lab: Lab, case: str, name: str) -> tuple[str, Sample]:
    old = sample(f"{case}-old", 100_000)
    dest = f"{DISK}/{case}/rootfs"
    lab.provision(name, src=write(lab.images, f"{case}-old.oci.tar", old), dest=dest).must()
    return dest, old


def _pull(lab: Lab, registry: Registry, case: str, fetch: str, name: str = INDIA, size: int = _BLOB) -> _Pull:
    dest, old = _old(lab, case, name)
    new = sample(case, size)
    _push(lab, registry, case, new)
    options = {"fetch": fetch, "registry_plain_http": True, "url_retries": 4}
    return _Pull(name, dest, registry.url(f"{case}:1"), old, new, options)


def _push(lab: Lab, registry: Registry, case: str, part: Sample) -> None:
    path = write(lab.images, f"{case}.oci.tar", part)
    registry.push(path, "", f"{case}:1")
    os.unlink(path)


def _download(lab: Lab, case: str, fetch: str, size: int) -> _Pull:
    dest, old = _old(lab, case, INDIA)
    new = sample(case, size)
    write(lab.images, f"{case}.oci.tar", new)
    return _Pull(INDIA, dest, lab.web.url(f"{case}.oci.tar"), old, new, {"fetch": fetch}, WEB)


# -- what a pull costs


def pulled_over_tls(lab: Lab) -> str:
    """A new image costs its platform's blobs and documents, each asked for once, and a registry's link hardly more."""
    amd64 = sample("tls", _MB, layers=3)
    arm64 = sample("tls", _MB, layers=2, platform="linux/arm64")
    registry = Registry(lab.fleet, STORE)
    authority = os.path.join(DISK, "authority.pem")
    dest = f"{DISK}/tls/rootfs"
    registry.start(tls=True)
    try:
        shutil.copyfile(registry.certificate, lab.path(INDIA, authority))
        registry.push(write(lab.images, "tls.oci.tar", amd64, arm64), "fleet:tls.oci.tar", "tls:1", "--all")
        before = _sent(lab)
        lab.provision(INDIA, src=registry.url("tls:1"), dest=dest, ca_path=authority).must()
        sent = _sent(lab) - before
        answers = registry.served()
    finally:
        registry.stop()
    lab.shows(INDIA, dest, amd64)
    layers = [answer for answer in answers if answer.path.rpartition("/")[2] in amd64.blobs]
    others = [answer for answer in answers if answer not in layers and answer.status == 200]
    require(len(layers) == len(amd64.blobs), f"layers were asked for {len(layers)} times: {answers}")
    # an index, a manifest and a config
    require(len(others) <= 3, f"{len(others)} documents: {others}")
    require(len(answers) <= 4 + 2 + 1 + len(layers), f"{len(answers)} requests: {answers}")
    size = amd64.size + sum(answer.sent for answer in others)
    require(sent <= _FACTOR * size + _TLS, f"{sent} bytes for blobs and documents of {size}")
    return f"{len(answers)} requests, {sent} bytes for blobs and documents of {size}, {sent / size:.4f}"


def pulled_over_slow_link(lab: Lab) -> str:
    """A link of 2 Mbit/s: it takes its time, and passes."""
    registry = Registry(lab.fleet, STORE)
    node = lab.fleet.nodes[STORE]
    registry.start()
    try:
        pull = _pull(lab, registry, "slow-link", NODE, size=2 * _MB)
        with node.slowed("2mbit"):
            done = lab.finish(pull.start(lab)).must()
        lab.shows(pull.name, pull.dest, pull.new)
        lab.is_tidy(pull.name, pull.dest)
    finally:
        registry.stop()
    require(done.seconds >= pull.new.size / 250_000, f"it took {done.seconds:.1f} s: the link was not slow")
    return f"{done.seconds:.1f} s for {pull.new.size} bytes"


# -- clients that fail


def _cut_short(lab: Lab, pull: _Pull) -> str:
    """The node loses its power, or the controller's processes are killed, at 90 % of the blob."""
    playbook = pull.start_and_wait(lab, 0.9)
    if pull.options["fetch"] == NODE:
        node = lab.fleet.nodes[pull.name]
        node.kill()
        failed(lab.finish(playbook), pull.name)
        node.start()
    else:
        playbook.interrupt(signal.SIGKILL)
        require(lab.finish(playbook).status != 0, "it went well")
        lab.forgive_ansible(pull.name)
    lab.shows(pull.name, pull.dest, pull.old)
    if pull.options["fetch"] == NODE:
        lab.forgive_ansible(pull.name)
    return pull.converges(lab, _REST * pull.new.size)


def _pull_killed(lab: Lab, fetch: str, size: int = _KILLED) -> str:
    registry = Registry(lab.fleet, STORE)
    registry.start()
    try:
        return _cut_short(lab, _pull(lab, registry, f"pull-killed-{fetch}", fetch, size=size))
    finally:
        registry.stop()


def _download_killed(lab: Lab, fetch: str, size: int) -> str:
    lab.web.start()
    try:
        return _cut_short(lab, _download(lab, f"download-killed-{fetch}", fetch, size))
    finally:
        lab.web.stop()


def pull_node_killed(lab: Lab) -> str:
    """A node loses its power when it has 90 % of a blob of a registry."""
    return _pull_killed(lab, NODE)


def pull_controller_killed(lab: Lab) -> str:
    """The controller's processes are killed when it has 90 % of a blob of a registry."""
    return _pull_killed(lab, CONTROLLER)


def pull_interrupted(lab: Lab) -> str:
    """Ctrl-C while a node fetches from a registry: old or new, and a rerun converges."""
    registry = Registry(lab.fleet, STORE)
    registry.start()
    try:
        pull = _pull(lab, registry, "pull-interrupted", NODE)
        playbook = pull.start_and_wait(lab, 0.5)
        playbook.interrupt()
        require(lab.finish(playbook).status != 0, "it went well")
        # the module learns of it by its next line of progress, or goes on to the end
        wait_for("the end of the module", lambda: not lab.fleet.nodes[pull.name].processes("python3"), 60)
        shown = lab.shows(pull.name, pull.dest, pull.old, pull.new)
        lab.forgive_ansible(pull.name)
        return f"{shown.version.strip()!r}; {pull.converges(lab, 0.7 * pull.new.size)}"
    finally:
        registry.stop()


# -- registries that fail


def _in_both(lab: Lab, case: str, check: t.Callable[[Lab, Registry, _Pull], str]) -> str:
    """The check, with the node as the client and then with the controller."""
    said = []
    for fetch in (NODE, CONTROLLER):
        registry = Registry(lab.fleet, STORE)
        registry.start()
        try:
            said.append(f"{fetch}: {check(lab, registry, _pull(lab, registry, f'{case}-{fetch}', fetch))}")
        finally:
            registry.stop()
    return "; ".join(said)


def _restarted(lab: Lab, registry: Registry, pull: _Pull) -> str:
    playbook = pull.start_and_wait(lab, 0.5)
    registry.stop()
    registry.start()
    before = _sent(lab)
    lab.finish(playbook).must()
    sent = _sent(lab) - before
    lab.shows(pull.name, pull.dest, pull.new)
    require(sent <= 0.55 * pull.new.size, f"{sent} bytes after the restart")
    return f"{sent} bytes after the restart, {pull.converges(lab, 0)}"


def registry_restarted(lab: Lab) -> str:
    """The registry is restarted in the middle of a blob: the same run goes on at the byte."""
    return _in_both(lab, "registry-restarted", _restarted)


def _wiped(lab: Lab, registry: Registry, pull: _Pull) -> str:
    playbook = pull.start_and_wait(lab, 0.5)
    registry.stop()
    registry.wipe()
    registry.start()
    message = failed(lab.finish(playbook), pull.name)
    require("does not exist" in message, f"another error: {message}")
    lab.shows(pull.name, pull.dest, pull.old)
    lab.is_tidy(pull.name, pull.dest)
    _push(lab, registry, pull.src.rpartition("/")[2].partition(":")[0], pull.new)
    return pull.converges(lab, 0.55 * pull.new.size)


def registry_wiped(lab: Lab) -> str:
    """The registry loses everything in the middle of a blob: an error, and when it was pushed again, the rest."""
    return _in_both(lab, "registry-wiped", _wiped)


def _moved(lab: Lab, registry: Registry, pull: _Pull) -> str:
    case = pull.src.rpartition("/")[2].partition(":")[0]
    playbook = pull.start_and_wait(lab, 0.3)
    newest = sample(f"{case}-newest", _MB)
    _push(lab, registry, case, newest)
    # what was resolved once is asked for by its digest
    lab.finish(playbook).must()
    lab.shows(pull.name, pull.dest, pull.new)
    said = pull._replace(new=newest).converges(lab, newest.size)
    last = sample(f"{case}-last", _MB)
    _push(lab, registry, case, last)
    pull._replace(new=last).converges(lab, last.size)
    return said


def tag_moved(lab: Lab) -> str:
    """A tag moves during a run, which installs what it meant at first, and between two runs."""
    return _in_both(lab, "tag-moved", _moved)


# -- disks


def _fill(path: str) -> None:
    """Let a file take all room of its disk but less than a MiB."""
    with open(path, "wb") as file, contextlib.suppress(OSError):
        while True:
            os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), 1 << 20)


def pull_disk_full(lab: Lab) -> str:
    """The node's disk becomes full in the middle: an error, the old tree, and with room a rerun converges."""
    registry = Registry(lab.fleet, STORE)
    registry.start()
    try:
        pull = _pull(lab, registry, "pull-full", NODE, JULIETT)
        filler = os.path.join(lab.fleet.nodes[JULIETT].disk, "filler")
        # so early that what is removed then does not make room enough
        playbook = pull.start_and_wait(lab, 0.2)
        _fill(filler)
        try:
            message = failed(lab.finish(playbook), JULIETT)
        finally:
            os.unlink(filler)
        require("no room left" in message, f"another error: {message}")
        lab.shows(JULIETT, pull.dest, pull.old)
        lab.is_tidy(JULIETT, pull.dest)
        return f"{message[:100]!r}; {pull.converges(lab, pull.new.size)}"
    finally:
        registry.stop()


def pull_cache_full(lab: Lab) -> str:
    """The controller's folder for what comes of blobs is full: the error names it, and a rerun with room converges."""
    registry = Registry(lab.fleet, STORE)
    small = os.path.join(lab.fleet.folder, "small-cache")
    os.mkdir(small)
    run(["mount", "-t", "tmpfs", "-o", "mode=0700,size=4m", "tmpfs", small])
    registry.start()
    try:
        pull = _pull(lab, registry, "pull-cache-full", CONTROLLER)
        lab.controller.settings["XDG_CACHE_HOME"] = small
        message = failed(lab.finish(pull.start(lab)), pull.name)
        del lab.controller.settings["XDG_CACHE_HOME"]
        require("no room left" in message and "set XDG_CACHE_HOME" in message, f"another error: {message}")
        lab.shows(pull.name, pull.dest, pull.old)
        lab.is_tidy(pull.name, pull.dest)
        return f"{message[:100]!r}; {pull.converges(lab, pull.new.size)}"
    finally:
        registry.stop()


CHECKS: tuple[t.Callable[[Lab], str], ...] = (
    pulled_over_tls,
    pulled_over_slow_link,
    pull_node_killed,
    pull_controller_killed,
    pull_interrupted,
    registry_restarted,
    registry_wiped,
    tag_moved,
    pull_disk_full,
    pull_cache_full,
)


def _large(check: t.Callable[[Lab, str, int], str], fetch: str, name: str) -> t.Callable[[Lab], str]:
    @functools.wraps(check)
    def checked(lab: Lab) -> str:
        return check(lab, fetch, LARGE)

    checked.__name__ = f"large_{name}_{fetch}"
    return checked


# At full size, which takes minutes.
LARGE_CHECKS: tuple[t.Callable[[Lab], str], ...] = tuple(
    _large(check, fetch, name)
    for check, name in ((_pull_killed, "pull"), (_download_killed, "download"))
    for fetch in (NODE, CONTROLLER)
)
