# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A section of docs/performance.md that has a command of its own: whoever writes the page keeps it."""

from __future__ import annotations

BEGIN = "<!-- Written by `make bench-sharing`, text and numbers; change tests/bench/sharing_report.py instead. -->"
END = "<!-- The end of what `make bench-sharing` writes. -->"
_EMPTY = "## Many containers, many updates\n\nThis was not measured."


def kept(page: str) -> str:
    """Return the section of a page with its marks; an empty one if the page has none."""
    _before, begin, rest = page.partition(BEGIN)
    text, end, _after = rest.partition(END)
    return f"{BEGIN}{text}{END}" if begin and end else f"{BEGIN}\n\n{_EMPTY}\n\n{END}"


def put(page: str, section: str) -> str:
    """Return the page with another section, given without its marks. Raises ``ValueError`` if it has none."""
    before, begin, rest = page.partition(BEGIN)
    _text, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no marks of the section")
    return f"{before}{BEGIN}\n\n{section.strip()}\n\n{END}{after}"
