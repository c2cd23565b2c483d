# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measures the module against other tools, paired and on fresh file systems, and writes docs/performance.md.

    python3 tests/bench/run.py [--quick] [--runs 5] [--only few-files] [--images DIR] [--tmpfs] [--output docs]

It needs ansible-core and zstandard in the Python that runs it, and measures isal and zlib-ng where that has
them. As root it mounts a new file system for each run. Tools that are not installed are left out and named.
``--images DIR`` adds images made elsewhere, as ``DIR/NAME/oci-COMPRESSION`` (layouts with a tag "latest") and
``DIR/NAME/NAME-COMPRESSION.oci.tar``; the compressions are gzip, zstd and plain. ``--render FILE`` writes the page
again from the results of an earlier run, which ``--results FILE`` has kept.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import typing as t

if __name__ == "__main__" and not __package__:
    # run as a script: be the member of a package that relative imports need
    sys.path[0] = os.path.abspath(__file__).rsplit(os.sep, 3)[0]
    __package__ = "tests.bench"

from ..tools import confinement
from ..tools.compare_trees import Node, read_tree
from ..tools.removal import make_folder, remove_below, remove_folder
from . import images, machine
from .contenders import PEERS
from .figures import Results, Sample
from .filesystem import Ext4, FileSystem, Folder, Tmpfs
from .images import Case
from .product import NOTHING, OURS, STARTS, Modules, inflaters, result_of
from .report import write_page

_HERE = os.path.dirname(os.path.abspath(__file__))
_ROOT = os.path.dirname(os.path.dirname(_HERE))
# The instructions that OpenSSL must not see: SHA, in the second word of leaf 7 (x86).
_NO_SHA = "OPENSSL_ia32cap=:~0x20000000"


class TooLong(RuntimeError):
    """A run that was ended."""


