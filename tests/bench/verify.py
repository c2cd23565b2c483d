# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measures what verifying a tree costs, and what the record that it needs costs when the tree is unpacked.

    python3 tests/bench/verify.py [--quick] [--turns 5] [--baseline DIR] [--only app] [--output docs]

Each turn unpacks an image on a new ext4, runs again without a change, and verifies. It writes its section of
docs/performance.md. ``--baseline DIR`` is a checkout of a version that makes neither record nor inventory, beside which
unpacking is measured.
Needs root; ``--render FILE`` writes the section again from the results that ``--results FILE`` has kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

if __name__ == "__main__" and not __package__:
    # run as a script: be the member of a package that relative imports need
    sys.path[0] = os.path.abspath(__file__).rsplit(os.sep, 3)[0]
    __package__ = "tests.bench"

from ..tools.removal import remove_below
from . import images, machine
from .figures import Results
from .filesystem import Ext4
from .images import Case
from .product import OURS, Modules, result_of
from .run import Bench, keep, measured, require_root, warm
from .verify_report import write_section

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_IMAGES = ("app", "npm")
# Runs of a kind on one tree; the first of them reads the tree's inodes from memory as the others do.
_RUNS = 3
_JOURNAL = ".journal"


class Turn:
    """One new file system, a tree on it, and all that is measured there; ``found`` are pairs of wall and CPU seconds."""

    def __init__(self, bench: Bench, folder: str, case: Case) -> None:
        self._bench = bench
        self._case = case
        self._dest = os.path.join(folder, "guests", "rootfs")
        self.found: dict[str, list[tuple[float, float]]] = {}

    def unpack(self, what: str, modules: Modules) -> None:
        """Unpack with one version of the module. Raises ``RuntimeError``."""
        self._run(what, modules, modules.command(OURS, "payload", self._case.layout, self._dest), True)

    def verify(self, modules: Modules) -> None:
        """Run without a change, and verify in both ways. Raises ``RuntimeError``."""
        for _run in range(_RUNS):
            command = modules.command(OURS, "payload", self._case.layout, self._dest)
            self._run("nothing", modules, command, False)
            for how in ("metadata", "content"):
                result = self._run(how, modules, modules.verifying(self._case.layout, self._dest, how), False)
                if result["drift"]["verdict"] != "clean":
                    raise RuntimeError(f"a fresh tree is {result['drift']['state']}")

    def record(self) -> tuple[int, int]:
        """Return the bytes of the record that was made while unpacking, and the number of entries of the tree."""
        entries = sum(len(folders) + len(files) for _path, folders, files in os.walk(self._dest))
        size = sum(
            os.path.getsize(os.path.join(path, name))
            for path, _folders, files in os.walk(os.path.dirname(self._dest))
            for name in files
            if name.endswith(_JOURNAL) and not path.startswith(self._dest)
        )
        return size, entries

    def _run(self, what: str, modules: Modules, command: list[str], changes: bool) -> Results:
        sample, printed = self._bench.run(command, modules.environment)
        result = result_of(printed)
        if result["changed"] is not changes:
            raise RuntimeError("not what was expected to change")
        self.found.setdefault(what, []).append((sample.wall, sample.cpu))
        return result


def measure(bench: Bench, case: Case, older: Modules | None) -> Results:
    """All turns of one image; each begins with another version. Raises ``RuntimeError``."""
    filesystem = Ext4(bench.folder)
    turns = []
    record = (0, 0)
    for number in range(bench.options.turns):
        found: dict[str, list[tuple[float, float]]] = {}
        versions = [("unpack", bench.modules), *([("unpack, older", older)] if older else [])]
        for what, modules in versions if number % 2 else versions[::-1]:
            warm(case)
            with filesystem.fresh() as path:
                turn = Turn(bench, path, case)
                turn.unpack(what, modules)
                if modules is bench.modules:
                    record = turn.record()
                    turn.verify(modules)
            found.update(turn.found)
        turns.append(found)
        _say(f"  {case.image}: turn {number + 1} of {bench.options.turns}")
    return {"record": record, "stored": case.size, "turns": turns}


def run_all(bench: Bench) -> Results:
    """Everything that was asked for."""
    before, started = machine.load(), time.time()
    older = None
    if bench.options.baseline:
        folder = os.path.join(bench.folder, "baseline")
        os.mkdir(folder)
        older = Modules(folder, bench.options.baseline)
    found = {}
    for name in bench.options.only or _IMAGES:
        _say(f"{name}: building")
        folder = os.path.join(bench.folder, "images")
        try:
            layers = getattr(images, name)(bench.options.quick)
            (case,) = images.build(folder, name, layers, ["gzip"])
            found[name] = measure(bench, case, older)
        finally:
            remove_below(bench.folder, folder)
    after = machine.load()
    return {
        "images": found,
        "machine": machine.describe(bench.inflaters),
        "settings": {
            "quick": bench.options.quick,
            "minutes": (time.time() - started) / 60,
            "load": max(before[0], after[0]),
            "stolen": machine.unrest(before, after)["stolen"],
        },
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description="Measure what verifying a tree costs.")
    parser.add_argument("--turns", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument("--quick", action="store_true", help="tiny images, to see that all works")
    parser.add_argument("--only", action="append", default=[], choices=_IMAGES)
    parser.add_argument("--baseline", metavar="DIR", help="a checkout of a version that makes no record")
    parser.add_argument("--folder", metavar="DIR", help="where to work; about 12 GB are needed")
    parser.add_argument("--limit", type=int, default=600, metavar="S", help="seconds for one run")
    parser.add_argument("--output", default=os.path.join(_ROOT, "docs"), metavar="DIR")
    parser.add_argument("--results", metavar="FILE", help="keep the results there")
    parser.add_argument("--render", metavar="FILE", help="measure nothing, use these")
    options = parser.parse_args(arguments)
    if options.turns < 1:
        parser.error("--turns: at least 1")
    # what a bench asks of its options
    options.tmpfs = False
    return options


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    options = parse(arguments)
    if options.render:
        with open(options.render, encoding="utf-8") as file:
            results = json.load(file)
    else:
        require_root()
        results = json.loads(json.dumps(measured(options, run_all)))
    keep(results, options)
    write_section(results, options.output)


if __name__ == "__main__":
    main()
