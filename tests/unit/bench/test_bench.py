# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of the benchmark that touch no machine: statistics, tables, charts, the page, the images.

No section of docs/behaviour.md is behind it: a benchmark proves nothing of the module but its speed.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import typing as t
import xml.etree.ElementTree
import zlib

import pytest
from ansible_collections.hypervisor.oci.tests.bench import (
    charts,
    contenders,
    figures,
    filesystem,
    images,
    machine,
    measure,
    product,
    report,
    run,
)

SVG = "{http://www.w3.org/2000/svg}"


def samples(*walls: float, cpu: float = 1.0, memory: float = 32.0) -> list[t.Any]:
    return [[wall, cpu, memory, []] for wall in walls]


def case(image: str = "app", **groups: t.Any) -> figures.Results:
    return {
        "image": image,
        "compression": "gzip",
        "layers": 4,
        "stored": 100_000_000,
        "entries": 14_000,
        "bytes": 300_000_000,
        "ours": [name for name in ("zlib", "isal", "zlib-ng") if name in groups],
        "differ": {name: 7 for name in groups if name not in product.INFLATERS},
        "samples": groups,
    }


def results(**changes: t.Any) -> figures.Results:
    return {
        "machine": {"Processor": "one"},
        "settings": {
            "runs": 3,
            "quick": False,
            "start": "payload",
            "filesystem": "a new loop-mounted ext4",
            "minutes": 5.0,
            "floor": 6.9,
            "load": {"before": 0.5, "stolen": 0.012},
        },
        "cases": [],
        "scaling": [],
        "idle": None,
        "sha": None,
        "problems": [],
        **changes,
    }


def grown(series: str, size: int, memory: float) -> figures.Results:
    group = samples(size / 1e4, memory=memory)
    return {"series": series, "size": size, "entries": size, "samples": group}


# -- statistics


def test_a_report_line_becomes_a_sample() -> None:
    sample = figures.Sample.from_report("1.5 0.25 0.5 2048 2 137\n")
    assert sample == figures.Sample(1.5, 0.75, 2.0, (2, 137))


def test_ratios_are_taken_within_pairs() -> None:
    """The median of ratios, which is not the ratio of medians."""
    ours = [figures.Sample(wall, 1, 1) for wall in (1, 2, 9)]
    theirs = [figures.Sample(wall, 1, 1) for wall in (4, 2, 10)]
    assert figures.ratios(ours, theirs, "wall") == figures.Spread(0.9, 0.25, 1.0)
    assert figures.Spread(0.9, 0.25, 1.0).show(2) == "0.90 (0.25–1.00)"


def test_unrest_and_slope() -> None:
    calm = [figures.Sample(wall, 1, 1) for wall in (10, 10, 11)]
    wild = [figures.Sample(wall, 1, 1) for wall in (10, 5, 15)]
    assert figures.unrest([calm, wild]) == figures.Spread(0.55, 0.1, 1.0)
    assert figures.slope((10, 100), (20, 150)) == 5


def test_a_table_sets_numbers_to_the_right() -> None:
    text = figures.table(("what", "how many"), [("a", "1"), ("b", "22")])
    assert text == "| what | how many |\n| --- | ---: |\n| a | 1 |\n| b | 22 |"
    assert figures.table(("what",), []) == "| what |\n| --- |"


# -- charts


def drawn(chart: charts.Chart) -> xml.etree.ElementTree.Element:
    return xml.etree.ElementTree.fromstring(charts.svg([chart], "a <title>"))


def test_bars_are_as_long_as_their_medians() -> None:
    group = [charts.Bar("a & b", figures.Spread(1.0, 1.0, 1.0)), charts.Bar("other", figures.Spread(2.0, 1.5, 4.0))]
    root = drawn(charts.bars("bars", [("image", group)]))
    widths = [float(one.get("width", "")) for one in root.iter(f"{SVG}rect")]
    # the ground, two squares of the legend, two bars; the scale ends with the longest mark
    assert widths[1:3] == [9.0, 9.0]
    assert widths[4] == pytest.approx(2 * widths[3], abs=0.2)
    texts = [one.text for one in root.iter(f"{SVG}text")]
    assert "a & b" in texts and "2.00" in texts