class Bench:
    """What all measurements share: where, how often, how long, and what has been found."""

    def __init__(self, options: argparse.Namespace, folder: str) -> None:
        self.options = options
        self.folder = folder
        self.filesystem = _filesystem(options, folder)
        self.modules = Modules(folder)
        self.inflaters = inflaters()
        self.problems: list[str] = []
        # once for the caches, whatever comes of it: there is no such source
        for module, start in itertools.product((OURS, NOTHING), STARTS):
            nowhere = os.path.join(folder, "nowhere")
            self.run(self.modules.command(module, start, nowhere, nowhere))

    def note(self, problem: str) -> None:
        """Keep a sentence for the page, which has no use for where we work."""
        self.problems.append(problem.replace(self.folder, "…"))

    def run(self, words: t.Sequence[str], environment: t.Mapping[str, str] | None = None) -> tuple[Sample, str]:
        """One measured run, and what it printed. Raises ``TooLong``."""
        report = os.path.join(self.folder, "report")
        printed = os.path.join(self.folder, "printed")
        said = os.path.join(self.folder, "said")
        launcher = [sys.executable, "-I", "-S", os.path.join(_HERE, "measure.py")]
        with open(printed, "wb") as out, open(said, "wb") as err:
            process = subprocess.Popen(
                [*launcher, report, *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment or self.modules.environment,
                start_new_session=True,
            )
            try:
                process.wait(self.options.limit)
            except subprocess.TimeoutExpired:
                raise TooLong(f"no result within {self.options.limit} s") from None
            finally:
                # also when interrupted: nothing may write on
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        with open(report, encoding="ascii") as file:
            sample = Sample.from_report(file.read())
        with open(printed, encoding="utf-8", errors="surrogateescape") as file:
            return sample, file.read()

    def ours(
        self, src: str, folder: str, inflater: str = "zlib", masked: bool = False
    ) -> tuple[Sample, dict[str, t.Any]]:
        """The module's process that unpacks; returns its result, too. Raises ``RuntimeError`` where it failed."""
        start = self.options.start
        words = self.modules.command(OURS, start, src, _dest(folder), inflater)
        if masked:
            words.insert(1, _NO_SHA)
        sample, printed = self.run(words)
        result = result_of(printed)
        if not result["changed"]:
            raise RuntimeError("the module changed nothing")
        return sample, result


def _dest(folder: str) -> str:
    return os.path.join(folder, "one", "two", "rootfs")


def _filesystem(options: argparse.Namespace, folder: str) -> FileSystem:
    if os.geteuid() != 0:
        return Folder(folder)
    return Tmpfs(folder) if options.tmpfs else Ext4(folder)


# -- unpacking, against the others


def measure_case(bench: Bench, case: Case) -> Results | None:
    """The product's variants and all peers on one image, in turns."""
    names = bench.inflaters if case.compression == "gzip" else ["zlib"]
    peers = [peer for peer in PEERS if peer.takes(case)]
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    samples.update({peer.name: [] for peer in peers})
    tree: dict[bytes, Node] = {}
    differ: dict[str, int] = {}
    report: dict[str, t.Any] = {}
    warm(case)
    for turn in range(bench.options.runs):
        for name in names:
            with bench.filesystem.fresh() as folder:
                try:
                    sample, result = bench.ours(case.layout, folder, name)
                except RuntimeError as error:
                    bench.note(f"{case.name}: {error}")
                    return None
                samples[name].append(sample)
                report = result["report"]
                if case.compression == "gzip" and report.get("gzip") != name:
                    bench.note(f"{case.name}: inflated by {report.get('gzip')} instead of {name}")
                    return None
                if turn == 0 and not tree:
                    tree = read_tree(_dest(folder))
        for peer in list(peers):
            with bench.filesystem.fresh() as folder:
                try:
                    sample, printed = bench.run(peer.command(case, folder))
                    if sample.failures and not peer.goes_on:
                        raise RuntimeError(f"exit status {sample.failures[0]}")
                    if turn == 0:
                        differ[peer.name] = _differences(tree, peer.tree(folder, printed))
                except RuntimeError as error:
                    bench.note(f"{case.name}: {peer.name}: {error}")
                    peers.remove(peer)
                    del samples[peer.name]
                    continue
                samples[peer.name].append(sample)
        _say(f"  {case.name}: turn {turn + 1} of {bench.options.runs}")
    return {
        "image": case.image,
        "compression": case.compression,
        "layers": len(case.layers),
        "stored": case.size,
        "entries": report["entries"],
        "bytes": report["bytes"],
        "ours": names,
        "differ": differ,
        "samples": _plain(samples),
    }


def warm(case: Case) -> None:
    """Have the blobs and the archive in the page cache."""
    for path in filter(None, (*case.layers, case.archive)):
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass


def _differences(tree: dict[bytes, Node], other: str) -> int:
    """How many paths below the root are not as in our tree; the root itself seldom stands in a layer."""
    theirs = read_tree(other)
    paths = {*tree, *theirs} - {b"."}
    return sum(tree.get(path) != theirs.get(path) for path in paths)


def _plain(samples: t.Mapping[str, t.Sequence[Sample]]) -> Results:
    return {name: [dataclasses.astuple(sample) for sample in group] for name, group in samples.items()}


# -- how it grows


def measure_growth(bench: Bench, label: str, size: int, case: Case) -> Results | None:
    """The product alone on one image of a series."""
    warm(case)
    samples = []
    report: dict[str, t.Any] = {}
    for _turn in range(min(bench.options.runs, 3)):
        with bench.filesystem.fresh() as folder:
            try:
                sample, result = bench.ours(case.layout, folder)
            except RuntimeError as error:
                bench.note(f"{label}, {size}: {error}")
                return None
            samples.append(sample)
            report = result["report"]
    _say(f"  {label}: {size}")
    return {"series": label, "size": size, "entries": report["entries"], "samples": _plain({"ours": samples})["ours"]}


def series(quick: bool) -> t.Iterator[tuple[str, int, images.Layers]]:
    """The images by which size is seen to matter: a label, a size, and its layers."""
    for entries in (100, 1000, 5000) if quick else (1000, 10_000, 100_000, 1_000_000):
        yield "one layer", entries, images.one_layer(entries)
        yield "second layer", entries, images.second_layer(entries)
    entries, size = (1000, 2_000_000) if quick else (20_000, 80_000_000)
    for count in (1, 8, 20) if quick else (1, 8, 32, 64, 127):
        yield "layers", count, images.stacked(count, entries, size)


# -- when nothing is to do


def measure_idle(bench: Bench, case: Case) -> Results:
    """Runs that change nothing against a module that does nothing, and the reading alone. Raises ``RuntimeError``."""
    assert case.archive is not None
    turns = 5 if bench.options.quick else 4 * bench.options.runs
    samples: dict[str, list[Sample]] = {}
    with bench.filesystem.fresh() as folder:
        bench.ours(case.archive, folder)
        for _turn, start in itertools.product(range(turns), STARTS):
            for module in (OURS, NOTHING):
                words = bench.modules.command(module, start, case.archive, _dest(folder))
                sample, printed = bench.run(words)
                if result_of(printed)["changed"]:
                    raise RuntimeError("a run that had nothing to do changed something")
                samples.setdefault(f"{module}, {start}", []).append(sample)
    reading = subprocess.run(
        [sys.executable, os.path.join(_HERE, "reading.py"), case.archive, "200"],
        env=bench.modules.environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=bench.options.limit,
    )
    return {
        "blobs": len(os.listdir(os.path.join(case.layout, "blobs", "sha256"))),
        "reading": [float(word) for word in reading.stdout.split()],
        "samples": _plain(samples),
    }


# -- nodes without SHA instructions


def measure_sha(bench: Bench, cases: t.Sequence[Case]) -> Results:
    """Speed of sha256 as it is and with the instructions masked, and the product with both."""
    speeds = {"as it is": _sha_speed({}), "masked": 0.0}
    name, _equals, value = _NO_SHA.partition("=")
    speeds["masked"] = _sha_speed({name: value})
    found: Results = {"speeds": speeds, "cases": []}
    if not machine.has_sha() or speeds["masked"] > 0.8 * speeds["as it is"]:
        return found
    inflater = "isal" if "isal" in bench.inflaters else "zlib"
    for case in cases:
        samples: dict[str, list[Sample]] = {"as it is": [], "masked": []}
        warm(case)
        for _turn in range(bench.options.runs):
            for label, group in samples.items():
                with bench.filesystem.fresh() as folder:
                    sample, _result = bench.ours(case.layout, folder, inflater, label == "masked")
                    group.append(sample)
        found["cases"].append(
            {
                "image": case.image,
                "compression": case.compression,
                "inflater": inflater if case.compression == "gzip" else "",
                "samples": _plain(samples),
            }
        )
    return found


def _sha_speed(environment: t.Mapping[str, str]) -> float:
    """MB of sha256 in a second of processor time, by the Python that runs this."""
    code = (
        "import hashlib, time; data = bytes(1 << 26); start = time.process_time();"
        "hashlib.sha256(data).digest(); print(len(data) / 1e6 / (time.process_time() - start))"
    )
    speeds = [
        float(
            subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                timeout=120,
            ).stdout
        )
        for _turn in range(3)
    ]
    return statistics.median(speeds)


