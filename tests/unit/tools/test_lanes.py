# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sessions of nox that run at the same time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.tools import lanes

NAMES = ["typing", "units-2.19", "integration-2.19", "sanity-2.21", "units-2.21", "integration-2.21"]
# It waits until the other lane has begun, says so, and writes its report.
NOX = """#!{python}
import json, os, sys, time
if sys.argv[1:] == ["--list", "--json"]:
    print(json.dumps([{{"session": name}} for name in {names}]))
    sys.exit()
path, names = sys.argv[2], sys.argv[4:]
mine = "typing" if "typing" in names else "tests"
other = "tests" if mine == "typing" else "typing"
open("{folder}/" + mine, "w").close()
deadline = time.monotonic() + 20
while not os.path.exists("{folder}/" + other) and time.monotonic() < deadline:
    time.sleep(0.01)
together = os.path.exists("{folder}/" + other)
print("ran", *names, flush=True)
failed = "{fails}" in names
sessions = [{{"name": name, "result": "success" if together else "failed"}} for name in names]
json.dump({{"result": int(not failed), "sessions": sessions}}, open(path, "w"))
sys.exit(failed)
"""


def test_integration_comes_first_and_the_newest_of_each() -> None:
    assert lanes.split(NAMES) == (
        ["integration-2.21", "integration-2.19", "units-2.21", "units-2.19"],
        ["typing", "sanity-2.21"],
    )


@pytest.mark.parametrize(("fails", "status"), [("", 0), ("sanity-2.21", 1), ("units-2.19", 1)])
def test_both_lanes_run_at_once_and_one_report_has_all(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], fails: str, status: int
) -> None:
    nox, report = tmp_path / "nox", tmp_path / "report.json"
    nox.write_text(NOX.format(python=sys.executable, names=NAMES, folder=tmp_path, fails=fails))
    nox.chmod(0o755)
    assert lanes.run(str(nox), str(report)) == status
    tests, others = lanes.split(NAMES)
    assert capfd.readouterr().out.splitlines() == ["ran " + " ".join(tests), "ran " + " ".join(others), ""]
    found = json.loads(report.read_text())
    assert found["sessions"] == [{"name": name, "result": "success"} for name in [*others, *tests]]
    assert found["result"] == 1 - status