@pytest.mark.parametrize("logarithmic", [False, True])
def test_lines_stay_inside_and_rise(logarithmic: bool) -> None:
    line = charts.Line("one", ((1000, 3.0), (10_000, 30.0), (1_000_000, 70.0)))
    root = drawn(charts.lines("lines", "entries", [line], logarithmic))
    (polyline,) = root.iter(f"{SVG}polyline")
    points = [tuple(map(float, pair.split(","))) for pair in polyline.get("points", "").split()]
    assert points == sorted(points)
    assert points[0][1] > points[1][1] > points[2][1]
    assert all(0 <= x <= charts.WIDTH and 56 <= y <= 206 for x, y in points)
    # a tenth of the range's logarithm is a third of the way
    width = points[2][0] - points[0][0]
    assert points[1][0] - points[0][0] == pytest.approx(width / 3, abs=0.2)


def test_nothing_to_draw_is_no_chart() -> None:
    assert charts.lines("lines", "entries", []).height == 0
    assert drawn(charts.bars("bars", [])).tag == f"{SVG}svg"


# -- the page


def test_the_page_names_ratios_goals_and_what_is_missed() -> None:
    page = report.page(
        results(cases=[case(zlib=samples(4, 4, 4, cpu=0.4), isal=samples(3, 3, 3, cpu=0.3), umoci=samples(10, 10, 5))])
    )
    (zlib_row,) = [line for line in page.splitlines() if "| umoci | zlib |" in line]
    assert "0.40 (0.40–0.80), goal 0.50 |" in zlib_row
    assert "0.40 (0.40–0.40), goal 0.45 |" in zlib_row
    (isal_row,) = [line for line in page.splitlines() if "| umoci | isal |" in line]
    assert "0.30 (0.30–0.60), goal 0.40 |" in isal_row
    assert "missed**" not in zlib_row + isal_row
    missed = report.page(results(cases=[case(zlib=samples(5.2), umoci=samples(10))]))
    assert "0.52 (0.52–0.52), goal 0.50, **missed**" in missed


def test_only_images_with_goals_speak_of_goals() -> None:
    page = report.page(results(cases=[case("other", zlib=samples(9), umoci=samples(1))]))
    assert "goal that was set" not in page and "**missed**" not in page
    assert "9.00 (9.00–9.00)" in page


def test_a_tool_that_failed_is_told_beside_its_figures() -> None:
    failed = case(zlib=samples(1), bsdtar=[[1.0, 1.0, 2.0, [2]]])
    page = report.page(results(cases=[failed]))
    assert "7, exit status 2" in page


def test_memory_is_told_by_entry() -> None:
    series = [grown("one layer", 1000, 30), grown("one layer", 1_000_000, 130)]
    page = report.page(results(scaling=series))
    assert "grows by 105 bytes an entry" in page.replace("\n", " ")
    assert "| one layer, 1,000,000 | 1,000,000 | 100.00 |" in page


def test_idle_runs_are_set_beside_nothing() -> None:
    idle = {
        "blobs": 127,
        "reading": [1.234, 1.0],
        "samples": {
            f"{module}, {start}": samples(wall)
            for start in product.STARTS
            for module, wall in ((product.OURS, 0.3), (product.NOTHING, 0.2))
        },
    }
    page = report.page(results(idle=idle))
    assert "1.50 (1.50–1.50), goal 1.10, **missed**" in page
    assert "takes 1.23 ms (median of 200; the least: 1.00 ms)" in page.replace("\n", " ")


def test_a_page_of_nothing_says_so(tmp_path: pathlib.Path) -> None:
    empty = results(problems=["umoci: not installed (umoci)"])
    report.write_page(empty, str(tmp_path))
    page = (tmp_path / report.PAGE).read_text(encoding="utf-8")
    assert "This was not measured in this run." in page
    assert "- umoci: not installed (umoci)" in page
    assert "$" not in page and "quick run" not in page.replace("`BENCH=--quick`", "")
    xml.etree.ElementTree.parse(str(tmp_path / report.PLOT))
    # and again from what --results keeps
    assert report.page(json.loads(json.dumps(empty))) == page


def test_the_page_in_the_repository_has_the_text_of_the_program() -> None:
    """Only numbers may differ: whoever edits the text, edits the program."""
    folder = pathlib.Path(report.__file__).parents[2] / "docs"
    written = (folder / report.PAGE).read_text(encoding="utf-8")
    blocks = [block for block in report.TEMPLATE.split("\n\n") if "$" not in block]
    assert len(blocks) > 20
    for block in [*blocks, report.facts_table()]:
        assert report.wrapped(block) in written, block