# -- the whole


def wanted(
    options: argparse.Namespace, compressions: t.Sequence[str]
) -> list[tuple[str, images.Layers, t.Sequence[str]]]:
    """The images of the comparison that were not left out, with their compressions."""
    quick = options.quick
    entries, size = (600, 3_000_000) if quick else (20_000, 80_000_000)
    known: list[tuple[str, images.Layers, t.Sequence[str]]] = [
        ("few-files", images.few(quick), compressions),
        ("many-files", images.many(quick), compressions),
        ("one-big-file", images.big(quick), compressions),
    ]
    known += [
        (f"{count}-layer{'s' if count > 1 else ''}", images.stacked(count, entries, size), ("gzip",))
        for count in (1, 4, 32)
    ]
    return [one for one in known if _chosen(options, one[0])]


def _chosen(options: argparse.Namespace, name: str) -> bool:
    return not options.only or name in options.only


def run_all(bench: Bench) -> Results:
    """Everything that was asked for, one image after the other, each removed when it was measured."""
    options = bench.options
    compressions = machine.compressions()
    if "zstd" not in compressions:
        bench.note("zstd: this Python has no zstandard to make images with")
    bench.problems += [
        f"{peer.name}: not installed ({peer.package})"
        for peer in PEERS
        if not all(shutil.which(program) for program in peer.needs)
    ]
    before = machine.load()
    started = time.time()
    floor, _printed = bench.run(["true"])
    results: Results = {"cases": [], "scaling": [], "idle": None, "sha": None}
    for name, layers, kinds in wanted(options, compressions):
        with _built(bench, name, layers, kinds) as cases:
            for case in cases:
                results["cases"].append(measure_case(bench, case))
    for case in images.found(options.images) if options.images else ():
        if _chosen(options, case.image) and case.compression in compressions:
            _say(case.name)
            results["cases"].append(measure_case(bench, case))
    if _chosen(options, "scaling"):
        for label, size, layers in series(options.quick):
            with _built(bench, f"{label}-{size}", layers, ["gzip"]) as cases:
                results["scaling"].append(measure_growth(bench, label, size, cases[0]))
    if _chosen(options, "sha"):
        layers = images.few(options.quick)
        with _built(bench, "few-files", layers, ["gzip", "plain"]) as cases:
            results["sha"] = measure_sha(bench, cases)
            _say("  sha256 without its instructions")
    if _chosen(options, "idle"):
        layers = images.stacked(125, 1000, 1_000_000)
        with _built(bench, "idle", layers, ["gzip"]) as cases:
            results["idle"] = measure_idle(bench, cases[0])
    for key in ("cases", "scaling"):
        results[key] = [result for result in results[key] if result is not None]
    results["machine"] = machine.describe(bench.inflaters)
    results["settings"] = {
        "runs": options.runs,
        "quick": options.quick,
        "start": options.start,
        "filesystem": bench.filesystem.name,
        "minutes": (time.time() - started) / 60,
        "floor": floor.memory,
        "load": machine.unrest(before, machine.load()),
    }
    results["problems"] = bench.problems
    return results


