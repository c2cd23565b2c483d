# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fuzzes the whole way from an archive to a root file system, for as long as one likes.

    python3 tests/fuzz/run.py [--seconds 60] [--seed S] [--only TARGET] [--jobs N]
    python3 tests/fuzz/run.py FILE...

The collection must be importable, as ``make fuzz`` sees to it. The second form runs inputs that were found before.
Every input follows from target, seed and number alone. A finding is written to ``tests/output/fuzz``, with the
command that repeats it. Best run as root, on a machine that may be lost: what is fuzzed writes as root.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import select
import signal
import sys
import time
import traceback
import typing as t

from ansible_collections.hypervisor.oci.tests.fuzz import checks, inputs
from ansible_collections.hypervisor.oci.tests.tools.confinement import require
from ansible_collections.hypervisor.oci.tests.tools.removal import remove_folder

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUTPUT = os.path.join(ROOT, "tests", "output", "fuzz")

# Seconds without a sign of life after which an input hangs.
_PATIENCE = 120.0
# Inputs that one process runs before a fresh one takes its place.
_LIFE = 2000
_STOP = (signal.SIGINT, signal.SIGTERM)


class Tally:
    """What was run and found."""

    def __init__(self) -> None:
        self.inputs: dict[str, int] = {}
        self.kinds: dict[str, int] = {}
        self.findings = 0
        self.slowest = (0.0, "")
        self.largest = (0, "")
        self.stopped = False

    def stop(self) -> None:
        """Take notice that the user has seen enough."""
        self.stopped = True

    def add(self, target: str, number: int, words: list[str]) -> None:
        """Take a worker's report of one input."""
        kind, seconds, memory, problems = words
        where = f"{target} {number}"
        self.inputs[target] = self.inputs.get(target, 0) + 1
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        self.findings += int(problems)
        self.slowest = max(self.slowest, (float(seconds), where))
        self.largest = max(self.largest, (int(memory), where))

    def words(self, seconds: float, seed: str) -> str:
        """A summary for the last lines."""
        total = sum(self.inputs.values())
        per_target = ", ".join(f"{key} {self.inputs[key]}" for key in self.inputs)
        kinds = ", ".join(f"{key} {self.kinds[key]}" for key in sorted(self.kinds))
        return (
            f"{total} inputs in {seconds:.0f} s ({total / max(seconds, 0.001):.0f}/s), seed {seed}:"
            f" {self.findings} findings\n"
            f"  targets: {per_target}\n  outcomes: {kinds}\n"
            f"  slowest: {self.slowest[0]:.2f} s of processor time ({self.slowest[1]});"
            f" largest: {self.largest[0] / 2**20:.0f} MiB ({self.largest[1]})"
        )


class Worker:
    """A process that runs every ``step``-th number of all targets, from ``start`` on, and reports each."""

    def __init__(self, targets: list[str], seed: str, start: int, step: int) -> None:
        self.targets = targets
        self.seed = seed
        self.next = start
        self.step = step
        self.doing: tuple[str, int] | None = None
        self.deadline = time.monotonic() + _PATIENCE
        self._rest = b""
        reader, writer = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            for number in _STOP:
                # its parent ends it
                signal.signal(number, signal.SIG_IGN)
            os.close(reader)
            status = 1
            try:
                _work(targets, seed, start, step, writer)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(writer)
        self.fd = reader

    def lines(self) -> list[str] | None:
        """What it said since; ``None`` where it is gone."""
        data = os.read(self.fd, 65536)
        if not data:
            return None
        self.deadline = time.monotonic() + _PATIENCE
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [line.decode() for line in whole]

    def stop(self) -> int:
        """End it; returns its exit status."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)
        return os.waitpid(self.pid, 0)[1]


def _work(targets: list[str], seed: str, start: int, step: int, writer: int) -> None:
    # whoever is killed by its parent leaves a folder: the parent removes it
    sandbox = checks.Sandbox()
    try:
        _run_all(sandbox, targets, seed, range(start, start + _LIFE * step, step), writer)
    except BrokenPipeError:
        # the parent itself was killed
        pass
    finally:
        sandbox.close()


def _run_all(sandbox: checks.Sandbox, targets: list[str], seed: str, numbers: range, writer: int) -> None:
    os.write(writer, f"here {sandbox.base}\n".encode())
    checks.limit_process()
    gc.collect()
    gc.freeze()
    for number in numbers:
        target = targets[number % len(targets)]
        os.write(writer, f"doing {target} {number}\n".encode())
        data = inputs.make(target, seed, number)
        outcome = sandbox.check(data, target not in ("layer", "gzip", "zstd"))
        if outcome.problems:
            path = save(data, f"{target}-{seed}-{number}")
            report(path, target, outcome.problems)
        figures = f"{outcome.seconds:.4f} {outcome.memory} {len(outcome.problems)}"
        os.write(writer, f"done {outcome.kind} {figures}\n".encode())


def save(data: bytes, name: str) -> str:
    """Write a finding's input; returns its path."""
    os.makedirs(OUTPUT, exist_ok=True)
    path = os.path.join(OUTPUT, "".join(c if c.isalnum() else "-" for c in name))
    with open(path, "wb") as file:
        file.write(data)
    return path