def test_paragraphs_are_filled_and_tables_are_not() -> None:
    long = " ".join(["word"] * 60)
    text = report.wrapped(f"# {long}\n\n- {long}\n- b\n\n| {long} |\n\n{long}\n")
    lines = text.splitlines()
    assert lines[0] == f"# {long}" and f"| {long} |" in lines
    assert "- b" in lines
    rest = [line for line in lines if line[:1] not in ("#", "|")]
    assert max(map(len, rest)) <= 120
    assert rest[2].startswith("  word")


# -- the machine


def test_processors_are_read_from_their_text() -> None:
    cpu = "processor\t: 0\nmodel name\t: AMD  EPYC\nflags\t\t: fpu sha_ni\n\nflags\t\t: x\n"
    assert machine.model(cpu) == "AMD EPYC"
    assert machine.flags(cpu) == ["fpu", "sha_ni"]
    assert machine.flags("Features\t: fp sha2\n") == ["fp", "sha2"]
    assert machine.model("") and machine.flags("") == []


def test_stolen_time_is_a_share() -> None:
    assert machine.unrest((0.5, 10, 1000), (3.0, 15, 1100)) == {"before": 0.5, "stolen": 0.05}


def test_mounts_are_undone_from_the_last() -> None:
    table = "\n".join(
        f"none {path} tmpfs rw 0 0" for path in ("/", "/b", "/b/m", "/b/m/a\\040b", "/bm", "/b/m/x/merged")
    )
    found = filesystem.mounts_below("/b/m", table)
    assert found == ["/b/m/x/merged", "/b/m/a b", "/b/m"]


def test_removing_follows_no_link(tmp_path: pathlib.Path) -> None:
    """A tree's links lead out of it; what they lead to keeps its mode and its files."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "kept").write_text("kept")
    work = tmp_path / "work"
    work.mkdir()
    with filesystem.Folder(str(work)).fresh() as folder:
        os.symlink(str(outside), os.path.join(folder, "link"))
        os.makedirs(os.path.join(folder, "closed", "below"))
        os.chmod(os.path.join(folder, "closed"), 0)
    assert not os.listdir(str(work))
    assert outside.stat().st_mode & 0o777 == 0o755
    assert (outside / "kept").exists()


# -- measuring


def test_processes_are_measured(tmp_path: pathlib.Path) -> None:
    """Two in a pipe, and a third whose end is not 0; what the pipe's last prints comes through."""
    line = tmp_path / "line"
    busy = "sum(range(3000000)); data = bytearray(1 << 26); print('a')"
    words = [sys.executable, "-c", busy, measure.PIPE, "tr", "a", "b"]
    words += [measure.THEN, "sh", "-c", "exit 3"]
    words += [measure.THEN, "/there/is/no/such/program"]
    printed = subprocess.run(
        [sys.executable, "-I", "-S", measure.__file__, str(line), *words], capture_output=True, check=True, timeout=60
    )
    assert printed.stdout == b"b\n"
    assert b"/there/is/no/such/program: No such file" in printed.stderr
    sample = figures.Sample.from_report(line.read_text())
    assert sample.failures == (3, 127)
    assert sample.wall > 0 and sample.cpu > 0
    # of the largest, not of all
    assert 64 < sample.memory < 160


def test_peers_take_what_they_can_read() -> None:
    by_name = {peer.name: peer for peer in contenders.PEERS}
    zstd = images.Case("app", "zstd", "/l", None, ("/l/1", "/l/2"))
    assert not by_name["umoci"].takes(zstd)
    gzip = images.Case("app", "gzip", "/l", None, ("/l/1", "/l/2"))
    assert not by_name["skopeo + umoci"].takes(gzip)
    words = by_name["GNU tar"].command(zstd, "/d")
    steps = measure.split(words, measure.THEN)
    assert [step[0] for step in steps] == ["mkdir", "zstd", "zstd", "sync"]
    assert [len(measure.split(step, measure.PIPE)) for step in steps] == [1, 2, 2, 1]
    for peer in contenders.PEERS:
        assert measure.split(peer.command(gzip, "/d"), measure.THEN)[-1] == ["sync", "-f", "/d"]


def test_a_failed_module_is_no_result() -> None:
    assert product.result_of('{"changed": true}') == {"changed": True}
    for printed in ('{"failed": true, "msg": "why"}', "why"):
        with pytest.raises(RuntimeError, match="why"):
            product.result_of(printed)
    assert product.inflaters()[0] == "zlib"


# -- images


def entries(path: str) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as archive:
        return {info.name: info for info in archive}


