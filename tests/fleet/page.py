# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the tables of docs/fleet.md: measurements, and estimates for larger fleets. The text stays unchanged."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from ..bench.figures import Spread, spread, table

Plain = t.Dict[str, t.Any]
TABLES = (
    "machine",
    "one node",
    "controller",
    "megabyte",
    "crowd",
    "at once",
    "settings",
    "strategies",
    "memory",
    "up to date",
    "new image",
)
FLEETS = (10, 100, 1000, 10_000)
RACK = 40
_MB = 1_000_000
_GB = 1_000_000_000
_UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}


def check(path: str) -> None:
    """Raise ``ValueError`` if a page lacks a mark, before anything is measured for it."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for name in TABLES:
        replaced(text, name, "")


def rewrite(path: str, results: Plain) -> None:
    """Put the tables of these results between the marks of a page; raises ``ValueError`` if a mark is missing."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    for name, content in tables(results).items():
        text = replaced(text, name, content)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def replaced(text: str, name: str, content: str) -> str:
    """Replace the table between two marks. Raises ``ValueError``."""
    begin, end = f"<!-- measured: {name} -->", "<!-- end -->"
    pattern = re.escape(begin) + r"\n.*?" + re.escape(end)
    new = f"{begin}\n\n{content}\n\n{end}"
    changed, count = re.subn(pattern, lambda _match: new, text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"expected one place for the table {name}, found {count}")
    return changed


def tables(results: Plain) -> dict[str, str]:
    """Return all tables by name, as Markdown."""
    return {
        "machine": machine(results),
        "one node": one_node(results["per_node"]),
        "controller": controller(results["per_node"]),
        "megabyte": megabyte(results["per_node"]),
        "crowd": crowd(results["per_node"], results["crowd"]),
        "at once": at_once(results["at_once"]),
        "settings": settings(results["settings"]),
        "strategies": strategies(results["strategies"]),
        "memory": memory(results["memory"]),
        "up to date": fleet_up_to_date(results["per_node"]),
        "new image": fleet_new_image(results["per_node"]),
    }


# -- measurements


def machine(results: Plain) -> str:
    """Return the table of the machine and the runs."""
    run, known = results["run"], results["machine"]
    load = run["load"]
    rows = [
        ["Processor", known["Processor"]],
        ["Memory", known["Memory"]],
        ["System", known["System"]],
        ["Controller", f"Python {known['Python'].split(',')[0]}, ansible-core {known['ansible-core']}"],
        ["Nodes", f"{run['nodes']} network namespaces on the same machine, {run['rate']} each"],
        ["Runs of each case", f"{run['runs']}: median (lowest–highest)"],
        ["Load before the first run", f"{load['before']:.1f}, {load['stolen']:.0%} stolen"],
    ]
    return table(["", ""], rows)


def of(cases: t.Sequence[Plain], name: str, nodes: int) -> Plain:
    """Return one case."""
    return next(c for c in cases if (c["case"], c["nodes"]) == (name, nodes))


def each(case: Plain, key: str) -> Spread:
    """Return the spread of a value over all samples; lists count with all of their numbers."""
    values: list[float] = []
    for one in case["samples"]:
        values += one[key] if isinstance(one[key], list) else [one[key]]
    return spread(values)


def _names(cases: t.Sequence[Plain]) -> list[str]:
    return list(dict.fromkeys(case["case"] for case in cases))


def one_node(cases: t.Sequence[Plain]) -> str:
    """Return the table of seconds and bytes of a single node."""
    fewest = min(case["nodes"] for case in cases)
    rows = []
    for name in _names(cases):
        case = of(cases, name, fewest)
        if name == "nothing":
            continue
        rows.append(
            [
                name,
                each(case, "task").show(2),
                _kilo(each(case, "bytes")),
                str(case["commands"]),
                str(case["turns"] + case["handshakes"]),
                each(case, "node_cpu").show(2),
            ]
        )
    head = ["one node", "seconds", "kB on its link", "ssh commands", "round trips"]
    return table([*head, "CPU s of the node"], rows)


def controller(cases: t.Sequence[Plain]) -> str:
    """Return the table of the controller's processor time."""
    fewest, most = _sizes(cases)
    rows = []
    # the baseline comes last
    for name in sorted(_names(cases), key="nothing".__eq__):
        cost = cpu_cost(cases, name)
        rows.append(
            [
                name,
                each(of(cases, name, fewest), "cpu").show(2),
                each(of(cases, name, most), "cpu").show(2),
                f"{cost.node:.2f}",
                "" if name == "nothing" else f"{60 / cost.node:.0f}",
            ]
        )
    head = ["controller", f"CPU s, {fewest} node", f"CPU s, {most} nodes"]
    return table([*head, "CPU s per further node", "nodes a minute per core"], rows)


def crowd(cases: t.Sequence[Plain], larger: t.Sequence[Plain]) -> str:
    """Compare a larger fleet with the line through the smaller ones."""
    rows = []
    for case in larger:
        predicted = cpu_cost(cases, case["case"]).of(case["nodes"])
        found = each(case, "cpu")
        rows.append(
            [
                f"{case['case']}, {case['nodes']} nodes",
                f"{predicted:.1f}",
                found.show(1),
                f"{found.median / predicted:.2f}",
                each(case, "seconds").show(1),
            ]
        )
    head = ["at once", "CPU s predicted", "CPU s measured", "ratio", "seconds of the run"]
    return table(head, rows)


