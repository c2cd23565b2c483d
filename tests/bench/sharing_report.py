# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Render the section on many containers and updates, and its plot, from results. This file has all of its text."""

from __future__ import annotations

import os
import statistics
import string
import typing as t

from .charts import Line, lines, svg
from .figures import Results, Sample, Spread, ratios, spread, table, goal
from .report import PAGE, wrapped
from .sections import QUICK, SHARING

PLOT = "performance-sharing.svg"
_MB = 1e6
# What is known of a step.
_WALL, _DISK, _CPU = 0, 1, 2
_NAMES = {"ordinary": "trees of their own", "store": "shared layers"}

TEMPLATE = """\
## Many containers, many updates

${warning}What do the second container of an image and an update cost, with `store_dir` and without? The file system is a new
loop-mounted btrfs for each way and turn, on which a tree is a snapshot, or an ext4 where that is said, on which it is an
overlay.

![Time and disk over the number of containers, and over the share of the image that changed]($plot)

- *Trees of their own* are those of `oci_rootfs` without a store, *shared layers* those with `store_dir`. Both are the
  whole process of the module, as Ansible sends it, and end with everything on disk.
- *podman* is `podman pull` of the same layout and `podman create`, for an update also `podman rm` of the former container,
  then `sync -f`; its storage is on the same file system. It verifies what buildah does, and mounts a container when it starts.
- Wall time *above nothing* is without that of a run that changes nothing, the median of three in the same turn.
- Disk is what the file system uses more after a step, with both copies of the metadata, when what was removed is free. An
  update keeps the former tree for `state: previous`; podman keeps the former image.
- Ways are compared within a turn; each turn begins with another way. Tables show the median and, in brackets, the least and
  the greatest value of all turns.
- CPU is the user and system time of all processes, which other work on the machine disturbs less than wall time.

$images

### Against the goals

The goals were set beforehand, for a machine that does nothing else; the last lines say what this one did.

$goals

### In seconds and megabytes

$absolute

### Updates by the share of the image that changed

The share is that of the stored bytes; the top layer has changed, then the two top layers, and so on.

$updates

$machine
"""


def write_section(results: Results, folder: str) -> None:
    """Write the section into the page in ``folder``, and the plot beside it."""
    SHARING.write(os.path.join(folder, PAGE), section(results))
    with open(os.path.join(folder, PLOT), "w", encoding="utf-8") as file:
        file.write(plot(results))


def section(results: Results) -> str:
    """Return the section as Markdown, without its marks."""
    settings = results["settings"]
    text = string.Template(TEMPLATE).substitute(
        warning=QUICK if settings["quick"] else "",
        plot=PLOT,
        images=_images_table(results),
        goals=_goals_table(results),
        absolute=_absolute_table(results),
        updates=_updates_table(results),
        machine=_machine_words(results),
    )
    return wrapped(text)


def _title(way: str) -> str:
    return _NAMES.get(way, way)


def _images_table(results: Results) -> str:
    rows = [
        (
            name,
            f"{one['layers']}",
            f"{one['stored'] / _MB:,.0f}",
            f"{len(_turns(one, 'ordinary')[0]['made'])}",
            f"{len(_turns(one, 'store'))}",
        )
        for name, one in results["images"].items()
    ]
    return table(("image, gzip", "layers", "MB of stored layers", "containers", "turns"), rows)


def _turns(image: Results, way: str) -> list[Results]:
    return list(image["turns"][way])


def _nothing(turn: Results, what: int = _WALL) -> float:
    """Return the seconds of a run that changes nothing; podman has none."""
    return statistics.median(step[what] for step in turn["nothing"]) if turn["nothing"] else 0.0


def _further(turn: Results, what: int) -> float:
    """Return the median of all containers but the first."""
    return statistics.median(step[what] for step in turn["made"][1:])


def _by(image: Results, value: t.Callable[[Results], float]) -> Spread:
    """Return a value of shared layers by that of trees of their own, turn by turn."""
    pairs = zip(_turns(image, "store"), _turns(image, "ordinary"))
    return spread(value(shared) / value(ordinary) for shared, ordinary in pairs)


def _goals_table(results: Results) -> str:
    rows: list[tuple[str, ...]] = []
    for name, image in results["images"].items():
        # creating files through an overlay costs that
        most = 1.35 if name == "npm on ext4" else 1.15
        rows += [(name, *row) for row in _goals_of(image, most)]
    rows += _baseline_rows(results["baseline"])
    return table(("image", "what", "measured", "at most", ""), rows)


def _goals_of(image: Results, most: float) -> t.Iterator[tuple[str, ...]]:
    shared = _turns(image, "store")
    count = len(shared[0]["made"])

    def above(what: int, value: t.Callable[[Results, int], float]) -> Spread:
        return spread(value(turn, what) - _nothing(turn, what) for turn in shared)

    yield goal("first container, wall, by a tree of its own", _by(image, lambda turn: turn["made"][0][_WALL]), most)
    yield goal("first container, CPU, by a tree of its own", _by(image, lambda turn: turn["made"][0][_CPU]), None)
    yield goal("a further container, s above nothing", above(_WALL, _further), 0.15)
    yield goal("a further container, CPU s above nothing", above(_CPU, _further), None)
    yield goal("a further container, MB", spread(_further(turn, _DISK) / _MB for turn in shared), 1)
    if image["changed"]:
        part = f"update, the top layer of {image['changed'][0] / _MB:.1f} MB changed"
        yield goal(f"{part}, s above nothing", above(_WALL, _update), 0.4)
        yield goal(f"{part}, CPU s above nothing", above(_CPU, _update), None)
        yield goal(f"{part}, MB", spread(_update(turn, _DISK) / _MB for turn in shared), 2)
    if count > 3:
        for what, title, limit in ((_WALL, "wall", 0.22), (_CPU, "CPU", None), (_DISK, "disk", 0.15)):
            yield goal(f"{count} containers, {title}, by trees of their own", _by(image, _sum_of(what)), limit)


