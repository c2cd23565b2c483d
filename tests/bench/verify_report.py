# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Render the section on what verifying costs from results. This file has all of its text."""

from __future__ import annotations

import os
import statistics
import string
import typing as t

from .figures import Results, spread, table, goal
from .report import PAGE, wrapped
from .sections import QUICK, VERIFYING

_WALL, _CPU = 0, 1

TEMPLATE = """\
## $title

${warning}What does `verify` cost beside a run that changes nothing and beside unpacking, and what does the record that it needs
cost while unpacking? The file system is a new loop-mounted ext4 in each turn, and all of the tree is in memory.

- *Above nothing* is without that of a run that changes nothing: medians of three runs in the same turn.
- `verify: content` reads the image's layers again, and each file of the tree.
- *Without a record* is this version with the code taken out that makes the record and the inventory, in turns with this one,
  on a new file system each time.
- Tables show the median of all turns and, in brackets, the least and the greatest.

$goals

### In seconds

$absolute

$machine
"""


def write_section(results: Results, folder: str) -> None:
    """Write the section into the page in ``folder``."""
    VERIFYING.write(os.path.join(folder, PAGE), section(results))


def section(results: Results) -> str:
    """Return the section as Markdown, without its marks."""
    settings, facts = results["settings"], results["machine"]
    text = string.Template(TEMPLATE).substitute(
        title=VERIFYING.title,
        warning=QUICK if settings["quick"] else "",
        goals=table(
            ("image", "what", "measured", "at most", ""),
            [(name, *row) for name, image in results["images"].items() for row in _goals(name, image)],
        ),
        absolute=table(
            ("image", "what", "wall s", "CPU s"),
            [row for name, image in results["images"].items() for row in _seconds(name, image)],
        ),
        machine=(
            f"{facts['Processor']}, {facts['System']}; measuring took {settings['minutes']:.0f} minutes, at a load average of up"
            f" to {settings['load']:.1f}. Other guests of the same host took {settings['stolen']:.1%} of all CPU time."
        ),
    )
    return wrapped(text)


def _goals(name: str, image: Results) -> t.Iterator[tuple[str, ...]]:
    size, entries = image["record"]
    yield goal("record, bytes an entry", spread([size / max(entries, 1)]), 20)
    # for npm, and for anything smaller
    most = {"app": 0.3}.get(name, 1.5)
    turns = image["turns"]
    for how, limit in (("metadata", most), ("content", None)):
        for unit, what in (("wall", _WALL), ("CPU", _CPU)):
            above = spread(_median(turn, how, what) - _median(turn, "nothing", what) for turn in turns)
            yield goal(f"`verify: {how}`, {unit} s above nothing", above, limit if what == _WALL else None)
    content = spread(_median(turn, "content", _CPU) / _median(turn, "unpack", _CPU) for turn in turns)
    yield goal("`verify: content`, CPU, by unpacking", content, 1.1)
    if all("unpack, older" in turn for turn in turns):
        for unit, what, limit in (("wall", _WALL, 1.04), ("CPU", _CPU, None)):
            by_older = spread(_median(turn, "unpack", what) / _median(turn, "unpack, older", what) for turn in turns)
            yield goal(f"unpacking, {unit}, by that without a record", by_older, limit)


def _seconds(name: str, image: Results) -> t.Iterator[tuple[str, ...]]:
    for what in image["turns"][0]:
        found = [spread(_median(turn, what, unit) for turn in image["turns"]) for unit in (_WALL, _CPU)]
        title = f"`verify: {what}`" if what in ("metadata", "content") else what
        yield (f"{name}, {image['record'][1]:,} entries", title, *(one.show(2) for one in found))


def _median(turn: Results, what: str, unit: int) -> float:
    return statistics.median(run[unit] for run in turn[what])
