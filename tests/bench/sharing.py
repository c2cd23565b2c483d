# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measures what many containers and many updates cost with shared layers, without, and with podman.

    python3 tests/bench/sharing.py [--quick] [--turns 5] [--baseline DIR] [--only app] [--on ext4] [--output docs]

Each way of making containers gets a new file system in each turn, and makes the same containers and updates there. It writes
its section of docs/performance.md and a plot of its own. ``--baseline DIR`` is a checkout of an older version, beside
which runs without a store are measured. Needs root; ``--render FILE`` writes the section again from the results that
``--results FILE`` has kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
import typing as t

if __name__ == "__main__" and not __package__:
    # run as a script: be the member of a package that relative imports need
    sys.path[0] = os.path.abspath(__file__).rsplit(os.sep, 3)[0]
    __package__ = "tests.bench"

from ..tools.removal import remove_below
from . import images, machine
from .figures import Results
from .filesystem import Btrfs, Ext4
from .images import Case
from .product import Modules, result_of
from .run import Bench, keep, measured, require_root, warm
from .sharing_report import write_section
from .ways import Ours, Podman, Way, podman_drivers

_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(os.path.dirname(_HERE))
# Containers of each image, and its other versions: each is the update of another container.
_CONTAINERS = {"app": 10, "npm": 3}
_VERSIONS = {"app": 4, "npm": 0}
_NOTHING_RUNS = 3
_RUNNING = "/tmp/podman"
_BASELINE_PAIRS = 3


Disk = t.Union[Btrfs, Ext4]
# After the name of an image in the results.
_DISKS = {"btrfs": "", "ext4": " on ext4"}


class Image(t.NamedTuple):
    """An image, and other versions of it, of which more and more layers differ."""

    name: str
    case: Case
    versions: tuple[Case, ...]

    @property
    def changed(self) -> list[int]:
        """Bytes of the stored layers that each version does not share with the image."""
        return [
            sum(os.path.getsize(path) for path in version.layers if os.path.basename(path) not in self._names)
            for version in self.versions
        ]

    @property
    def _names(self) -> set[str]:
        return {os.path.basename(path) for path in self.case.layers}


class Measured(t.NamedTuple):
    """Seconds of wall time, bytes that the file system took more, and seconds of processor time."""

    wall: float
    disk: int
    cpu: float


def measure_way(bench: Bench, filesystem: Disk, way: Way, image: Image) -> Results:
    """Make all containers of an image on a new file system, then update some. Raises ``RuntimeError``."""

    def step(number: int, case: Case, changes: bool = True) -> Measured:
        before = filesystem.used()
        sample, printed = bench.run(way.command(number, case))
        if sample.failures:
            with open(os.path.join(bench.folder, "said"), encoding="utf-8", errors="replace") as said:
                raise RuntimeError(f"exit status {sample.failures[0]}: {said.read()[-500:]}")
        if isinstance(way, Ours) and result_of(printed)["changed"] is not changes:
            raise RuntimeError("not what was expected to change")
        return Measured(sample.wall, filesystem.used() - before, sample.cpu)

    made = [step(number, image.case) for number in range(_CONTAINERS[image.name])]
    nothing: list[Measured] = []
    if isinstance(way, Ours):
        nothing = [step(0, image.case, False) for _run in range(_NOTHING_RUNS)]
    updates = [step(number, version) for number, version in enumerate(image.versions)]
    return {"made": made, "nothing": nothing, "updates": updates}


def measure_image(bench: Bench, filesystem: Disk, image: Image) -> Results:
    """All ways in turns, which begin with another way each time."""
    drivers = podman_drivers() if isinstance(filesystem, Btrfs) else podman_drivers()[:1]
    names = ["ordinary", "store", *(f"podman, {driver}" for driver in drivers)]
    found: dict[str, list[Results]] = {name: [] for name in names}
    for turn in range(bench.options.turns):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            for case in (image.case, *image.versions):
                warm(case)
            with filesystem.fresh() as path, _way(bench, name, path) as way:
                found[name].append(measure_way(bench, filesystem, way, image))
        _say(f"  {image.name}: turn {turn + 1} of {bench.options.turns}")
    return {
        "layers": len(image.case.layers),
        "stored": image.case.size,
        "changed": image.changed,
        "sizes": [version.size for version in image.versions],
        "turns": found,
    }


@contextlib.contextmanager
def _way(bench: Bench, name: str, path: str) -> t.Iterator[Way]:
    if not name.startswith("podman"):
        yield Ours(bench.modules, path, name == "store")
        return
    # in the sandbox, nobody else has this folder
    os.mkdir(_RUNNING, 0o700)
    try:
        yield Podman(path, name.rpartition(" ")[2], _RUNNING)
    finally:
        remove_below(os.path.dirname(_RUNNING), _RUNNING)


