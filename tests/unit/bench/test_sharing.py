# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of the benchmark of shared layers that touch no machine: the section, its plot, images and commands.

No section of docs/behaviour.md is behind it: a benchmark proves nothing of the module but its speed.
"""

from __future__ import annotations

import json
import pathlib
import typing as t
import xml.etree.ElementTree

import pytest
from ansible_collections.hypervisor.oci.tests.bench import (
    figures,
    filesystem,
    images,
    measure,
    report,
    sections,
    sharing,
    sharing_report,
    ways,
)

SVG = "{http://www.w3.org/2000/svg}"
MB = 1_000_000


def turn(first: float, further: float, nothing: float, update: float = 0.0) -> figures.Results:
    """Steps of wall seconds, with 100 MB for the first and 1 MB for each other; half of the time is processor time."""

    def step(wall: float, disk: int = MB) -> list[float]:
        return [wall, disk, wall / 2]

    return {
        "made": [step(first, 100 * MB), *(step(further) for _number in range(9))],
        "nothing": [step(nothing)] * 3 if nothing else [],
        "updates": [step(update), step(2 * update)] if update else [],
    }


def results(**changes: t.Any) -> figures.Results:
    turns = {
        "ordinary": [turn(10.0, 10.0, 0.25, 10.0)] * 2,
        "store": [turn(11.0, 0.5, 0.25, 0.75)] * 2,
        "podman, overlay": [turn(20.0, 0.1, 0.0, 1.5)] * 2,
    }
    image = {"layers": 4, "stored": 300 * MB, "changed": [MB // 5, 30 * MB], "sizes": [300 * MB] * 2, "turns": turns}
    return {
        "images": {"app": image},
        "baseline": None,
        "machine": {"Processor": "one", "System": "a system", "podman": "4.3.1", "btrfs-progs": "6.2"},
        "settings": {"quick": False, "nice": 0, "minutes": 5.0, "load": 0.5, "stolen": 0.012},
        **changes,
    }


def rows_of(text: str) -> dict[str, list[str]]:
    """The cells of tables by the first two."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {", ".join(row[:2]): row[2:] for row in rows}


def test_goals_are_judged_within_turns() -> None:
    rows = rows_of(sharing_report.section(results()))
    assert rows["app, first container, wall, by a tree of its own"] == ["1.10 (1.10–1.10)", "1.15", ""]
    assert rows["app, a further container, s above nothing"] == ["0.25 (0.25–0.25)", "0.15", "**missed**"]
    assert rows["app, a further container, CPU s above nothing"] == ["0.12 (0.12–0.12)", "–", ""]
    assert rows["app, a further container, MB"] == ["1.00 (1.00–1.00)", "1", ""]
    update = "app, update, the top layer of 0.2 MB changed"
    assert rows[f"{update}, s above nothing"] == ["0.50 (0.50–0.50)", "0.4", "**missed**"]
    assert rows["app, 10 containers, wall, by trees of their own"] == ["0.15 (0.15–0.15)", "0.22", ""]
    assert rows["app, 10 containers, disk, by trees of their own"] == ["1.00 (1.00–1.00)", "0.15", "**missed**"]


def test_ways_stand_beside_each_other() -> None:
    rows = rows_of(sharing_report.section(results()))
    assert rows["app, podman, overlay"][0] == "20.00 (20.00–20.00)"
    assert rows["app, podman, overlay"][-2:] == ["–", "–"]
    assert rows["app, shared layers"][-2:] == ["0.25 (0.25–0.25)", "0.12 (0.12–0.12)"]
    assert rows["app, shared layers"][3:6] == ["0.50 (0.50–0.50)", "0.25 (0.25–0.25)", "1.00 (1.00–1.00)"]
    assert rows["app, 0.067 %, shared layers"] == ["0.75 (0.75–0.75)", "0.38 (0.38–0.38)", "1.0 (1.0–1.0)"]
    assert rows["app, 10 %, shared layers"] == ["1.50 (1.50–1.50)", "0.75 (0.75–0.75)", "1.0 (1.0–1.0)"]


def test_an_older_version() -> None:
    pairs = {f"{what}, {name}": [(wall, 1.0)] * 3 for what in ("unpack", "nothing") for name, wall in
             (("this", 1.0), ("older", 0.5))}  # fmt: skip
    rows = rows_of(sharing_report.section(results(baseline={"pairs": pairs})))
    words = "by the version before there was one, 3 pairs"
    assert rows[f"app, without a store: unpacking, wall, {words}"][2] == "**missed**"
    assert rows[f"app, without a store: unpacking, CPU, {words}"][0] == "1.00 (1.00–1.00)"
    assert "without a store:" not in sharing_report.section(results())


def test_a_raised_priority_is_told() -> None:
    words = "ran with a nice value of"
    assert words not in sharing_report.section(results())
    raised = {**results()["settings"], "nice": -15}
    assert f"{words} -15." in " ".join(sharing_report.section(results(settings=raised)).split())