def at_once(cases: t.Sequence[Plain]) -> str:
    """Compare the transfers with the least time that the links allow."""
    rows = []
    for case in cases:
        least = case["size"] * 8 / bits(case["rate"])
        own = each(case, "transfer")
        whole = each(case, "whole")
        rows.append(
            [
                f"{case['image']}, {case['nodes']} nodes",
                str(case["layers"]),
                f"{case['size'] / _MB:.2f}",
                f"{least:.2f}",
                own.show(2),
                f"{own.median / least:.2f}",
                f"{whole.median / least:.2f}",
                each(case, "after").show(2),
            ]
        )
    head = ["image", "layers", "MB", "least s", "transfer of a node, s", "ratio to least"]
    return table([*head, "first to last of all, ratio to least", "rest of a task, s"], rows)


def settings(cases: t.Sequence[Plain]) -> str:
    """Return the table of forks, pipelining and compression."""
    rows = []
    for case in cases:
        rows.append(
            [
                f"{case['setting']}, {case['nodes']} nodes",
                each(case, "seconds").show(1),
                each(case, "cpu").show(1),
                each(case, "task").show(2),
                _kilo(each(case, "bytes")),
                str(case["commands"]),
                str(case["turns"] + case["handshakes"]),
            ]
        )
    head = ["up to date", "seconds of the run", "CPU s", "task of a node, s"]
    head += ["kB on a link", "ssh commands", "round trips"]
    return table(head, rows)


def strategies(cases: t.Sequence[Plain]) -> str:
    """Return the table of strategies with one slow node."""
    rows = [[case["strategy"], each(case, "others").show(1), each(case, "slow").show(1)] for case in cases]
    return table(["strategy", "all other nodes done after, s", "the slow node, s"], rows)


def memory(found: Plain) -> str:
    """Return the table of the controller's memory."""
    rows = [[f"forks {forks}", f"{used:.0f}"] for forks, used in found.items()]
    return table(["", "peak MB of the controller"], rows)


# -- estimates


@dataclass(frozen=True)
class Cost:
    """CPU seconds of the controller: for a run without nodes, and for each node."""

    run: float
    node: float

    def of(self, nodes: int) -> float:
        """Return the seconds for a fleet."""
        return self.run + self.node * nodes


def _sizes(cases: t.Sequence[Plain]) -> tuple[int, int]:
    known = [case["nodes"] for case in cases]
    return min(known), max(known)


def cpu_cost(cases: t.Sequence[Plain], name: str) -> Cost:
    """Return the line through the medians of the smallest and the largest fleet."""
    fewest, most = _sizes(cases)
    low, high = (each(of(cases, name, n), "cpu").median for n in (fewest, most))
    node = (high - low) / (most - fewest)
    return Cost(low - node * fewest, node)


def megabyte(cases: t.Sequence[Plain]) -> str:
    """Return the table of the controller's time for each MB of an image."""
    _fewest, most = _sizes(cases)
    rows = []
    for name, same in (
        ("new image, push", "up to date, push"),
        ("new image, push without -C", "up to date, push"),
        ("new image, pull", "up to date, pull"),
    ):
        size = each(of(cases, name, most), "payload").median
        size -= each(of(cases, same, most), "payload").median
        seconds = cpu_cost(cases, name).node - cpu_cost(cases, same).node
        rows.append([name, f"{1000 * seconds / (size / _MB):.0f}"])
    return table(["per node", "CPU ms of the controller per MB of image"], rows)


def fleet_up_to_date(cases: t.Sequence[Plain]) -> str:
    """Estimate a run that finds all nodes up to date."""
    _fewest, most = _sizes(cases)
    rows = []
    for nodes in FLEETS:
        row = [f"{nodes:,}"]
        for name in ("ping", "up to date, push", "up to date, pull"):
            size = each(of(cases, name, most), "bytes").median * nodes
            row += [_minutes(cpu_cost(cases, name).of(nodes)), f"{size / _GB:.2f}"]
        rows.append(row)
    head = ["nodes"]
    for name in ("ping", "push", "pull"):
        head += [f"{name}: CPU", f"{name}: GB"]
    return table(head, rows)


def fleet_new_image(cases: t.Sequence[Plain]) -> str:
    """Estimate the update to the measured image, for each way to distribute it."""
    _fewest, most = _sizes(cases)
    push = each(of(cases, "new image, push", most), "bytes").median
    pull = each(of(cases, "new image, pull", most), "bytes").median
    # the module, and the documents of an image that is installed already
    control = each(of(cases, "up to date, pull", most), "bytes").median
    image = pull - control
    rows = []
    for nodes in FLEETS:
        racks = -(-nodes // RACK)
        by_push = cpu_cost(cases, "new image, push").of(nodes)
        by_pull = cpu_cost(cases, "new image, pull").of(nodes)
        rows.append(
            [
                f"{nodes:,}",
                _minutes(by_push),
                f"{push * nodes / _GB:.2f}",
                _minutes(by_pull),
                f"{(racks * image + control * nodes) / _GB:.2f}",
                f"{image * min(nodes, RACK) / _GB:.2f}",
                f"{control * nodes / _GB:.2f}",
                f"{image * nodes / _GB:.2f}",
            ]
        )
    head = ["nodes", "push: CPU", "push: GB sent", "mirrors, pull: CPU"]
    head += ["mirrors: GB sent", "GB of a mirror", "one server: GB sent"]
    return table([*head, "GB of the server"], rows)


def bits(rate: str) -> float:
    """Parse a rate of tc into bits per second. Raises ``ValueError``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]bit)", rate)
    if match is None:
        raise ValueError(f"invalid rate {rate!r}: expected a rate such as 10mbit")
    return float(match.group(1)) * _UNITS[match.group(2)]


def _kilo(values: Spread) -> str:
    return Spread(*(v / 1000 for v in (values.median, values.low, values.high))).show(0)


def _minutes(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