def _update(turn: Results, what: int) -> float:
    """Return what the update of the top layer took."""
    return float(turn["updates"][0][what])


def _sum_of(what: int) -> t.Callable[[Results], float]:
    return lambda turn: float(sum(step[what] for step in turn["made"]))


def _baseline_rows(baseline: Results | None) -> list[tuple[str, ...]]:
    if not baseline:
        return []
    rows = []
    for what, title in (("unpack", "unpacking"), ("nothing", "a run that changes nothing")):
        ours, older = (
            [Sample(wall, cpu, 0) for wall, cpu in baseline["pairs"][f"{what}, {name}"]] for name in ("this", "older")
        )
        for kind, words in (("wall", "wall"), ("cpu", "CPU")):
            title_of = f"without a store: {title}, {words}, by the version before there was one, {len(ours)} pairs"
            rows.append(("app", *goal(title_of, ratios(ours, older, kind), 1.01)))
    return rows


def _absolute_table(results: Results) -> str:
    rows = []
    for name, image in results["images"].items():
        for way in image["turns"]:
            turns = _turns(image, way)
            rows.append(
                (
                    name,
                    _title(way),
                    *_columns([turn["made"][0] for turn in turns], 0),
                    *_columns([step for turn in turns for step in turn["made"][1:]], 2),
                    *(_columns([step for turn in turns for step in turn["nothing"]], 0)[:2] or ("–", "–")),
                )
            )
    head = [f"{step}, {what}" for step in ("first", "further") for what in ("s", "CPU s", "MB")]
    return table(("image", "way", *head, "nothing changed, s", "nothing changed, CPU s"), rows)


def _columns(steps: t.Sequence[t.Sequence[float]], digits: int) -> list[str]:
    """Return wall time, processor time and disk of all these steps, with so many digits for MB."""
    if not steps:
        return []
    seconds = [spread(step[what] for step in steps).show(2) for what in (_WALL, _CPU)]
    return [*seconds, spread(step[_DISK] / _MB for step in steps).show(digits)]


def _updates_table(results: Results) -> str:
    rows = []
    for name, image in results["images"].items():
        for number, (changed, size) in enumerate(zip(image["changed"], image["sizes"])):
            for way in image["turns"]:
                steps = [turn["updates"][number] for turn in _turns(image, way)]
                rows.append((f"{name}, {_share(changed, size):g} %", _title(way), *_columns(steps, 1)))
    return table(("image, share", "way", "s", "CPU s", "MB"), rows)


def _share(changed: int, size: int) -> float:
    """Return the percentage with two digits that count."""
    return float(f"{100 * changed / size:.2g}")


def _machine_words(results: Results) -> str:
    settings, facts = results["settings"], results["machine"]
    nice = f" Everything that was measured ran with a nice value of {settings['nice']}." if settings["nice"] else ""
    return (
        f"{facts['Processor']}, {facts['System']}, podman {facts['podman']}, btrfs-progs {facts['btrfs-progs']}; measuring"
        f" took {settings['minutes']:.0f} minutes. The load average at its beginnings and ends was up to"
        f" {settings['load']:.0f}: where that is far more than there are cores, other work makes wall times long, and"
        f" processor times tell more. Other guests of the same host took {settings['stolen']:.1%} of all CPU time.{nice}"
    )


def plot(results: Results) -> str:
    """Return the plot as SVG."""
    image = results["images"].get("app")
    if image is None:
        return svg([], "Nothing was measured")
    charts = [
        lines("Processor time of all containers of app, seconds", "containers", _over_containers(image, _CPU)),
        lines("Disk of all containers of app, MB", "containers", _over_containers(image, _DISK, _MB)),
        lines("Processor time of an update of app, seconds", "percent of the image changed", _over_share(image, _CPU)),
        lines("Disk of an update of app, MB", "percent of the image changed", _over_share(image, _DISK, _MB)),
    ]
    return svg(charts, "Time and disk over the number of containers, and over the share of the image that changed")


def _over_containers(image: Results, what: int, unit: float = 1.0) -> list[Line]:
    found = []
    for way in image["turns"]:
        made = [turn["made"] for turn in _turns(image, way)]
        points = [
            (count, statistics.median(sum(step[what] for step in steps[:count]) / unit for steps in made))
            for count in range(1, len(made[0]) + 1)
        ]
        found.append(Line(_title(way), tuple(points)))
    return found


def _over_share(image: Results, what: int, unit: float = 1.0) -> list[Line]:
    found = []
    for way in image["turns"]:
        points = [
            (
                _share(changed, size),
                statistics.median(turn["updates"][number][what] / unit for turn in _turns(image, way)),
            )
            for number, (changed, size) in enumerate(zip(image["changed"], image["sizes"]))
        ]
        found.append(Line(_title(way), tuple(points)))
    return found
