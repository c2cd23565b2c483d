# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs all sessions of nox in two lanes at the same time: what runs tests, and what looks at files.

    lanes.py NOX REPORT

Integration tests keep one processor busy for the most part, so they come first, and checks of files use the others
meanwhile. The output of those follows when all is done. REPORT joins the reports of both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t

# Sessions with these beginnings run tests, in this order; all others look at files.
TESTS = ("integration-", "units-")


def split(names: t.Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the sessions that run tests, the newest ansible-core first, and the others in their order."""
    tests = [name for kind in TESTS for name in reversed(names) if name.startswith(kind)]
    return tests, [name for name in names if name not in tests]


def sessions(nox: str) -> list[str]:
    """Return the names of all sessions that nox would run. Raises ``subprocess.CalledProcessError``."""
    done = subprocess.run([nox, "--list", "--json"], check=True, stdout=subprocess.PIPE, text=True)
    return [item["session"] for item in json.loads(done.stdout)]


def run(nox: str, report: str) -> int:
    """Run both lanes; return the exit status."""
    tests, others = split(sessions(nox))
    reports = [f"{report}.others", f"{report}.tests"]
    log = f"{report}.log"
    with open(log, "wb") as output:
        beside = _start(nox, others, reports[0], output)
    try:
        status = 0
        with _start(nox, tests, reports[1], None) as process:
            status = process.wait()
        status = beside.wait() or status
    finally:
        # whatever ended this process; nothing goes on without it
        beside.terminate()
        beside.wait()
        with open(log, encoding="utf-8", errors="replace") as text:
            print(text.read(), flush=True)
    _join(reports, report)
    return status


def _start(nox: str, names: list[str], report: str, output: t.Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([nox, "--report", report, "-s", *names], stdout=output, stderr=output and subprocess.STDOUT)


def _join(reports: t.Sequence[str], joined: str) -> None:
    """Write one report of all sessions; a lane that left none has run nothing."""
    found = []
    for path in filter(os.path.exists, reports):
        with open(path, encoding="utf-8") as file:
            found.append(json.load(file))
    sessions_ = [item for report in found for item in report["sessions"]]
    with open(joined, "w", encoding="utf-8") as file:
        json.dump({"result": min((report["result"] for report in found), default=0), "sessions": sessions_}, file)


def main() -> int:
    """The command line; returns the exit status."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    return run(*sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
