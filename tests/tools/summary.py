# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Says what a run of the checks really ran, and fails where something required did not.

FOLDER holds ``report.json``, which nox wrote, and for each session of ansible-test a folder of the JUnit files that it
left. Nothing here is taken from what was planned.
"""

from __future__ import annotations

import argparse
import collections
import glob
import json
import os
import re
import sys
import typing as t
from dataclasses import dataclass, field
from xml.etree import ElementTree

# What a session of nox that did what it should is called in its report.
SUCCESS = "success"
# A session that only calls others.
GROUP = "lint"
# How a sanity test says that there was nothing for it to look at.
NOTHING_TO_TEST = "No tests applicable."
# How many of the slowest parts are shown.
SLOWEST = 10
# How many tests that failed are shown, and how many characters of what each says.
FAILURES, FAILURE = 8, 400


@dataclass(frozen=True)
class Session:
    """What one session did.

    ``result`` and ``reason`` are nox's words. ``pythons`` are those that unit tests ran with, ``notes`` say why tests
    left something out, and how many did, and ``compared`` what was compared with the work of other programs. ``parts``
    are seconds by the name of a part: a file of unit tests, or an integration target. ``failures`` are what tests said
    that failed, where the session did.
    """

    name: str
    result: str
    reason: str
    seconds: float
    counts: t.Mapping[str, int]
    pythons: tuple[str, ...]
    notes: t.Mapping[str, int]
    compared: tuple[str, ...] = ()
    parts: t.Mapping[str, float] = field(default_factory=dict)
    failures: tuple[str, ...] = ()


def read(folder: str) -> list[Session]:
    """The sessions of a run in their order.

    Raises ``OSError`` or ``ValueError`` where the report is missing or no report.
    """
    with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
        report = json.load(file)
    return [
        _session(item, sorted(glob.glob(os.path.join(folder, item["name"], "*.xml"))))
        for item in report["sessions"]
        if item["name"] != GROUP
    ]


def _session(item: dict[str, t.Any], files: list[str]) -> Session:
    suites = [suite for path in files for suite in ElementTree.parse(path).iter("testsuite")]
    if item["result"] == "skipped":
        counts = collections.Counter(skipped=1)
    elif item["name"].startswith("integration") and files:
        # One file for each target; tasks that fail on purpose look like failures in it. A failed target is the last.
        counts = collections.Counter(passed=len(files))
    else:
        counts = _count(suites)
    if item["result"] not in (SUCCESS, "skipped") and not counts["failed"]:
        # it failed outside of any test, or in a target
        counts["failed"] = 1
        counts["passed"] -= 1 if item["name"].startswith("integration") else 0
    if not +counts:
        # a session that is one check
        counts["passed"] = 1
    found = [re.match(r"python([0-9.]+)-.*units\.xml$", os.path.basename(path)) for path in files]
    return Session(
        item["name"],
        item["result"],
        item["reason"] or "",
        item["duration"],
        +counts,
        tuple(dict.fromkeys(match.group(1) for match in found if match)),
        collections.Counter(_notes(item["name"], suites)),
        tuple(dict.fromkeys(_said("COMPARED", suites))),
        _parts(item["name"], files),
        tuple(_failures(item["name"], files)) if item["result"] not in (SUCCESS, "skipped") else (),
    )


def _count(suites: t.Iterable[ElementTree.Element]) -> collections.Counter[str]:
    counts: collections.Counter[str] = collections.Counter()
    for suite in suites:
        for case in suite.iter("testcase"):
            kinds = {child.tag for child in case}
            if kinds & {"failure", "error"}:
                counts["failed"] += 1
            elif "skipped" not in kinds:
                counts["passed"] += 1
            elif _skipped_why(case) != NOTHING_TO_TEST:
                counts["skipped"] += 1
    return counts


def _skipped_why(case: ElementTree.Element) -> str:
    element = case.find("skipped")
    if element is None:
        return ""
    return element.get("message") or (element.text or "").strip()


def _notes(session: str, suites: t.Iterable[ElementTree.Element]) -> t.Iterator[str]:
    """Why tests left something out. In a target, a task that is skipped is a condition at work, and no test."""
    if session.startswith("integration"):
        yield from _said("SKIPPED", suites)
        return
    for suite in suites:
        for case in suite.iter("testcase"):
            why = _skipped_why(case)
            if why and why != NOTHING_TO_TEST:
                yield why


def _said(word: str, suites: t.Iterable[ElementTree.Element]) -> t.Iterator[str]:
    """Return what integration targets print behind a word in capitals."""
    for suite in suites:
        for output in suite.iter("system-out"):
            yield from re.findall(rf"{word}: ([^\"\n]+)", output.text or "")


def _parts(session: str, files: t.Iterable[str]) -> dict[str, float]:
    """Return the seconds that each part of a session took."""
    parts: dict[str, float] = {}
    for path in files:
        for case in ElementTree.parse(path).iter("testcase"):
            # the name of a target's file is the target's, and a time
            name = re.sub(r"(-\w{8})?-[^-]*\.xml$", "", os.path.basename(path))
            if session.startswith("units"):
                name = case.get("classname", "").replace(".", "/") + ".py"
            parts[name] = parts.get(name, 0) + float(case.get("time") or 0)
    return parts


def _failures(session: str, files: t.Iterable[str]) -> t.Iterator[str]:
    """Return what each test said that failed; of an integration target the last, since a rescued task looks the same."""
    if session.startswith("integration"):
        # playbooks that targets run themselves leave files without a part that ansible-test has chosen
        files = filter(re.compile(r"-\w{8}-[^-]*\.xml$").search, files)
    for path in files:
        said = []
        for case in ElementTree.parse(path).iter("testcase"):
            for element in (*case.iter("failure"), *case.iter("error")):
                words = " ".join(f"{case.get('name')}: {element.get('message') or ''} {element.text or ''}".split())
                # its end too, where a traceback says what was raised
                said.append(words if len(words) <= FAILURE else f"{words[:FAILURE // 2]} ... {words[-FAILURE // 2 :]}")
        name = os.path.basename(path)
        yield from (f"{name}: {text}" for text in (said[-1:] if session.startswith("integration") else said))


def slowest(sessions: t.Iterable[Session]) -> list[tuple[float, str]]:
    """Return the slowest parts of all sessions, and their seconds; a session without parts is one itself."""
    parts = [
        (seconds, f"{session.name}: {name}" if name else session.name)
        for session in sessions
        for name, seconds in (session.parts or {"": session.seconds}).items()
    ]
    return sorted(parts, reverse=True)[:SLOWEST]


def show(sessions: t.Iterable[Session]) -> None:
    """Print a line for each session, and what was left out below it."""
    for session in sessions:
        if session.result == "skipped":
            print(f"{session.name}: NOT RUN, {session.reason}")
            continue
        words = [", ".join(f"{count} {kind}" for kind, count in session.counts.items())]
        if session.pythons:
            words.append(f"with Python {', '.join(session.pythons)}")
        word = "ok" if session.result == SUCCESS else "FAILED"
        print(f"{session.name}: {word}, {' '.join(words)}, {session.seconds:.0f} s")
        for why, count in session.notes.items():
            print(f"    skipped {count}: {why}")
        for what in session.compared:
            print(f"    compared: {what}")


def missing(required: t.Iterable[str], sessions: t.Iterable[Session]) -> list[str]:
    """Those of the ``SESSION:PYTHON`` that did not run to their end."""
    ran = {
        f"{session.name}:{version}" for session in sessions if session.result == SUCCESS for version in session.pythons
    }
    return [wanted for wanted in required if wanted not in ran]


def main() -> int:
    """Print the summary; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", metavar="FOLDER")
    parser.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="SESSION:PYTHON",
        help="fail unless these unit tests ran and passed; may be repeated",
    )
    options = parser.parse_args()
    try:
        sessions = read(options.folder)
    except (OSError, ValueError) as error:
        print(f"no session ran: {error}", file=sys.stderr)
        return 1
    print()
    show(sessions)
    print("The slowest parts, in seconds (tests of one file run on several cores):")
    for seconds, name in slowest(sessions):
        print(f"    {seconds:7.1f}  {name}")
    for session in sessions:
        for text in session.failures[:FAILURES]:
            print(f"FAILED in {session.name}: {text}")
    absent = missing(options.require, sessions)
    for wanted in absent:
        print(f"REQUIRED, but did not run and pass: {wanted}")
    total = sum((collections.Counter(s.counts) for s in sessions), collections.Counter())
    print(f"{total['passed']} passed, {total['failed'] + len(absent)} failed, {total['skipped']} skipped")
    return 1 if absent else 0


if __name__ == "__main__":
    sys.exit(main())
