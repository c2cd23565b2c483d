# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measures what runs cost the controller, the nodes and the links.

What is measured is plain data, so that the page can be written again without measuring: a ``sample`` has ``seconds``
of the whole run, ``cpu`` seconds of the controller, and lists with a number per node: ``task`` seconds, ``bytes`` on the
link with all headers, ``payload`` without them, ``node_cpu`` seconds of the node.
"""

from __future__ import annotations

import os
import threading
import time
import typing as t

from ..tools.removal import remove_below
from .controller import Controller, Run, play, rootfs
from .fleet import DISK, Fleet, Spec, on_controller, pids, stat_of, wait_for
from .nodes import WEB, WebServer
from .samples import sample, write
from .transcript import Story, read_log
from .turns import Turns

Plain = t.Dict[str, t.Any]
Play = t.Dict[str, t.Any]
_MB = 1_000_000
_TEN = 10
_NAME = "rootfs"
# Ansible's own default, less -C
_NO_COMPRESSION = "-o ControlMaster=auto -o ControlPersist=60s"


class Bench:
    """A fleet of equal nodes, and the images that they are given."""

    def __init__(self, folder: str, nodes: int, crowd: int, rate: str) -> None:
        self.everyone = [f"node{number}" for number in range(1, crowd + 1)]
        self.names = self.everyone[:nodes]
        self.rate = rate
        specs = [Spec(name, rate=rate, disk_size="2G") for name in self.everyone]
        self.fleet = Fleet(folder, [*specs, Spec(WEB, sshd=False)])
        self.fleet.start()
        self.controller = Controller(self.fleet, "controller")
        self.images = os.path.join(folder, "images")
        os.mkdir(self.images)
        self.web = WebServer(self.fleet, self.images)
        self.web.start()
        self._number = 0

    def unused(self) -> str:
        """A name that was not given before."""
        self._number += 1
        return f"{self._number:04}"

    def remove(self, dest: str) -> None:
        """Remove what lies on all disks at the top folder of a ``dest``."""
        top = os.path.relpath(dest, DISK).split(os.sep)[0]
        for name in self.everyone:
            disk = self.fleet.nodes[name].disk
            remove_below(disk, os.path.join(disk, top))

    def run(self, plays: list[Play], names: t.Sequence[str], **settings: str) -> Run:
        """A run over new connections."""
        self.controller.disconnect()
        return self.controller.run(plays, names, **settings)

    def measure(self, plays: list[Play], names: t.Sequence[str], **settings: str) -> Plain:
        """The same, as a sample; raises ``FleetError`` if it failed."""
        self.controller.disconnect()
        nodes = [self.fleet.nodes[name] for name in names]
        before = [_settled(node) for node in nodes]
        settings = {"ANSIBLE_FORKS": str(len(names)), **settings}
        done = self.controller.run(plays, names, **settings).must()
        self.controller.disconnect()
        after = [_settled(node) for node in nodes]
        last = [max(task.ended for task in done.tasks if task.host == n) for n in names]
        first = [min(task.began for task in done.tasks if task.host == n) for n in names]
        counters = [done.counters[name] for name in names]
        return {
            "seconds": done.seconds,
            "cpu": done.cpu,
            "task": [end - begin for begin, end in zip(first, last)],
            "bytes": [one.total for one in counters],
            "payload": [one.payload for one in counters],
            "node_cpu": [late - early for early, late in zip(before, after)],
        }

    def explain(self, plays: list[Play], name: str, **settings: str) -> Plain:
        """How many commands of ssh and how many turns a run on one node takes."""
        self.controller.disconnect()
        with Turns(self.fleet.nodes[name].link) as turns:
            done, stories = self.recorded(plays, [name], **settings)
        done.must()
        return {"commands": stories[name].commands, "turns": turns.count, "handshakes": turns.handshakes}

    def recorded(self, plays: list[Play], names: t.Sequence[str], **settings: str) -> tuple[Run, dict[str, Story]]:
        """A run with Ansible's log, and what that says of each node."""
        log = os.path.join(self.fleet.folder, f"log-{self.unused()}")
        done = self.controller.run(
            plays, names, ["-vvv"], **{"ANSIBLE_FORKS": str(len(names)), **settings, "ANSIBLE_LOG_PATH": log}
        )
        with open(log, encoding="utf-8", errors="replace") as file:
            found = read_log(file)
        os.unlink(log)
        stories = {name: found[self.fleet.nodes[name].address] for name in names}
        return done, stories


def _settled(node: t.Any) -> float:
    """The node's processor time when all connections to it are closed."""
    wait_for(f"the end of connections to {node.name}", lambda: len(node.processes("sshd")) == 1)
    return float(node.cpu())


# -- what one node costs


class Case(t.NamedTuple):
    """Something to measure: ``plays`` makes the plays of the next run, after whatever has to be made ready."""

    name: str
    plays: t.Callable[[], list[Play]]
    settings: t.Mapping[str, str] = {}


