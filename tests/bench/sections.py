# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sections of docs/performance.md that have commands of their own: whoever writes the page keeps them."""

from __future__ import annotations

from dataclasses import dataclass

# What stands before numbers of a quick run.
QUICK = "> These numbers are from a quick run with tiny images, which only shows that measuring works.\n\n"


@dataclass(frozen=True)
class Section:
    """A section, the target of ``make`` that writes it, and the file that holds its text."""

    title: str
    command: str
    file: str

    @property
    def begin(self) -> str:
        """The mark before it."""
        return f"<!-- Written by `make {self.command}`, text and numbers; change {self.file} instead. -->"

    @property
    def end(self) -> str:
        """The mark behind it."""
        return f"<!-- The end of what `make {self.command}` writes. -->"

    def kept(self, page: str) -> str:
        """Return the section of a page with its marks; an empty one if the page has none."""
        _before, begin, rest = page.partition(self.begin)
        text, end, _after = rest.partition(self.end)
        if begin and end:
            return f"{begin}{text}{end}"
        return f"{self.begin}\n\n## {self.title}\n\nThis was not measured.\n\n{self.end}"

    def put(self, page: str, text: str) -> str:
        """Return the page with another text of the section, without its marks. Raises ``ValueError`` if it has none."""
        before, begin, rest = page.partition(self.begin)
        _text, end, after = rest.partition(self.end)
        if not begin or not end:
            raise ValueError("the page has no marks of the section")
        return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"

    def write(self, path: str, text: str) -> None:
        """Put another text into the page at a path. Raises ``OSError``, and ``ValueError`` if it has no marks."""
        with open(path, encoding="utf-8") as file:
            page = self.put(file.read(), text)
        with open(path, "w", encoding="utf-8") as file:
            file.write(page)


SHARING = Section("Many containers, many updates", "bench-sharing", "tests/bench/sharing_report.py")
VERIFYING = Section("Verifying a tree", "bench-verify", "tests/bench/verify_report.py")
ALL = (SHARING, VERIFYING)