def test_images_are_valid_and_the_same_each_time(tmp_path: pathlib.Path) -> None:
    """Digests, diff_ids and sizes hold; the archive has all files of the layout."""
    layers = images.few(True)
    (first,) = images.build(str(tmp_path / "a"), "few", layers, ["gzip"])
    (again,) = images.build(str(tmp_path / "b"), "few", layers, ["gzip"])
    assert first.archive is not None and again.archive is not None
    with open(first.archive, "rb") as one, open(again.archive, "rb") as other:
        assert one.read() == other.read()
    with tarfile.open(first.archive) as archive:
        files = {info.name: stream.read() for info in archive if (stream := archive.extractfile(info))}
    blobs = {name: data for name, data in files.items() if name.startswith("blobs/")}
    for name, data in blobs.items():
        assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    (listed,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(blobs[blob_name(listed["digest"])])
    config = json.loads(blobs[blob_name(manifest["config"]["digest"])])
    assert len(manifest["layers"]) == len(first.layers) == 4
    for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"]):
        data = blobs[blob_name(layer["digest"])]
        assert len(data) == layer["size"]
        tar = zlib.decompress(data, 16 + zlib.MAX_WBITS)
        assert diff_id == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    assert images.found(str(tmp_path)) == []


def blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def test_upper_layers_change_what_lower_ones_have(tmp_path: pathlib.Path) -> None:
    layers = images.stacked(4, 1200, 2_000_000)
    (case,) = images.build(str(tmp_path), "stacked", layers, ["plain"])
    below = entries(case.layers[0])
    whiteouts = replaced = 0
    for path in case.layers[1:]:
        for name in entries(path):
            folder, _slash, base = name.rpartition("/")
            if base.startswith(".wh."):
                assert f"{folder}/{base[4:]}" in below
                whiteouts += 1
            elif name in below and below[name].isfile():
                replaced += 1
    assert whiteouts >= 3 and replaced >= 3
    assert len(images.stacked(127, 1200, 2_000_000)) == 127


def test_growing_images_have_the_entries_that_they_say(tmp_path: pathlib.Path) -> None:
    (one,) = images.build(str(tmp_path / "1"), "one", images.one_layer(200), ["plain"])
    (two,) = images.build(str(tmp_path / "2"), "two", images.second_layer(200), ["plain"])
    assert len(entries(one.layers[0])) - 200 <= 5
    lower, upper = ({name for name, info in entries(path).items() if info.isfile()} for path in two.layers)
    assert len(lower & upper) == len(upper - lower) == len(lower) // 2


def test_big_files_are_as_big_as_their_headers_say(tmp_path: pathlib.Path) -> None:
    (case,) = images.build(str(tmp_path), "big", images.big(True), ["plain"])
    (info,) = [one for one in entries(case.layers[1]).values() if one.isfile()]
    assert info.size == 15_000_000


def test_headers_hold_long_names_or_refuse_them() -> None:
    name = "/".join(["d" * 60] * 3)
    info = tarfile.TarInfo.frombuf(images.header(images.Member(name)), "utf-8", "strict")
    assert info.name == name
    with pytest.raises(ValueError, match="does not fit"):
        images.header(images.Member("n" * 101))


def test_images_made_elsewhere_are_found(tmp_path: pathlib.Path) -> None:
    (built,) = images.build(str(tmp_path / "built"), "x", images.one_layer(50), ["gzip"])
    home = tmp_path / "found" / "npm"
    home.mkdir(parents=True)
    os.rename(built.layout, str(home / "oci-gzip"))
    (case,) = images.found(str(tmp_path / "found"))
    assert (case.image, case.compression, case.archive) == ("npm", "gzip", None)
    assert case.name == "npm, gzip" and case.size > 0
    assert built.archive is not None
    os.rename(built.archive, str(home / "npm-gzip.oci.tar"))
    (case,) = images.found(str(tmp_path / "found"))
    assert case.archive == str(home / "npm-gzip.oci.tar")


def test_only_what_is_chosen_is_measured() -> None:
    everything = run.parse([])
    names = [name for name, _layers, _kinds in run.wanted(everything, ["gzip"])]
    assert names == ["few-files", "many-files", "one-big-file", "1-layer", "4-layers", "32-layers"]
    one = run.parse(["--only", "4-layers", "--only", "scaling"])
    assert [name for name, _layers, _kinds in run.wanted(one, ["gzip"])] == ["4-layers"]
    sizes = [size for label, size, _layers in run.series(False) if label == "one layer"]
    assert sizes == [1000, 10_000, 100_000, 1_000_000]
    with pytest.raises(SystemExit):
        run.parse(["--runs", "0"])
