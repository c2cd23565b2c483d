# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Render docs/performance.md and its plot from results. This file has all of the page's text."""

from __future__ import annotations

import contextlib
import os
import re
import string
import textwrap
import typing as t

from . import sections
from .charts import LICENCE, Bar, Line, bars, lines, svg
from .contenders import PEERS
from .figures import Results, Sample, Spread, ratios, slope, spread, table, unrest
from .product import NOTHING, OURS

PAGE = "performance.md"
PLOT = "performance.svg"
_WIDTH = 120

# Goals set before the first measurement: upper bounds of the ratios of wall and CPU time, by image, compression,
# other tool, and inflating library.
_GOALS = {
    ("app", "gzip", "umoci", "zlib"): (0.50, 0.45),
    ("app", "gzip", "umoci", "isal"): (0.40, 0.35),
    ("npm", "gzip", "umoci", "zlib"): (0.40, 0.37),
    ("npm", "gzip", "umoci", "isal"): (0.33, 0.32),
    ("npm", "gzip", "GNU tar", "zlib"): (0.65, 0.75),
    ("npm", "zstd", "GNU tar", "zlib"): (0.90, 0.90),
    ("npm", "plain", "GNU tar", "zlib"): (0.80, 0.95),
    ("big", "gzip", "umoci", "zlib"): (0.45, 0.45),
}
# The inflating libraries that are compared with other tools.
_COMPARED = ("zlib", "isal")
_GOAL_IDLE = 1.1
_GOAL_MEMORY = 48

TEMPLATE = """\
${licence}

<!-- Written by `make bench`, text and numbers; change tests/bench/report.py instead. -->

# Performance

${warning}How long does `oci_rootfs` take to make a root file system from an image? This page compares it with the tools that an
administrator would otherwise use, on the same files and the same kind of file system.

![Wall time beside other tools, time for each entry, and peak memory]($plot)

## Method

- **This collection** is the whole process of the module on the node, $start, from the start of the interpreter to
  its end. It verifies manifest, config, every layer's digest and every diff_id, and ends with one `syncfs`.
- **The other tools** are their commands, one after the other, and `sync -f` of the result, so that all results are durable.
- Runs are paired: each turn runs every tool once, in the same order, $runs turns in all. Each run gets
  $filesystem.
  Ratios are computed within a turn. Tables show the median and, in brackets, the least and the greatest value.
- All input is in the page cache. CPU is the user and system time of all processes of a run. Memory is the peak of the
  largest process; values below $floor MiB cannot be distinguished from the measurement itself.
- *Differs* is the number of paths below the root that are not the same in the other tool's tree as in ours, in type,
  mode, owner, size, time, link, extended attribute or content.
- gzip is inflated by zlib, which every node has, or by isal, if the node has that library: see *inflated by*. For the other
  compressions there is only one library.

## Summary

Ratios of this collection to the other tool over all images below, the least and the greatest median; below 1, this
collection is faster or smaller.

$short

## What each tool verifies and what it gets wrong

$facts

## The images

$images

## Ratios for each image

This collection by the other tool.$goal_words

$ratios

## Inflating

Wall and CPU time of this collection with another library, by the time with zlib.

$inflaters

## Seconds and memory for each image

$absolute

## Growth

*One layer* has the given number of entries, nearly all of them files of 64 bytes. *Second layer* has as many again in a
second layer, half of which replace entries of the first. *Layers* is one tree of constant size, split into the given number of
layers. All are gzip, inflated by the standard library.

$growth

$memory_words

## A run that changes nothing

The image is installed already, from an archive with $blobs blobs. The other module only starts as every Ansible module does,
and exits.

$idle

Of this, opening the archive and reading and verifying its index, manifest and config takes $reading, in a process that
already runs.

A module costs more than an empty one because of its own code, which Python compiles anew for each task, and more than
once: to learn a file's name, its zip importer compiles the file and discards the result (84 compilations for 42 files, 55 of
75 ms, by a clock in the importer of Python 3.11). Another 9 ms create classes, 4 ms read the zip, and
Ansible needs time for a larger result. Code that an unchanged run does not need is only imported when it is needed; disabling
the garbage collection meanwhile saves nothing. Keeping compiled code on the node would save most of this time, but root would
run code from a cache.

$sections

## Optimisations

In use:

- One thread reads and hashes the stored layer, one inflates it, one hashes the inflated layer, and one parses
  and writes. The separate hash of the inflated layer saves a tenth of the wall time when inflating
  takes longest, and the hash of the stored layer another 3 %. A plain layer has one thread before the one that writes: a
  second one cost 4 %.
- Freed memory is kept (`mallopt`): the C library gave it back to the system and requested it again with every piece,
  50,000 to 75,000 page faults for app and big instead of 5,000. This saves 3 to 8 % of the wall time of gzip layers.
- Early syncs, in a thread, after every 128 MiB: the disk works while the tree is written, and the last sync has little left to
  do. This saves an eighth of the wall time of npm, for no more CPU time.
- A file is created with its mode, and files and directories get an owner only if it differs; the owner and mode of
  new files are probed once, at the beginning. Two calls less for nearly every file are 6 % of the CPU time of npm.
- isal or zlib-ng, if the node has them, instead of zlib: inflating takes about half of the time.
- One regular expression splits a header, and adler32 computes its checksum without a copy: headers were the largest cost of
  small files. An image has few different modes and owners, and most entries are in the directory of the previous one, so
  these are parsed once; a named tuple is created without calling its class. All of Python's work for an entry, without
  system calls, fell from 7.9 to 7.0 µs.
- One hash for a plain layer, since its digest is its diff_id.

Rejected:

- A second writer thread, which writes, closes and dates files that the first has created: 17 to 28 % more CPU time,
  all of it in the kernel, where both wait for the same locks, and 5 to 8 % more wall time.
- Reading or inflating in pieces of 64 KiB, 512 KiB, 1 MiB or 4 MiB instead of 256 KiB: 2 % at most, for more memory.
- Longer queues between the threads: 4 % at most, for 7 MiB more; with 2 MiB more, no difference beyond
  noise. No call of the writing thread took over 7 ms in app, early syncs included: there is little to bridge.

The remaining costs, by a sampling profiler, of npm on a new ext4: creating a file takes 13 to 17 µs in the kernel, writing it
9 to 11 µs, setting its time 2 to 4 µs, making a directory 26 to 33 µs, for every tool. SHA-256 and zlib do not get faster
either. Python adds 7 µs an entry, of which the tar header takes 1.8 µs, and about 3 µs around its system calls. GNU tar adds
1.5 µs, and hashes nothing: that is why images of many small files take more CPU time than with GNU tar, and why goals were
missed. app uses both cores for 72 % of the time, including the kernel's writes: two cores leave no room for more threads.

## Nodes without SHA instructions

$sha

## The machine and its noise

$machine

$noise

## Not measured

$problems

## To measure it yourself

`make bench`, as root on Debian, takes an hour or two and installs the other tools. `BENCH=--quick` shows in a few minutes
that measuring works; `BENCH="--images DIR"` adds your own images (`DIR/NAME/oci-gzip`, a layout with the tag `latest`; also
`oci-zstd` and `oci-plain`). The images that it builds are the same everywhere except for the compressors' versions.
`make bench-sharing` measures many containers and many updates, in half an hour; `make bench-verify`
what verifying costs, in a quarter of an hour.
"""

