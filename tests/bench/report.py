# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""docs/performance.md and its plot, made of the results. All text around the numbers stands here."""

from __future__ import annotations

import os
import re
import string
import textwrap
import typing as t

from .charts import LICENCE, Bar, Line, bars, lines, svg
from .contenders import PEERS
from .figures import Results, Sample, Spread, ratios, slope, spread, table, unrest
from .product import NOTHING, OURS

PAGE = "performance.md"
PLOT = "performance.svg"
_WIDTH = 120

# Set before anything was measured: at most these ratios of wall and processor time, by image, compression,
# rival, and what inflates.
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
# What inflates where ours is set beside others.
_COMPARED = ("zlib", "isal")
_GOAL_IDLE = 1.1
_GOAL_MEMORY = 48

_TEMPLATE = """\
${licence}

<!-- Written by `make bench`, text and numbers; change tests/bench/report.py instead. -->

# Performance

${warning}How long `oci_rootfs` takes to make a root file system of an image, beside the tools that an administrator would otherwise
use, on the same files and the same kind of file system.

![Wall time beside other tools, time for each entry, and peak memory]($plot)

## What is compared

- **This collection**: the whole process of the module on the node, $start, from the interpreter's start to
  its end. It verifies manifest, config, every layer's digest and every diff_id, and ends with one `syncfs`.
- **The others**: their commands, one after the other, and `sync -f` of what they have made: all have promised the same.
- Runs are paired: each turn runs every tool once, in the same order, $runs turns in all. Each run gets
  $filesystem.
  Ratios are taken within a turn. Tables show the median and, in brackets, the least and the greatest.
- What is read lies in the page cache. CPU is user and system time of all processes of a run. Memory is the peak of the
  largest one; less than $floor MiB cannot be told from the measuring itself.
- *Differs* is the number of paths below the root that are not the same in the other tool's tree as in ours, in type,
  mode, owner, size, time, link, extended attribute or content.
- gzip is inflated by zlib, as everywhere, or by isal, where the node has that library; *inflated by* says which. The other
  compressions know no such choice.

## In short

Ratios of this collection to the other tool over all images below, the least and the greatest median; below 1, this
collection is faster or smaller.

$short

## What each tool checks and what it gets wrong

$facts

## The images

$images

## Ratios, image by image

Ours by theirs.$goal_words

$ratios

## What inflates

Wall and processor time of this collection with another library by that with zlib.

$inflaters

## Seconds and memory, image by image

$absolute

## How it grows

*One layer* has so many entries, nearly all of them files of 64 bytes. *Second layer* has so many, over a first one with as
many, half of which it replaces. *Layers* is one tree of the same size, cut into so many layers. All are gzip, inflated by
the standard library.

$growth

$memory_words

## When nothing is to do

A run on an image that is already there, an archive with $blobs blobs, beside a module that does nothing but start as every
Ansible module does and say so.

$idle

Of this, opening the archive and reading and verifying its index, manifest and config takes $reading, in a process that
already runs.

What a module costs beyond one that does nothing is its own code, which Python compiles anew for each task, and more than
once: to learn a file's name, its zip importer compiles the file, and throws that away (84 compilations for 42 files, 55 of
75 ms, by a clock in the importer of Python 3.11). The rest is making classes, 9 ms, reading from the zip, 4 ms, and
Ansible's work on a larger result. Code that a run without changes does not need is only imported where it is needed; not to
collect garbage meanwhile saves nothing. Compiled code kept on the node would save most of it, but root would run code
from a cache.

## What was tried

Kept:

- A thread that reads and hashes what is stored, one that inflates it, one that hashes what comes out, and one that parses
  and writes. The hash of what comes out, in a thread of its own, takes a tenth of the wall time away where inflating is
  what takes longest, the hash of what is stored another 3 %. A plain layer has one thread before the one that writes: a
  second one had cost 4 %.
- Freed memory is kept (`mallopt`): the C library gave it back to the system and asked for it again with every piece,
  50,000 to 75,000 page faults for app and big instead of 5,000. 3 to 8 % of the wall time of gzip layers.
- Early syncs, in a thread, after every 128 MiB: the disk works while more is made, and the last sync finds little left.
  An eighth of the wall time of npm, for no more processor time.
- A file is created with its mode, and files and directories are given an owner only where they have another one; what a new
  file has is seen once, at the beginning. Two calls less for nearly every file are 6 % of the processor time of npm.
- isal or zlib-ng, where the node has them, instead of zlib: inflating takes about half of the time.
- A header taken apart by one regular expression, its checksum by adler32, without a copy: headers were what many small
  files cost most. Mode and owner, of which an image has few, and the directory, which mostly is that of the entry before,
  are taken apart once; a tuple with names is made without calling its class. All of Python's work on an entry, with the
  system calls taken away, came from 7.9 to 7.0 µs by that.
- One hash where a layer is plain, since its digest is its diff_id.

Left out:

- A second writer thread, that fills, closes and dates files which the first has made: 17 to 28 % more processor time, all
  of it in the kernel, where both wait for the same locks, and 5 to 8 % more wall time.
- Reading or inflating in pieces of 64 KiB, 512 KiB, 1 MiB or 4 MiB instead of 256 KiB: 2 % at most, for more memory.
- Longer queues between the threads: 4 % at most, and that for 7 MiB more; with 2 MiB more, nothing that could be told from
  noise. No call of the thread that writes took over 7 ms in app, early syncs and all: there is little to bridge.

What remains, by a sampling profiler, of npm on a new ext4: creating a file takes 13 to 17 µs in the kernel, writing it 9 to
11 µs, its time 2 to 4 µs, making a directory 26 to 33 µs, whoever asks. SHA-256 and zlib do not get faster either. Python
adds 7 µs an entry, of which the tar header takes 1.8 µs, and about 3 more around its system calls. GNU tar adds 1.5 µs,
and hashes nothing: that is why images of many small files take more processor time than with GNU tar, and why goals were
missed. app has both cores busy for 72 % of the time, with what the kernel writes behind it: two cores leave no room for more
threads.

## Nodes without SHA instructions

$sha

## The machine, and how quiet it was

$machine

$noise

## What could not be measured

$problems

## To measure it yourself

`make bench`, as root on Debian, takes an hour or two and installs the other tools. `BENCH=--quick` shows in a few minutes
that it works; `BENCH="--images DIR"` adds images of yours (`DIR/NAME/oci-gzip`, a layout with the tag `latest`; also
`oci-zstd` and `oci-plain`). The images that it builds are the same everywhere but for the compressors' versions.
"""

