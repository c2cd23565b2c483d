# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of the benchmark of verifying that touch no machine: its section, and its place on the page.

No section of docs/behaviour.md is behind it: a benchmark proves nothing of the module but its speed.
"""

from __future__ import annotations

import pathlib
import typing as t

from ansible_collections.hypervisor.oci.tests.bench import figures, report, sections, verify, verify_report


def results(metadata: float = 1.0, content: float = 5.0, older: bool = True) -> figures.Results:
    turn: dict[str, t.Any] = {
        "unpack": [(10.4, 8.0)],
        "nothing": [(0.3, 0.2), (0.2, 0.1), (0.4, 0.3)],
        "metadata": [(0.3 + metadata, 0.5)],
        "content": [(9.0, content)],
    }
    if older:
        turn["unpack, older"] = [(10.0, 8.0)]
    return {
        "images": {"npm": {"record": (7000, 1000), "stored": 100, "turns": [turn, turn]}},
        "machine": {"Processor": "one", "System": "a system"},
        "settings": {"quick": False, "minutes": 5.0, "load": 0.5, "stolen": 0.012},
    }


def goals(found: figures.Results) -> dict[str, list[str]]:
    rows = [
        line.strip("| ").split(" | ")
        for line in verify_report.section(found).splitlines()
        if line.startswith("| npm |")
    ]
    return {row[1]: [cell.strip() for cell in row[2:]] for row in rows}


def test_the_goals() -> None:
    found = goals(results())
    assert found["record, bytes an entry"][:2] == ["7.00 (7.00–7.00)", "20"]
    assert found["`verify: metadata`, wall s above nothing"][0] == "1.00 (1.00–1.00)"
    assert found["`verify: content`, CPU, by unpacking"][0] == "0.62 (0.62–0.62)"
    assert found["unpacking, wall, by that without a record"][:2] == ["1.04 (1.04–1.04)", "1.04"]
    assert not any("**missed**" in row for row in found.values())
    missed = [what for what, row in goals(results(1.6, 9.0)).items() if "**missed**" in row]
    assert missed == ["`verify: metadata`, wall s above nothing", "`verify: content`, CPU, by unpacking"]
    assert not any("without a record" in what for what in goals(results(older=False)))


def test_both_sections_are_put_into_their_places(tmp_path: pathlib.Path) -> None:
    page = tmp_path / report.PAGE
    page.write_text("\n\n".join(section.kept("") for section in sections.ALL), encoding="utf-8")
    verify_report.write_section(results(), str(tmp_path))
    text = page.read_text(encoding="utf-8")
    assert text.count("This was not measured.") == 1
    assert sections.SHARING.kept("") in text and "1,000 entries" in sections.VERIFYING.kept(text)


def test_the_page_in_the_repository_has_the_text_of_the_program() -> None:
    """Only numbers may differ: whoever edits the text, edits the program."""
    folder = pathlib.Path(report.__file__).parents[2] / "docs"
    written = sections.VERIFYING.kept((folder / report.PAGE).read_text(encoding="utf-8"))
    assert "This was not measured." not in written
    blocks = [block for block in verify_report.TEMPLATE.split("\n\n") if "$" not in block]
    assert blocks
    for block in blocks:
        assert report.wrapped(block).strip() in written, block


def test_options() -> None:
    assert verify.parse(["--only", "app", "--turns", "2"]).only == ["app"]
