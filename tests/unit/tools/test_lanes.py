# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sessions of nox that run at the same time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.tools import lanes

NAMES = ["typing", "units-2.19", "integration-2.19", "sanity-2.21", "units-2.21", "integration-2.21"]
# It waits until the other lane has begun, says so, and writes its report.
NOX = """
import json, os, sys, time
if sys.argv[1:] == ["--list", "--json"]:
    print(json.dumps([{{"session": name}} for name in {names}]))
    sys.exit()
path, names = sys.argv[2], sys.argv[4:]
mine = "typing" if "typing" in names else "tests"
other = "tests" if mine == "typing" else "typing"
open("{folder}/" + mine, "w").close()
deadline = time.monotonic() + 60
while not os.path.exists("{folder}/" + other) and time.monotonic() < deadline:
    time.sleep(0.01)
together = os.path.exists("{folder}/" + other)
print("ran", *names, flush=True)
failed = "{fails}" in names
sessions = [{{"name": name, "result": "success" if together else "failed"}} for name in names]
json.dump({{"result": int(not failed), "sessions": sessions}}, open(path, "w"))
sys.exit(failed)
"""
# One lane ends it, and the other would go on for long.
ENDLESS = """
import json, os, signal, sys, time
if sys.argv[1:] == ["--list", "--json"]:
    print(json.dumps([{{"session": name}} for name in {names}]))
    sys.exit()
if "typing" in sys.argv:
    with open("{folder}/pid.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename("{folder}/pid.new", "{folder}/pid")
else:
    while not os.path.exists("{folder}/pid"):
        time.sleep(0.01)
    os.kill(os.getppid(), signal.{signal})
time.sleep(600)
"""


def test_integration_is_a_lane_of_its_own_and_the_newest_of_each_comes_first() -> None:
    assert lanes.split(NAMES) == (
        ["integration-2.21", "integration-2.19"],
        ["typing", "sanity-2.21", "units-2.21", "units-2.19"],
    )


@pytest.mark.parametrize(("fails", "status"), [("", 0), ("sanity-2.21", 1), ("units-2.19", 1), ("integration-2.21", 1)])
def test_both_lanes_run_at_once_and_one_report_has_all(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], fails: str, status: int
) -> None:
    nox, report = tmp_path / "nox.py", tmp_path / "report.json"
    nox.write_text(NOX.format(names=NAMES, folder=tmp_path, fails=fails))
    assert lanes.run(str(report), [sys.executable, str(nox)]) == status
    integration, others = lanes.split(NAMES)
    assert capfd.readouterr().out.splitlines() == ["ran " + " ".join(integration), "ran " + " ".join(others), ""]
    found = json.loads(report.read_text())
    assert found["sessions"] == [{"name": name, "result": "success"} for name in [*integration, *others]]
    assert found["result"] == 1 - status


@pytest.mark.parametrize("number", ["SIGTERM", "SIGKILL"])
def test_nothing_goes_on_when_it_is_ended(tmp_path: Path, number: str) -> None:
    nox = tmp_path / "nox.py"
    nox.write_text(ENDLESS.format(names=NAMES, folder=tmp_path, signal=number))
    command = [sys.executable, lanes.__file__, str(tmp_path / "report.json"), sys.executable, str(nox)]
    ended = subprocess.run(command, check=False, timeout=120, capture_output=True).returncode
    assert ended == (128 + signal.SIGTERM if number == "SIGTERM" else -signal.SIGKILL)
    other = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 60
    while _lives(other) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _lives(other)


def _lives(pid: int) -> bool:
    """Return whether a process is there, and no zombie that its new parent has not waited for."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