_QUICK = """\
> These numbers come from a quick run with tiny images. They show that measuring works, and nothing else.

"""
_STARTS = {
    "payload": "as Ansible sends it (a script with a zip, compiled anew each time)",
    "files": "started from its files with its arguments beside it",
}


def write_page(results: Results, folder: str) -> None:
    """Write the page and the plot into ``folder``."""
    for name, text in ((PAGE, page(results)), (PLOT, plot(results))):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)


def page(results: Results) -> str:
    """The page as Markdown."""
    settings = results["settings"]
    idle = results["idle"]
    has_goals = any(_goal(case, peer, ours) for case, peer, ours in _pairs(results["cases"]))
    text = string.Template(_TEMPLATE).substitute(
        licence=LICENCE,
        warning=_QUICK if settings["quick"] else "",
        plot=PLOT,
        start=_STARTS[settings["start"]],
        runs=settings["runs"],
        filesystem=settings["filesystem"],
        floor=f"{settings['floor']:.0f}",
        short=_short(results["cases"]),
        facts=_facts(),
        goal_words=(
            " A goal that was set beforehand stands behind the number, and **missed** where it is." if has_goals else ""
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
        sha=_sha_words(results["sha"]),
        machine=table(("what", "which"), results["machine"].items()),
        noise=_noise_words(results),
        problems="\n".join(f"- {problem}" for problem in results["problems"]) or "Nothing was left out.",
    )
    return wrapped(text)


def wrapped(text: str) -> str:
    """The text with its paragraphs and items filled; tables, headings and the like are left as they are."""
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
    """The runs of one tool on a case."""
    return [Sample(wall, cpu, memory, tuple(failures)) for wall, cpu, memory, failures in case["samples"][name]]


def _name_of(ours: str, compression: str) -> str:
    """The name of a variant of ours."""
    return f"this collection, {ours}" if compression == "gzip" else "this collection"


def _peers(case: Results) -> list[str]:
    return [peer.name for peer in PEERS if peer.name in case["samples"]]


def _pairs(cases: t.Iterable[Results]) -> t.Iterator[tuple[Results, str, str]]:
    """Each case, rival and variant of ours."""
    for case in cases:
        for peer in _peers(case):
            for ours in case["ours"]:
                # what is nearly as fast as another would make the tables long and say little
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
    return table(("against", "layers", "ours", "images", "wall", "CPU", "peak memory"), rows)


def _facts() -> str:
    rows = [
        (
            "this collection",
            "the module's process",
            "manifest, config, each layer's size, digest and diff_id, before the new tree takes its place",
            "see [behaviour](behaviour.md)",
        )
    ]
    rows += [(peer.name, peer.does, peer.verifies, peer.wrong) for peer in PEERS]
    return table(("tool", "what is run", "it verifies", "it gets wrong, or lacks"), rows)


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
    return table(("image", "against", "inflated by", "wall", "CPU", "peak memory"), rows)


def _with_goal(ratio: Spread, goal: float | None) -> str:
    if goal is None:
        return ratio.show(2)
    # judged as it is shown
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
    head = ("image", "layers", "entries", "MB of files", "MB of layers as stored")
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
    """The series by label, each by rising size."""
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
            f"The most that this collection took for any image above was {most:.0f} MiB ({image});"
            f" the goal is {_GOAL_MEMORY} MiB and, for zstd, the window that the image asks for."
        )
    sentences.append(
        "What grows is a record for each directory, whose time is set at the end, and, above the first layer, the name of"
        " each path that the layer brings into a directory of a lower one: a whiteout may come before or after what it"
        " must not hide."
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
    head = ["how both are started", "wall ms, ours", "wall ms, nothing", "wall, ratio"]
    head += ["CPU, ratio", "peak MiB, ours", "peak MiB, nothing"]
    return table(head, rows)


def _sha_words(sha: Results | None) -> str:
    if not sha:
        return _NOT_MEASURED
    speeds = sha["speeds"]
    if not sha["cases"]:
        return (
            f"This machine hashes {speeds['as it is']:,.0f} MB a second by sha256. It has no SHA instructions, or they"
            " could not be hidden from OpenSSL, so there is nothing to compare."
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
        " layer is hashed as it is stored and as it is inflated. The other tools hash by code of their own, which this does"
        " not mask; GNU tar and bsdtar hash nothing, so the ratios to them suffer most."
    )
    head = ("image", "wall s", "wall s, hidden", "wall, hidden by not", "CPU, hidden by not")
    return f"{words}\n\n{table(head, rows)}"


def _noise_words(results: Results) -> str:
    settings = results["settings"]
    groups = [samples_of(case, name) for case in results["cases"] for name in case["samples"]]
    load = settings["load"]
    words = (
        f"Measuring took {settings['minutes']:.0f} minutes. The load average before it began was {load['before']:.2f},"
        f" and {load['stolen']:.1%} of all processor time meanwhile went to other guests of the same host."
    )
    if groups and settings["runs"] > 1:
        noise = unrest(groups)
        words += (
            f" The wall times of one tool on one image lay {noise.median:.0%} apart (greatest less least, by the median)"
            f" in the middle, {noise.high:.0%} at worst: differences smaller than that mean nothing."
        )
    else:
        words += " What was run once tells nothing of noise."
    return words


def plot(results: Results) -> str:
    """The plot as SVG."""
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