def report(path: str, target: str, problems: t.Iterable[str]) -> None:
    """Say what was found, and the command that repeats it."""
    lines = [f"FINDING ({target}): {problem}" for problem in problems]
    script = os.path.relpath(os.path.abspath(__file__), ROOT)
    lines.append(f"  repeat: python3 {script} {os.path.relpath(path, ROOT)}")
    print("\n".join(lines), flush=True)


def fuzz(targets: list[str], seed: str, seconds: float, jobs: int) -> Tally:
    """Run workers until the time is over."""
    tally = Tally()
    for wanted in _STOP:
        signal.signal(wanted, lambda _number, _frame: tally.stop())
    end = time.monotonic() + seconds
    workers = [Worker(targets, seed, number, jobs) for number in range(jobs)]
    folders: dict[int, str] = {}
    try:
        while time.monotonic() < end and not tally.stopped:
            ready, _w, _x = select.select([worker.fd for worker in workers], [], [], 0.5)
            for place, worker in enumerate(workers):
                lines = worker.lines() if worker.fd in ready else []
                for line in lines or []:
                    word, *rest = line.split(" ")
                    if word == "here":
                        folders[worker.pid] = rest[0]
                    elif word == "doing":
                        worker.doing = (rest[0], int(rest[1]))
                    elif worker.doing is not None:
                        tally.add(*worker.doing, rest)
                        worker.next = worker.doing[1] + worker.step
                        worker.doing = None
                hangs = time.monotonic() > worker.deadline
                if lines is not None and not hangs:
                    continue
                if worker.doing is not None:
                    # it died, or will
                    target, number = worker.doing
                    words = f"no end after {_PATIENCE:.0f} s" if hangs else "it died"
                    path = save(inputs.make(target, seed, number), f"{target}-{seed}-{number}")
                    report(path, target, [words])
                    tally.findings += 1
                    worker.next = number + worker.step
                worker.stop()
                _remove(folders.pop(worker.pid, ""))
                workers[place] = Worker(targets, seed, worker.next, worker.step)
    finally:
        for worker in workers:
            worker.stop()
            _remove(folders.pop(worker.pid, ""))
        checks.remove_target()
    return tally


def _remove(folder: str) -> None:
    if folder:
        remove_folder(folder)


def repeat(paths: list[str]) -> int:
    """Run saved inputs in this process; returns the number of findings."""
    findings = 0
    sandbox = checks.Sandbox()
    checks.limit_process()
    try:
        for path in paths:
            with open(path, "rb") as file:
                outcome = sandbox.check(file.read())
            print(f"{path}: {outcome.kind} {outcome.message}")
            print(f"  {outcome.seconds:.2f} s, {outcome.memory / 2**20:.0f} MiB above idle")
            for problem in outcome.problems:
                print(f"  FINDING: {problem}")
            findings += len(outcome.problems)
    finally:
        sandbox.close()
    return findings


def main() -> int:
    """0 where nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("inputs", nargs="*", help="inputs to run again")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default="1", help="any word")
    parser.add_argument("--only", metavar="TARGET", action="append")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    require()
    targets = options.only or list(inputs.TURNS)
    for target in targets:
        if target not in inputs.TARGETS:
            parser.error(f"there is no target {target}: {', '.join(inputs.TARGETS)}")
    if options.inputs:
        return 1 if repeat(options.inputs) else 0
    start = time.monotonic()
    tally = fuzz(targets, options.seed, options.seconds, options.jobs)
    print(tally.words(time.monotonic() - start, options.seed))
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
