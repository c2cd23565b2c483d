# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two kinds of charts as SVG, written by hand: bars with ranges, and lines over a logarithmic axis."""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass
from xml.sax.saxutils import escape

from .figures import Spread

WIDTH = 880
COLOURS = ("#1b6ca8", "#58a4d6", "#8fd0f0", "#b5651d", "#d9a066", "#7a7a7a", "#4d8c57", "#a3c585")

# the key in two pieces, since a checker would take it for this file's own
LICENCE = (
    "<!--\nCopyright (c) the hypervisor.oci authors\n"
    "GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)\n"
    "SPDX-"
    "License-Identifier: GPL-3.0-or-later\n-->"
)
_LEFT = 150
_RIGHT = 40
_BAR = 9


@dataclass(frozen=True)
class Bar:
    """One bar: whose it is, and how long."""

    name: str
    length: Spread


@dataclass(frozen=True)
class Line:
    """Points of a line, by rising x; both coordinates are above 0."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """A drawing of ``height``, to be put below others."""

    height: int
    elements: tuple[str, ...]


def bars(title: str, groups: t.Sequence[tuple[str, t.Sequence[Bar]]], unit: float = 1.0) -> Chart:
    """Groups of bars from 0; a line stands where the length is ``unit``."""
    names = list(dict.fromkeys(one.name for _label, group in groups for one in group))
    longest = max((one.length.high for _label, group in groups for one in group), default=unit)
    scale = (WIDTH - _LEFT - _RIGHT) / max(longest, unit)
    elements = [_text(_LEFT, 20, title, bold=True), *_legend(names, 38)]
    top = y = 56 + 14 * ((len(names) - 1) // 4)
    for label, group in groups:
        middle = y + _BAR * len(group) / 2
        elements.append(_text(_LEFT - 8, middle + 4, label, anchor="end"))
        for one in group:
            width = one.length.median * scale
            elements.append(_rectangle(_LEFT, y, width, _BAR - 1, names, one.name))
            low, high = (_LEFT + value * scale for value in (one.length.low, one.length.high))
            elements.append(_stroke(low, y + _BAR / 2, high, y + _BAR / 2, "#333"))
            elements.append(_text(high + 4, y + _BAR - 1, f"{one.length.median:.2f}", size=8))
            y += _BAR
        y += 8
    x = _LEFT + unit * scale
    elements.append(_stroke(x, top - 4, x, y - 4, "#c00", dash=True))
    return Chart(int(y) + 12, tuple(elements))


def lines(title: str, x_label: str, series: t.Sequence[Line], logarithmic: bool = False) -> Chart:
    """Lines over a logarithmic x; y begins at 0, or is logarithmic, too, from one power of ten to another."""
    names = [line.name for line in series]
    points = [point for line in series for point in line.points]
    if not points:
        return Chart(0, ())
    heights = [y for _x, y in points]
    if logarithmic:
        first = math.floor(math.log10(min(heights)))
        last = max(math.ceil(math.log10(max(heights))), first + 1)
        ticks = [10.0**power for power in range(first, last + 1)]
    else:
        step = _round_step(max(heights) / 4)
        ticks = [step * part for part in range(math.ceil(max(heights) / step) + 1)]
    upper, lower, right = 56, 206, WIDTH - _RIGHT
    left_x, right_x = (math.log10(end({x for x, _y in points})) for end in (min, max))

    def across(x: float) -> float:
        part = (math.log10(x) - left_x) / max(right_x - left_x, 1e-9)
        return _LEFT + part * (right - _LEFT)

    def down(y: float) -> float:
        whole = ticks[-1]
        if logarithmic:
            y, whole = math.log10(y / ticks[0]), math.log10(whole / ticks[0])
        return lower - y / whole * (lower - upper)

    elements = [_text(_LEFT, 20, title, bold=True), *_legend(names, 38)]
    for tick in ticks:
        elements.append(_stroke(_LEFT, down(tick), right, down(tick), "#ddd"))
        elements.append(_text(_LEFT - 8, down(tick) + 4, f"{tick:,.10g}", anchor="end"))
    for x in sorted({x for x, _y in points}):
        elements.append(_stroke(across(x), lower, across(x), lower + 4, "#333"))
        elements.append(_text(across(x), lower + 16, f"{x:,.10g}", anchor="middle"))
    elements.append(_text(right, lower + 32, x_label, anchor="end"))
    for line in series:
        colour = _colour(names, line.name)
        placed = [(across(x), down(y)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        elements.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        elements += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
    return Chart(lower + 44, tuple(elements))


def svg(charts: t.Sequence[Chart], description: str) -> str:
    """The charts, one below the other."""
    height = 0
    body = []
    for chart in charts:
        body.append(f'<g transform="translate(0 {height})">')
        body += [f"  {element}" for element in chart.elements]
        body.append("</g>")
        height += chart.height
    return "\n".join(
        [
            LICENCE,
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
            ' font-family="sans-serif" font-size="11" role="img">',
            f"<title>{escape(description)}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def _round_step(step: float) -> float:
    """The next of 1, 2, 5, 10 and so on."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * part for part in (1, 2, 5, 10) if power * part >= step)


def _legend(names: t.Sequence[str], y: float) -> list[str]:
    elements = []
    for number, name in enumerate(names):
        x, line = _LEFT + number % 4 * 175, y + 14 * (number // 4)
        elements.append(_rectangle(x, line - 8, 9, 9, names, name))
        elements.append(_text(x + 14, line, name))
    return elements


def _colour(names: t.Sequence[str], name: str) -> str:
    return COLOURS[names.index(name) % len(COLOURS)]


def _rectangle(x: float, y: float, width: float, height: float, names: t.Sequence[str], name: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"' f' fill="{_colour(names, name)}"/>'
    )


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str, dash: bool = False) -> str:
    dashes = ' stroke-dasharray="3 3"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"' f' stroke="{colour}"{dashes}/>'


def _text(x: float, y: float, text: str, anchor: str = "start", bold: bool = False, size: int = 11) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{weight}'
        f' fill="#222">{escape(text)}</text>'
    )