def cases(bench: Bench) -> list[Case]:
    """The modules to compare with, and ours: up to date, a new image, one changed layer of ten; pushed and pulled."""
    ten = sample("ten", _MB, layers=_TEN)
    archive = write(bench.images, "ten.oci.tar", ten)
    known = {"push": archive, "pull": bench.web.url("ten.oci.tar")}
    for way, source in known.items():
        place = {"dest": f"{DISK}/{way}/rootfs", "cache_dir": f"{DISK}/{way}/cache", "cache_scope": way}
        bench.run([play(rootfs(src=source, **place))], bench.names).must()

    def task(module: str, **options: t.Any) -> t.Callable[[], list[Play]]:
        return lambda: [play({"name": _NAME, f"ansible.builtin.{module}": options})]

    def same(way: str) -> list[Play]:
        place = {"dest": f"{DISK}/{way}/rootfs", "cache_dir": f"{DISK}/{way}/cache", "cache_scope": way}
        return [play(rootfs(src=known[way], **place))]

    def new(way: str) -> list[Play]:
        dest = f"{DISK}/new/rootfs"
        bench.remove(dest)
        return [play(rootfs(src=known[way], dest=dest))]

    def changed(way: str) -> list[Play]:
        name = f"ten-{bench.unused()}"
        one = sample("ten", _MB, layers=_TEN, changed={4: name})
        path = write(bench.images, f"{name}.oci.tar", one)
        source = path if way == "push" else bench.web.url(os.path.basename(path))
        known[way] = source
        return same(way)

    found = [Case("nothing", lambda: [play()]), Case("ping", task("ping")), Case("stat", task("stat", path=DISK))]
    for way in known:
        found += [
            Case(f"up to date, {way}", lambda way=way: same(way)),  # type: ignore[misc]
            Case(f"one changed layer of ten, {way}", lambda way=way: changed(way)),  # type: ignore[misc]
            Case(f"new image, {way}", lambda way=way: new(way)),  # type: ignore[misc]
        ]
    plain = {"ANSIBLE_SSH_ARGS": _NO_COMPRESSION}
    found.append(Case("new image, push without -C", lambda: new("push"), plain))
    return found


def per_node(bench: Bench, sizes: t.Sequence[int], runs: int) -> list[Plain]:
    """Each case with so many nodes, so often; the cases take turns, so that unrest hits all of them."""
    wanted = cases(bench)
    found: dict[tuple[str, int], Plain] = {}
    for case in wanted:
        for size in sizes:
            found[(case.name, size)] = {"case": case.name, "nodes": size, "samples": []}
        if case.name != "nothing":
            told = bench.explain(case.plays(), bench.names[0], **case.settings)
            found[(case.name, sizes[0])].update(told)
    # that one node is ahead of the others now
    for case in wanted:
        if case.name.startswith("up to date"):
            bench.run(case.plays(), bench.names).must()
    for turn in range(runs):
        for case in wanted:
            for size in sizes:
                names = bench.names[:size]
                one = _measure(bench, case, names)
                found[(case.name, size)]["samples"].append(one)
                _say(f"{turn + 1}/{runs} {case.name}, {size} nodes", one)
    return list(found.values())


def _measure(bench: Bench, case: Case, names: t.Sequence[str]) -> Plain:
    plays = case.plays()
    if case.name != "nothing":
        return bench.measure(plays, names, **case.settings)
    done = bench.run(plays, names).must()
    none = [0.0] * len(names)
    return {"seconds": done.seconds, "cpu": done.cpu, **{key: none for key in ("task", "bytes", "payload", "node_cpu")}}


def crowd(bench: Bench, runs: int) -> list[Plain]:
    """What it costs the controller to look after many nodes that are up to date, all at once."""
    dest = f"{DISK}/crowd/rootfs"
    source = write(bench.images, "crowd.oci.tar", sample("ten", _MB, layers=_TEN))
    same = [play(rootfs(src=source, dest=dest))]
    bench.run(same, bench.everyone, ANSIBLE_FORKS="8").must()
    ping = [play({"name": _NAME, "ansible.builtin.ping": {}})]
    count = len(bench.everyone)
    found: list[Plain] = []
    for name, plays in (("ping", ping), ("up to date, push", same)):
        samples = [bench.measure(plays, bench.everyone) for _turn in range(runs)]
        found.append({"case": name, "nodes": count, "samples": samples})
        for one in samples:
            _say(f"{name}, {count} nodes", {"cpu": one["cpu"]})
    return found


# -- all at once over slow links