def measure_baseline(bench: Bench, filesystem: Disk, case: Case, checkout: str) -> Results:
    """Runs without a store of this version and of an older one, in pairs, each first in half of them."""
    folder = os.path.join(bench.folder, "baseline")
    os.mkdir(folder)
    versions = {"this": bench.modules, "older": Modules(folder, checkout)}
    found: dict[str, list[tuple[float, float]]] = {}
    warm(case)

    def run(name: str, what: str, path: str, changes: bool) -> None:
        modules = versions[name]
        sample, printed = bench.run(Ours(modules, path, False).command(0, case), modules.environment)
        if result_of(printed)["changed"] is not changes:
            raise RuntimeError("not what was expected to change")
        found.setdefault(f"{what}, {name}", []).append((sample.wall, sample.cpu))

    for pair in range(_BASELINE_PAIRS * bench.options.turns):
        order = ("this", "older") if pair % 2 else ("older", "this")
        for name in order:
            with filesystem.fresh() as path:
                run(name, "unpack", path, True)
        with filesystem.fresh() as path:
            # what it finds is made by the older one, as on a node that was updated
            run("older", "first", path, True)
            for name in order * 2:
                run(name, "nothing", path, False)
    _say("  without a store, beside an older version")
    return {"pairs": found}


def run_all(bench: Bench, results: Results) -> Results:
    """Everything that was asked for, one image after the other, added to earlier ``results``."""
    options = bench.options
    filesystem = Btrfs(bench.folder)
    disks: dict[str, Disk] = {"btrfs": filesystem, "ext4": Ext4(bench.folder)}
    before, started = machine.load(), time.time()
    for name in filter(bench.options.chooses, _CONTAINERS):
        with _built(bench, name, _VERSIONS[name]) as image:
            for where, disk in disks.items():
                if options.on in (None, where):
                    results["images"][name + _DISKS[where]] = measure_image(bench, disk, image)
    if options.baseline and options.chooses("baseline"):
        with _built(bench, "app") as image:
            results["baseline"] = measure_baseline(bench, filesystem, image.case, options.baseline)
    after = machine.load()
    earlier = results.get("settings", {"minutes": 0.0, "load": 0.0})
    results["machine"] = machine.describe(bench.inflaters)
    results["settings"] = {
        "quick": options.quick,
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "minutes": earlier["minutes"] + (time.time() - started) / 60,
        "load": max(earlier["load"], before[0], after[0]),
        "stolen": machine.unrest(before, after)["stolen"],
    }
    return results


@contextlib.contextmanager
def _built(bench: Bench, name: str, versions: int = 0) -> t.Iterator[Image]:
    _say(f"{name}: building")
    folder = os.path.join(bench.folder, "images")
    quick = bench.options.quick
    try:
        built = []
        for changed in range(versions + 1):
            layers = images.npm(quick) if name == "npm" else images.app(quick, changed)
            built += images.build(folder, f"{name}-{changed}", layers, ["gzip"])
        yield Image(name, built[0], tuple(built[1:]))
    finally:
        remove_below(bench.folder, folder)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse(arguments: t.Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description="Measure what many containers and many updates cost.")
    parser.add_argument("--turns", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument("--quick", action="store_true", help="tiny images, to see that all works")
    parser.add_argument("--only", action="append", default=[], choices=[*_CONTAINERS, "baseline"])
    parser.add_argument("--on", choices=list(_DISKS), help="only there; default on both")
    parser.add_argument("--baseline", metavar="DIR", help="a checkout of an older version")
    parser.add_argument("--folder", metavar="DIR", help="where to work; about 12 GB are needed")
    parser.add_argument("--limit", type=int, default=600, metavar="S", help="seconds for one run")
    parser.add_argument("--output", default=os.path.join(_ROOT, "docs"), metavar="DIR")
    parser.add_argument("--results", metavar="FILE", help="keep the results there, with earlier ones")
    parser.add_argument("--render", metavar="FILE", help="measure nothing, use these")
    options = parser.parse_args(arguments)
    if options.turns < 1:
        parser.error("--turns: at least 1")
    options.chooses = lambda name: not options.only or name in options.only
    # what a bench asks of its options
    options.tmpfs = False
    return options


def main(arguments: t.Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(arguments)
    results: Results = {"images": {}, "baseline": None}
    for earlier in filter(None, (options.results, options.render)):
        with contextlib.suppress(FileNotFoundError), open(earlier, encoding="utf-8") as file:
            results = json.load(file)
    if not options.render:
        require_root()
        results = json.loads(json.dumps(measured(options, lambda bench: run_all(bench, results))))
    keep(results, options)
    write_section(results, options.output)


if __name__ == "__main__":
    main()
