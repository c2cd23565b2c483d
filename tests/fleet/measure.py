# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measures what a fleet costs, and writes the tables of docs/fleet.md.

    measure.py [--runs 3] [--nodes 8] [--crowd 32] [--rate 10mbit] [--images DIR] [--results FILE] [--page FILE]

It needs root and ansible-core in the Python that runs it. ``--images DIR`` adds images made by others to the transfer
to all nodes at once: the archives in that folder that ``--take`` names.
``--render FILE`` measures nothing and writes the tables from the results of an earlier run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import typing as t

if __name__ == "__main__" and not __package__:
    # run as a script: be the member of a package that relative imports need
    sys.path[0] = os.path.abspath(__file__).rsplit(os.sep, 3)[0]
    __package__ = "tests.fleet"

from ..bench import machine
from ..tools import confinement
from . import costs, packages
from .namespaces import CannotEnter, enter
from .page import check, rewrite
from .samples import sample, write

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_MB = 1_000_000
PARTS = ("at_once", "per_node", "crowd", "settings", "strategies", "memory")
TAKEN = ("dive-14-layers.docker.tar", "busybox-multi-nested.oci.tar")


def measure(folder: str, options: argparse.Namespace) -> dict[str, t.Any]:
    """All of it."""
    before = machine.load()
    began = time.time()
    bench = costs.Bench(folder, options.nodes, options.crowd, options.rate)
    images = {"ten layers of 1 MB": write(bench.images, "at-once.oci.tar", sample("at-once", _MB, layers=10))}
    for name in options.take:
        path = os.path.join(options.images or "", name)
        if options.images and os.path.exists(path):
            images[name.split(".")[0]] = path
        else:
            print(f"not measured, since --images has none: {name}", flush=True)
    sizes = sorted({1, options.nodes})
    runs = options.runs
    parts: dict[str, t.Callable[[], t.Any]] = {
        "at_once": lambda: costs.at_once(bench, images, runs),
        "per_node": lambda: costs.per_node(bench, sizes, runs),
        "crowd": lambda: costs.crowd(bench, runs),
        "settings": lambda: costs.settings(bench, runs),
        "strategies": lambda: costs.strategies(bench, runs),
        "memory": lambda: costs.memory(bench),
    }
    results: dict[str, t.Any] = {
        name: measured() for name, measured in parts.items() if not options.only or name in options.only
    }
    results["machine"] = machine.describe([])
    results["run"] = {
        "runs": options.runs,
        "nodes": options.nodes,
        "rate": options.rate,
        "minutes": (time.time() - began) / 60,
        "load": machine.unrest(before, machine.load()),
    }
    return results


def parse(arguments: t.Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description="Measure what a fleet costs.")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--nodes", type=int, default=8, metavar="N", help="default 8")
    parser.add_argument("--crowd", type=int, default=32, metavar="N", help="default 32")
    parser.add_argument("--rate", default="10mbit", help="of each node, default 10mbit")
    parser.add_argument("--images", metavar="DIR", help="images made by others")
    parser.add_argument("--take", nargs="*", default=TAKEN, metavar="NAME")
    parser.add_argument("--results", metavar="FILE", help="keep the results there")
    parser.add_argument("--page", default=os.path.join(_ROOT, "docs", "fleet.md"), metavar="FILE")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PARTS,
        metavar="PART",
        help=f"the others are taken from --results, as it is: {', '.join(PARTS)}",
    )
    parser.add_argument("--render", metavar="FILE", help="measure nothing, use these")
    options = parser.parse_args(arguments)
    if options.only and not options.results:
        parser.error("--only needs --results")
    if options.runs < 1 or not 2 <= options.nodes <= options.crowd <= 200:
        parser.error("at least one run, 2 nodes, and a crowd of as many to 200")
    return options


def main(arguments: t.Sequence[str] | None = None) -> int:
    """The command line."""
    options = parse(arguments)
    if options.render:
        with open(options.render, encoding="utf-8") as file:
            rewrite(options.page, json.load(file))
        return 0
    confinement.require()
    check(options.page)
    missing = ["root"] if os.geteuid() != 0 else packages.missing()
    if missing:
        print(f"a fleet needs {', '.join(missing)}", file=sys.stderr)
        return 3
    earlier = {}
    if options.only:
        with open(options.results, encoding="utf-8") as file:
            earlier = json.load(file)
    try:
        folder = enter()
    except CannotEnter as error:
        print(error, file=sys.stderr)
        return 3
    try:
        results = {**earlier, **measure(folder, options)}
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    if options.results:
        with open(options.results, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)
    rewrite(options.page, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