_STARTS = {
    "payload": "as Ansible sends it (a script with a zip, compiled anew each time)",
    "files": "started from its files with its arguments beside it",
}


def write_page(results: Results, folder: str) -> None:
    """Write the page and the plot into ``folder``; sections with commands of their own stay."""
    written = ""
    with contextlib.suppress(FileNotFoundError), open(os.path.join(folder, PAGE), encoding="utf-8") as file:
        written = file.read()
    for name, text in ((PAGE, page(results, written)), (PLOT, plot(results))):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)


def page(results: Results, written: str = "") -> str:
    """Return the page as Markdown; sections with commands of their own are those of the page that was ``written``."""
    settings = results["settings"]
    idle = results["idle"]
    has_goals = any(_goal(case, peer, ours) for case, peer, ours in _pairs(results["cases"]))
    text = string.Template(TEMPLATE).substitute(
        licence=LICENCE,
        warning=sections.QUICK if settings["quick"] else "",
        plot=PLOT,
        start=_STARTS[settings["start"]],
        runs=settings["runs"],
        filesystem=settings["filesystem"],
        floor=f"{settings['floor']:.0f}",
        short=_short(results["cases"]),
        facts=facts_table(),
        goal_words=(
            " A goal that was set beforehand follows the number, with **missed** if it was not met."
            if has_goals
            else ""
        ),
        images=_images_table(results["cases"]),
        inflaters=_inflater_table(results["cases"]),
        ratios=_ratio_table(results["cases"]),
        absolute=_absolute_table(results["cases"]),
        growth=_growth_table(results["scaling"]),
        memory_words=_memory_words(results),
        blobs=idle["blobs"] if idle else "127",
        idle=_idle_table(idle) if idle else _NOT_MEASURED,
        reading=(
            "{:.2f} ms (median of 200; the least: {:.2f} ms)".format(*idle["reading"]) if idle else "(not measured)"
        ),
        sections="\n\n".join(section.kept(written) for section in sections.ALL),
        sha=_sha_words(results["sha"]),
        machine=table(("what", "which"), results["machine"].items()),
        noise=_noise_words(results),
        problems="\n".join(f"- {problem}" for problem in results["problems"]) or "Everything was measured.",
    )
    return wrapped(text)