def at_once(bench: Bench, images: t.Mapping[str, str], runs: int) -> list[Plain]:
    """A new image on all nodes: how long blobs were on their way, and how long the node worked afterwards."""
    found = []
    for name, path in images.items():
        shifts: list[Plain] = []
        for _turn in range(runs):
            dest = f"{DISK}/at-once/rootfs"
            bench.remove(dest)
            bench.controller.disconnect()
            plays = [play(rootfs(src=path, dest=dest))]
            done, stories = bench.recorded(plays, bench.names)
            done.must()
            results = [done.of(node).result for node in bench.names]
            ends = [done.of(node).ended for node in bench.names]
            told = [stories[node] for node in bench.names]
            shifts.append(
                {
                    "transfer": [story.ended - story.began for story in told],
                    "whole": max(story.ended for story in told) - min(story.began for story in told),
                    "after": [end - story.ended for end, story in zip(ends, told)],
                    "seconds": done.seconds,
                    "bytes": [done.counters[node].total for node in bench.names],
                    "payload": [done.counters[node].payload for node in bench.names],
                }
            )
            layers = results[0]["layers"]
            _say(f"at once: {name}", shifts[-1])
        size = sum(layer["size"] for layer in layers)
        found.append(
            {
                "image": name,
                "nodes": len(bench.names),
                "layers": len(layers),
                "size": size,
                "rate": bench.rate,
                "samples": shifts,
            }
        )
    return found


# -- how Ansible is set


def settings(bench: Bench, runs: int) -> list[Plain]:
    """The same up-to-date run with other forks, without pipelining, and without compression by ssh."""
    dest = f"{DISK}/settings/rootfs"
    source = write(bench.images, "settings.oci.tar", sample("settings", _MB))
    same = [play(rootfs(src=source, dest=dest))]
    bench.run(same, bench.names).must()
    count = len(bench.names)
    variants: list[tuple[str, Plain]] = [
        (f"forks {forks}", {"ANSIBLE_FORKS": str(forks)}) for forks in (1, 2, 4, 8, 16) if forks < count
    ]
    variants.append((f"forks {count}", {"ANSIBLE_FORKS": str(count)}))
    variants += [
        ("pipelining off", {"ANSIBLE_PIPELINING": "0"}),
        ("ssh without -C", {"ANSIBLE_SSH_ARGS": _NO_COMPRESSION}),
    ]
    found: list[Plain] = [{"setting": label, "nodes": count, "samples": []} for label, _values in variants]
    for (_label, values), kept in zip(variants, found):
        kept.update(bench.explain(same, bench.names[0], **values))
    for _turn in range(runs):
        for (label, values), kept in zip(variants, found):
            kept["samples"].append(bench.measure(same, bench.names, **values))
            _say(label, kept["samples"][-1])
    return found


def strategies(bench: Bench, runs: int) -> list[Plain]:
    """Three tasks on nodes of which one has a tenth of the others' rate: when were the others done?"""
    source = write(bench.images, "strategy.oci.tar", sample("strategy", _MB, layers=2))
    dest = f"{DISK}/strategy/rootfs"
    slow = bench.names[-1]
    found: list[Plain] = [{"strategy": name, "nodes": len(bench.names), "samples": []} for name in ("linear", "free")]
    tasks = [
        {"name": "before", "ansible.builtin.stat": {"path": DISK}},
        rootfs(src=source, dest=dest),
        {"name": "after", "ansible.builtin.stat": {"path": DISK}},
    ]
    with bench.fleet.nodes[slow].slowed("1mbit"):
        for _turn in range(runs):
            for one in found:
                bench.remove(dest)
                bench.controller.disconnect()
                plays = [play(*tasks, strategy=f"ansible.builtin.{one['strategy']}")]
                forks = {"ANSIBLE_FORKS": str(len(bench.names))}
                began = time.time()
                done = bench.controller.run(plays, bench.names, **forks).must()
                ends = {name: done.of(name, "after").ended for name in bench.names}
                others = max(end for name, end in ends.items() if name != slow)
                one["samples"].append({"others": others - began, "slow": ends[slow] - began})
                _say(one["strategy"], one["samples"][-1])
    return found


def memory(bench: Bench) -> Plain:
    """What the controller's processes have in memory at most, in MB, with one fork and with one per node."""
    dest = f"{DISK}/memory/rootfs"
    source = write(bench.images, "memory.oci.tar", sample("memory", _MB))
    plays = [play(rootfs(src=source, dest=dest))]
    bench.run(plays, bench.names).must()
    found = {}
    for forks in (1, len(bench.names)):
        bench.controller.disconnect()
        with _Peak() as peak:
            bench.controller.run(plays, bench.names, ANSIBLE_FORKS=str(forks)).must()
        found[str(forks)] = peak.highest / _MB
        _say(f"memory, forks {forks}", found)
    return found


class _Peak:
    """The highest sum of the proportional memory of the controller's processes, but not this one, in bytes."""

    def __init__(self) -> None:
        self.highest = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            used = sum(map(_proportional, pids()))
            self.highest = max(self.highest, used)


def _proportional(pid: int) -> int:
    if pid == os.getpid() or not on_controller(pid):
        return 0
    command = stat_of(pid).command
    if not command.startswith(("ansible", "python", "ssh", "sftp")):
        return 0
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            lines = [line.split() for line in file]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(words[1]) * 1024 for words in lines if words[0] == "Pss:")


def _say(what: str, numbers: Plain) -> None:
    shown = {
        key: ([round(v, 2) for v in value] if isinstance(value, list) else round(value, 2))
        for key, value in numbers.items()
    }
    print(what, shown, flush=True)
