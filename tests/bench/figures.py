# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was measured, and the numbers that are made of it. Nothing here touches the machine.

The results of a whole run are plain data, so that the page can be written again without measuring:

``machine``, ``settings``: texts by name; ``cases``, ``scaling``, ``idle``, ``reading``, ``sha``: see ``run.py``;
``problems``: sentences on what could not be measured.
"""

from __future__ import annotations

import statistics
import typing as t
from dataclasses import dataclass

Results = t.Dict[str, t.Any]


@dataclass(frozen=True)
class Sample:
    """One run: seconds of wall and processor time, peak memory in MiB, and exit statuses that were not 0."""

    wall: float
    cpu: float
    memory: float
    failures: tuple[int, ...] = ()

    @classmethod
    def from_report(cls, line: str) -> Sample:
        """What ``measure.py`` wrote."""
        wall, user, system, peak, *failures = line.split()
        return cls(
            float(wall), float(user) + float(system), int(peak) / 1024, tuple(int(status) for status in failures)
        )


Samples = t.Sequence[Sample]


@dataclass(frozen=True)
class Spread:
    """A median and its range."""

    median: float
    low: float
    high: float

    def show(self, digits: int) -> str:
        """``median (low–high)``."""
        low, high = f"{self.low:.{digits}f}", f"{self.high:.{digits}f}"
        return f"{self.median:.{digits}f} ({low}–{high})"


def spread(values: t.Iterable[float]) -> Spread:
    """Of at least one value."""
    values = sorted(values)
    return Spread(statistics.median(values), values[0], values[-1])


def ratios(ours: Samples, theirs: Samples, what: str) -> Spread:
    """Of each pair, ours by theirs; ``what`` is a field of ``Sample``. Below 1 is in our favour."""
    return spread(getattr(one, what) / max(getattr(other, what), 1e-9) for one, other in zip(ours, theirs))


def unrest(groups: t.Iterable[Samples]) -> Spread:
    """How far the wall times of the same work lie apart: the range by the median, for each group."""
    spreads = [spread(sample.wall for sample in group) for group in groups]
    return spread((one.high - one.low) / one.median for one in spreads)


def slope(small: tuple[float, float], large: tuple[float, float]) -> float:
    """The rise of the second number by the first."""
    return (large[1] - small[1]) / (large[0] - small[0])


def table(head: t.Sequence[str], rows: t.Iterable[t.Sequence[str]]) -> str:
    """A table in Markdown; all but the first column are set to the right where the first row has a number."""
    rows = [list(row) for row in rows]
    rule = ["---:" if rows and rows[0][column][:1].isdigit() else "---" for column in range(len(head))]
    lines = [head, rule, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def goal(what: str, found: Spread, most: float | None) -> tuple[str, ...]:
    """A row of a table: what, the value, its goal if it has one, and whether that was missed."""
    if most is None:
        return what, found.show(2), "–", ""
    # compare the rounded value that the page shows
    return what, found.show(2), f"{most:g}", "" if round(found.median, 2) <= most else "**missed**"