def test_the_plot() -> None:
    root = xml.etree.ElementTree.fromstring(sharing_report.plot(results()))
    lines = list(root.iter(f"{SVG}polyline"))
    # four charts of three ways each
    assert len(lines) == 12
    assert [len((line.get("points") or "").split()) for line in lines] == [10] * 6 + [2] * 6
    texts = [one.text for one in root.iter(f"{SVG}text")]
    assert "0.067" in texts and "shared layers" in texts
    nothing = xml.etree.ElementTree.fromstring(sharing_report.plot(results(images={})))
    assert not list(nothing.iter(f"{SVG}polyline"))


def test_the_section_is_put_into_its_place(tmp_path: pathlib.Path) -> None:
    page = tmp_path / report.PAGE
    page.write_text(f"before\n\n{sections.SHARING.kept('')}\n\nafter\n", encoding="utf-8")
    # and again from what --results keeps
    for found in (results(), json.loads(json.dumps(results()))):
        sharing_report.write_section(found, str(tmp_path))
        text = page.read_text(encoding="utf-8")
        assert text.startswith("before\n") and text.endswith("\nafter\n")
        assert text.count("## Many containers, many updates") == 1
        assert "This was not measured." not in text
    assert sections.SHARING.kept(text) in text
    xml.etree.ElementTree.parse(str(tmp_path / sharing_report.PLOT))
    with pytest.raises(ValueError, match="no marks"):
        sections.SHARING.put("no page of ours", "text")


def test_who_writes_the_page_keeps_the_section(tmp_path: pathlib.Path) -> None:
    page = tmp_path / report.PAGE
    page.write_text(f"old\n\n{sections.SHARING.begin}\n\nThe section.\n\n{sections.SHARING.end}\n", encoding="utf-8")
    settings = {"runs": 1, "quick": False, "start": "payload", "filesystem": "x", "minutes": 1.0, "floor": 1.0,
                "load": {"before": 0.5, "stolen": 0.0}}  # fmt: skip
    empty: figures.Results = {
        "machine": {},
        "settings": settings,
        "cases": [],
        "scaling": [],
        "idle": None,
        "sha": None,
        "problems": [],
    }
    report.write_page(empty, str(tmp_path))
    text = page.read_text(encoding="utf-8")
    assert "old" not in text.splitlines()
    assert f"{sections.SHARING.begin}\n\nThe section.\n\n{sections.SHARING.end}" in text


def test_the_page_in_the_repository_has_the_text_of_the_program() -> None:
    """Only numbers may differ: whoever edits the text, edits the program."""
    folder = pathlib.Path(report.__file__).parents[2] / "docs"
    written = (folder / report.PAGE).read_text(encoding="utf-8")
    assert sections.SHARING.begin in written and sections.SHARING.end in written
    blocks = [block for block in sharing_report.TEMPLATE.split("\n\n") if "$" not in block]
    assert len(blocks) > 4
    for block in blocks:
        assert report.wrapped(block).strip() in written, block


def test_versions_of_an_image_differ_from_the_top(tmp_path: pathlib.Path) -> None:
    built = [
        images.build(str(tmp_path), f"app-{changed}", images.app(True, changed), ["plain"])[0] for changed in range(5)
    ]
    blobs = [[pathlib.Path(path).name for path in case.layers] for case in built]
    for changed, names in enumerate(blobs):
        assert [name == other for name, other in zip(names, blobs[0])] == [True] * (4 - changed) + [False] * changed
    image = sharing.Image("app", built[0], tuple(built[1:]))
    assert image.changed[3] == built[4].size
    assert 0 < image.changed[0] < built[1].size / 50


def test_bytes_that_btrfs_uses() -> None:
    told = (
        "Data, single: total=444596224, used=18395136\nSystem, DUP: total=8388608, used=16384\n"
        "Metadata, DUP: total=268435456, used=1376256\nGlobalReserve, single: total=5767168, used=7\n"
    )
    assert filesystem.used_in(told) == 18395136 + 2 * 16384 + 2 * 1376256


def test_commands_of_podman(tmp_path: pathlib.Path) -> None:
    (case,) = images.build(str(tmp_path / "images"), "x", images.one_layer(50), ["gzip"])
    podman = ways.Podman("/storage", "btrfs", str(tmp_path))
    words = [measure.split(podman.command(number, case), measure.THEN) for number in (0, 1, 1)]
    verbs = [
        [next(word for word in step if word in ("pull", "create", "rm", "sync")) for step in steps] for steps in words
    ]
    assert verbs == [["pull", "create", "sync"], ["create", "sync"], ["rm", "create", "sync"]]
    assert words[0][1][-1] == ways.image_id(case.layout)
    assert (pathlib.Path(case.layout) / "blobs/sha256" / words[0][1][-1]).is_file()
    assert (tmp_path / "image0").resolve() == pathlib.Path(case.layout).resolve()


def test_only_what_is_chosen_is_measured() -> None:
    assert [name for name in ("app", "npm", "baseline") if sharing.parse([]).chooses(name)] == [
        "app",
        "npm",
        "baseline",
    ]
    some = sharing.parse(["--only", "npm", "--turns", "2"])
    assert [name for name in ("app", "npm", "baseline") if some.chooses(name)] == ["npm"]
    for wrong in (["--turns", "0"], ["--only", "other"]):
        with pytest.raises(SystemExit):
            sharing.parse(wrong)