@contextlib.contextmanager
def _built(bench: Bench, name: str, layers: images.Layers, compressions: t.Sequence[str]) -> t.Iterator[list[Case]]:
    _say(f"{name}: building")
    folder = os.path.join(bench.folder, "images")
    try:
        yield images.build(folder, name.replace(" ", "-"), layers, compressions)
    finally:
        remove_below(bench.folder, folder)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse(arguments: t.Sequence[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(
        description="Measure the module against other tools and write docs/performance.md."
    )
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="default 5")
    parser.add_argument("--quick", action="store_true", help="tiny images, to see that all works")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="an image, or scaling, sha, or idle; may be repeated",
    )
    parser.add_argument("--images", metavar="DIR", help="images made elsewhere")
    parser.add_argument("--tmpfs", action="store_true", help="tmpfs instead of ext4")
    parser.add_argument(
        "--start",
        choices=STARTS,
        default=STARTS[0],
        help="how the module is started: as Ansible sends it, or from its files",
    )
    parser.add_argument("--folder", metavar="DIR", help="where to work; about 12 GB are needed")
    parser.add_argument("--limit", type=int, default=600, metavar="S", help="seconds for one run")
    parser.add_argument("--output", default=os.path.join(_ROOT, "docs"), metavar="DIR")
    parser.add_argument("--results", metavar="FILE", help="keep the results there")
    parser.add_argument("--render", metavar="FILE", help="measure nothing, use these")
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error("--runs: at least 1")
    return options


def require_root() -> None:
    """End with a sentence where this is not root."""
    if os.geteuid():
        sys.exit("this needs root: it mounts file systems")


def measured(options: argparse.Namespace, measure: t.Callable[[Bench], Results]) -> Results:
    """Return what was measured in a folder of its own, which goes in any case."""
    confinement.require()
    # an end by a signal must clean up as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = make_folder("bench-", options.folder)
    try:
        return measure(Bench(options, folder))
    except KeyboardInterrupt:
        sys.exit("interrupted; nothing was written")
    finally:
        remove_folder(folder)


def keep(results: Results, options: argparse.Namespace) -> None:
    """Write the results where ``--results`` wants them."""
    if options.results:
        with open(options.results, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1)


def main(arguments: t.Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(arguments)
    if options.render:
        with open(options.render, encoding="utf-8") as file:
            results = json.load(file)
    else:
        results = measured(options, run_all)
        keep(results, options)
    write_page(results, options.output)


if __name__ == "__main__":
    main()
