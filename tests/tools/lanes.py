# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs all sessions of nox in two lanes at the same time: integration tests, and all others.

    lanes.py REPORT NOX...

Integration tests wait for the most part, and take the longest. Beside them, checks of files run, and then unit tests. The
output of those follows when all is done. REPORT joins the reports of both. NOX is the command that runs nox, with the sandbox
around it: each lane has one of its own, since containers of the one would hold mounts of the other.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import types
import typing as t

INTEGRATION, UNITS = "integration-", "units-"
# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1


def split(names: t.Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the sessions of integration tests, and the others with unit tests at the end; the newest ansible-core first."""
    integration, units = ([name for name in reversed(names) if name.startswith(kind)] for kind in (INTEGRATION, UNITS))
    files = [name for name in names if name not in (*integration, *units)]
    return integration, [*files, *units]


def sessions(nox: t.Sequence[str]) -> list[str]:
    """Return the names of all sessions that nox would run. Raises ``subprocess.CalledProcessError``."""
    done = subprocess.run([*nox, "--list", "--json"], check=True, stdout=subprocess.PIPE, text=True)
    return [item["session"] for item in json.loads(done.stdout)]


def run(report: str, nox: t.Sequence[str]) -> int:
    """Run both lanes; return the exit status."""
    lanes = split(sessions(nox))
    paths = [f"{report}.integration", f"{report}.others"]
    log = f"{report}.log"
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with open(log, "wb") as output:
            for names, path, stream in zip(lanes, paths, (None, output)):
                processes.append(_start(nox, names, path, stream))
        statuses = [process.wait() for process in processes]
    finally:
        # whatever ended this process; nothing goes on without it
        for process in processes:
            process.terminate()
            process.wait()
        with open(log, encoding="utf-8", errors="replace") as text:
            print(text.read(), flush=True)
    _join(paths, report)
    return next(filter(None, statuses), 0)


def _start(nox: t.Sequence[str], names: list[str], report: str, output: t.Any) -> subprocess.Popen[bytes]:
    command = [*nox, "--report", report, "-s", *names]
    return subprocess.Popen(command, stdout=output, stderr=output and subprocess.STDOUT, preexec_fn=_end_with_parent)


def _end_with_parent() -> None:
    """Be killed when the process that has started this one ends; only Linux can."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _join(reports: t.Sequence[str], joined: str) -> None:
    """Write one report of all sessions; a lane that left none has run nothing."""
    found = []
    for path in filter(os.path.exists, reports):
        with open(path, encoding="utf-8") as file:
            found.append(json.load(file))
    sessions_ = [item for report in found for item in report["sessions"]]
    with open(joined, "w", encoding="utf-8") as file:
        json.dump({"result": min((report["result"] for report in found), default=0), "sessions": sessions_}, file)


def _exit(number: int, _frame: types.FrameType | None) -> t.NoReturn:
    sys.exit(128 + number)


def main() -> int:
    """The command line; returns the exit status."""
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)
    return run(sys.argv[1], sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