def wrapped(text: str) -> str:
    """Fill paragraphs and list items; tables, headings, quotes and comments stay unchanged."""
    blocks = []
    for block in text.split("\n\n"):
        if block.lstrip()[:1] in tuple("|#<>!"):
            blocks.append(block)
            continue
        items = re.split(r"\n(?=- )", block)
        blocks.append(
            "\n".join(
                textwrap.fill(
                    " ".join(item.split()),
                    _WIDTH,
                    subsequent_indent="  " if item.startswith("- ") else "",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
                for item in items
            )
        )
    return "\n\n".join(blocks).rstrip() + "\n"


_NOT_MEASURED = "This was not measured in this run."


def samples_of(case: Results, name: str) -> list[Sample]:
    """Return the runs of one tool on a case."""
    return [Sample(wall, cpu, memory, tuple(failures)) for wall, cpu, memory, failures in case["samples"][name]]


def _name_of(ours: str, compression: str) -> str:
    """Return the name of a variant of this collection."""
    return f"this collection, {ours}" if compression == "gzip" else "this collection"


def _peers(case: Results) -> list[str]:
    return [peer.name for peer in PEERS if peer.name in case["samples"]]


def _pairs(cases: t.Iterable[Results]) -> t.Iterator[tuple[Results, str, str]]:
    """Yield each case, other tool and variant of this collection."""
    for case in cases:
        for peer in _peers(case):
            for ours in case["ours"]:
                # zlib-ng is nearly as fast as isal, and has a table of its own
                if ours in _COMPARED:
                    yield case, peer, ours


def _ratio(case: Results, ours: str, peer: str, what: str) -> Spread:
    return ratios(samples_of(case, ours), samples_of(case, peer), what)


def _goal(case: Results, peer: str, ours: str) -> tuple[float, float] | None:
    return _GOALS.get((case["image"], case["compression"], peer, ours))


def _short(cases: t.Sequence[Results]) -> str:
    found: dict[tuple[str, str, str], list[tuple[float, ...]]] = {}
    for case, peer, ours in _pairs(cases):
        key = (peer, case["compression"], _name_of(ours, case["compression"]))
        found.setdefault(key, []).append(
            tuple(_ratio(case, ours, peer, what).median for what in ("wall", "cpu", "memory"))
        )
    order = [peer.name for peer in PEERS]
    rows = []
    for key in sorted(found, key=lambda key: (order.index(key[0]), key[1], key[2])):
        columns = [spread(values) for values in zip(*found[key])]
        ranges = [f"{column.low:.2f}–{column.high:.2f}" for column in columns]
        rows.append((*key, str(len(found[key])), *ranges))
    if not rows:
        return _NOT_MEASURED
    return table(("other tool", "layers", "this collection with", "images", "wall", "CPU", "peak memory"), rows)


def facts_table() -> str:
    """Return the table of what each tool runs, verifies and gets wrong."""
    rows = [
        (
            "this collection",
            "the module's process",
            "manifest, config, each layer's size, digest and diff_id, before the new tree takes its place",
            "see [behaviour](behaviour.md)",
        )
    ]
    rows += [(peer.name, peer.does, peer.verifies, peer.wrong) for peer in PEERS]
    return table(("tool", "what is run", "it verifies", "errors and gaps"), rows)


def _ratio_table(cases: t.Sequence[Results]) -> str:
    rows = []
    for case, peer, ours in _pairs(cases):
        goals = _goal(case, peer, ours) or (None, None)
        rows.append(
            (
                _title(case),
                peer,
                ours if case["compression"] == "gzip" else "",
                _with_goal(_ratio(case, ours, peer, "wall"), goals[0]),
                _with_goal(_ratio(case, ours, peer, "cpu"), goals[1]),
                _ratio(case, ours, peer, "memory").show(2),
            )
        )
    if not rows:
        return _NOT_MEASURED
    return table(("image", "other tool", "inflated by", "wall", "CPU", "peak memory"), rows)


def _with_goal(ratio: Spread, goal: float | None) -> str:
    if goal is None:
        return ratio.show(2)
    # compare the rounded value that the page shows
    missed = ", **missed**" if round(ratio.median, 2) > goal else ""
    return f"{ratio.show(2)}, goal {goal:.2f}{missed}"


def _images_table(cases: t.Sequence[Results]) -> str:
    rows = [
        (
            _title(case),
            f"{case['layers']}",
            f"{case['entries']:,}",
            f"{case['bytes'] / 1e6:,.0f}",
            f"{case['stored'] / 1e6:,.0f}",
        )
        for case in cases
    ]
    if not rows:
        return _NOT_MEASURED
    head = ("image", "layers", "entries", "MB of files", "MB of stored layers")
    return table(head, rows)


def _inflater_table(cases: t.Sequence[Results]) -> str:
    rows = [
        (_title(case), name, _ratio(case, name, "zlib", "wall").show(2), _ratio(case, name, "zlib", "cpu").show(2))
        for case in cases
        for name in case["ours"]
        if name != "zlib"
    ]
    if not rows:
        return _NOT_MEASURED
    return table(("image", "inflated by", "wall", "CPU"), rows)


def _absolute_table(cases: t.Sequence[Results]) -> str:
    rows = []
    for case in cases:
        for name in [*case["ours"], *_peers(case)]:
            group = samples_of(case, name)
            ours = name in case["ours"]
            rows.append(
                (
                    _title(case),
                    _name_of(name, case["compression"]) if ours else name,
                    spread(sample.wall for sample in group).show(2),
                    spread(sample.cpu for sample in group).show(2),
                    spread(sample.memory for sample in group).show(0),
                    "" if ours else _differing(case, name, group),
                )
            )
    if not rows:
        return _NOT_MEASURED
    head = ("image", "tool", "wall s", "CPU s", "peak MiB", "differs")
    return table(head, rows)


def _title(case: Results) -> str:
    return f"{case['image']}, {case['compression']}"


def _differing(case: Results, name: str, group: t.Sequence[Sample]) -> str:
    statuses = sorted({status for sample in group for status in sample.failures})
    failed = f", exit status {', '.join(map(str, statuses))}" if statuses else ""
    return f"{case['differ'][name]:,}{failed}"


def _grown(results: t.Sequence[Results]) -> dict[str, list[Results]]:
    """Return the series by label, each sorted by size."""
    series: dict[str, list[Results]] = {}
    for one in sorted(results, key=lambda one: int(one["size"])):
        series.setdefault(one["series"], []).append(one)
    return series


def _median(one: Results, what: str) -> float:
    group = samples_of({"samples": {"ours": one["samples"]}}, "ours")
    return spread(getattr(sample, what) for sample in group).median


def _growth_table(results: t.Sequence[Results]) -> str:
    rows = []
    for label, series in _grown(results).items():
        for one in series:
            rows.append(
                (
                    f"{label}, {one['size']:,}",
                    f"{one['entries']:,}",
                    f"{_median(one, 'wall'):.2f}",
                    f"{_median(one, 'cpu'):.2f}",
                    f"{_median(one, 'wall') / one['entries'] * 1e6:.0f}",
                    f"{_median(one, 'cpu') / one['entries'] * 1e6:.0f}",
                    f"{_median(one, 'memory'):.1f}",
                )
            )
    if not rows:
        return _NOT_MEASURED
    head = ("series", "entries", "wall s", "CPU s", "wall µs an entry")
    return table((*head, "CPU µs an entry", "peak MiB"), rows)


def _memory_words(results: Results) -> str:
    sentences = []
    for label, series in _grown(results["scaling"]).items():
        if label == "layers" or len(series) < 2:
            continue
        ends = [(float(one["size"]), _median(one, "memory") * 1024**2) for one in (series[0], series[-1])]
        sentences.append(
            f"From {series[0]['size']:,} to {series[-1]['size']:,} entries in *{label}*, memory grows by"
            f" {slope(*ends):.0f} bytes an entry."
        )
    peaks = [
        (sample.memory, _title(case))
        for case in results["cases"]
        for name in case["ours"]
        for sample in samples_of(case, name)
    ]
    if peaks:
        most, image = max(peaks)
        sentences.append(
            f"The highest peak of this collection for the images above is {most:.0f} MiB ({image});"
            f" the goal is {_GOAL_MEMORY} MiB and, for zstd, the window that the image declares."
        )
    sentences.append(
        "Memory grows by a record for each directory, whose time is set at the end, and, above the first layer, by the name of"
        " each path that the layer adds to a directory of a lower one: the whiteouts of the layer must not remove it."
    )
    return "\n".join(sentences)


def _idle_table(idle: Results) -> str:
    rows = []
    for start, words in _STARTS.items():
        ours, nothing = (samples_of(idle, f"{module}, {start}") for module in (OURS, NOTHING))
        goal = _GOAL_IDLE if start == "payload" else None
        rows.append(
            (
                words,
                spread(sample.wall * 1000 for sample in ours).show(0),
                spread(sample.wall * 1000 for sample in nothing).show(0),
                _with_goal(ratios(ours, nothing, "wall"), goal),
                ratios(ours, nothing, "cpu").show(2),
                spread(sample.memory for sample in ours).show(0),
                spread(sample.memory for sample in nothing).show(0),
            )
        )
    head = ["how both are started", "wall ms, oci_rootfs", "wall ms, empty module", "wall, ratio"]
    head += ["CPU, ratio", "peak MiB, oci_rootfs", "peak MiB, empty module"]
    return table(head, rows)


def _sha_words(sha: Results | None) -> str:
    if not sha:
        return _NOT_MEASURED
    speeds = sha["speeds"]
    if not sha["cases"]:
        return (
            f"This machine hashes {speeds['as it is']:,.0f} MB a second by sha256. It does not have SHA instructions, or they"
            " could not be hidden from OpenSSL, so this was not compared."
        )
    rows = []
    for case in sha["cases"]:
        plain, masked = samples_of(case, "as it is"), samples_of(case, "masked")
        by = f", {case['inflater']}" if case["inflater"] else ""
        rows.append(
            (
                f"{case['image']}, {case['compression']}{by}",
                spread(sample.wall for sample in plain).show(2),
                spread(sample.wall for sample in masked).show(2),
                ratios(masked, plain, "wall").show(2),
                ratios(masked, plain, "cpu").show(2),
            )
        )
    words = (
        f"Both digests are sha256. With the processor's instructions for it, OpenSSL hashes {speeds['as it is']:,.0f} MB a"
        f" second here; with them hidden (`OPENSSL_ia32cap`), {speeds['masked']:,.0f} MB, as on older processors. A"
        " layer is hashed twice, stored and inflated. The other tools have their own hashing code, which this does"
        " not mask; GNU tar and bsdtar hash nothing, so the ratios to them change most."
    )
    head = ("image", "wall s", "wall s, hidden", "wall, ratio", "CPU, ratio")
    return f"{words}\n\n{table(head, rows)}"


def _noise_words(results: Results) -> str:
    settings = results["settings"]
    groups = [samples_of(case, name) for case in results["cases"] for name in case["samples"]]
    load = settings["load"]
    words = (
        f"Measuring took {settings['minutes']:.0f} minutes. The load average before it began was {load['before']:.2f},"
        f" and other guests of the same host took {load['stolen']:.1%} of all CPU time meanwhile."
    )
    if groups and settings["runs"] > 1:
        noise = unrest(groups)
        words += (
            f" The wall times of one tool on one image vary by {noise.median:.0%} in the median (the range by the median),"
            f" and by {noise.high:.0%} at most: smaller differences are not significant."
        )
    else:
        words += " A single run does not show the noise."
    return words


def plot(results: Results) -> str:
    """Return the plot as SVG."""
    groups = []
    for case in results["cases"]:
        base = samples_of(case, case["ours"][0])
        group = [
            Bar(
                f"this collection, {name}" if number else "this collection",
                ratios(samples_of(case, name), base, "wall"),
            )
            for number, name in enumerate(case["ours"])
        ]
        group += [Bar(name, ratios(samples_of(case, name), base, "wall")) for name in _peers(case)]
        groups.append((_title(case), group))
    series = {label: one for label, one in _grown(results["scaling"]).items() if label != "layers"}
    charts = [
        bars("Wall time; 1 is this collection with the standard library alone; marks from least to greatest", groups),
        lines(
            "Wall time for each entry, microseconds",
            "entries",
            [
                Line(label, tuple((one["size"], _median(one, "wall") / one["entries"] * 1e6) for one in points))
                for label, points in series.items()
            ],
            logarithmic=True,
        ),
        lines(
            "Peak memory, MiB",
            "entries",
            [
                Line(label, tuple((one["size"], _median(one, "memory")) for one in points))
                for label, points in series.items()
            ],
        ),
    ]
    return svg(charts, "Wall time beside other tools, time for each entry, peak memory")
