# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the last lines of a run of the checks say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.tools import summary

TARGET = """<testsuites><testsuite>
<testcase name="a" classname="x" time="2"/>
<testcase name="b" classname="x" time="1"><skipped type="skipped" message="Conditional result was False"/></testcase>
<testcase name="c" classname="x" time="1"><system-out>"msg": "SKIPPED: no xfs here"
"msg": "COMPARED: 16 published images with the trees of umoci and buildah"</system-out></testcase>
</testsuite></testsuites>"""
UNITS = """<testsuites><testsuite>
<testcase name="a" classname="tests.unit.test_x" time="2"/>
<testcase name="b" classname="tests.unit.test_x"><skipped message="only root may mount"/></testcase>
<testcase name="c" classname="tests.unit.test_y"><skipped message="only root may mount"/></testcase>
</testsuite></testsuites>"""

FAILED = """<testsuites><testsuite>
<testcase name="rescued" classname="x"><failure message="on purpose"/></testcase>
<testcase name="asked" classname="x"><failure message="no answer">line
%s ValueError: in the end</failure></testcase>
</testsuite></testsuites>"""


def results(folder: Path, sessions: dict[str, dict[str, str]]) -> Path:
    """A folder as a run leaves it: files by session."""
    items = [{"name": name, "result": "success", "reason": "", "duration": 7.0} for name in sessions]
    (folder / "report.json").write_text(json.dumps({"sessions": items}))
    for name, files in sessions.items():
        for file, text in files.items():
            (folder / name).mkdir(exist_ok=True)
            (folder / name / file).write_text(text)
    return folder


def test_a_target_says_itself_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A task whose condition did not hold is nothing that was left out."""
    folder = results(tmp_path, {"integration-2.21": {"disks-abcdefgh-20261129.xml": TARGET}})
    summary.show(summary.read(str(folder)))
    assert capsys.readouterr().out.splitlines() == [
        "integration-2.21: ok, 1 passed, 7 s",
        "    skipped 1: no xfs here",
        "    compared: 16 published images with the trees of umoci and buildah",
    ]


def test_skipped_tests_are_counted_by_their_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = results(tmp_path, {"units-2.21": {"python3.13-modules-units.xml": UNITS}})
    sessions = summary.read(str(folder))
    summary.show(sessions)
    assert capsys.readouterr().out.splitlines() == [
        "units-2.21: ok, 1 passed, 2 skipped with Python 3.13, 7 s",
        "    skipped 2: only root may mount",
    ]
    assert summary.slowest(sessions) == [
        (2.0, "units-2.21: tests/unit/test_x.py"),
        (0.0, "units-2.21: tests/unit/test_y.py"),
    ]
    assert summary.missing(["units-2.21:3.13", "units-2.19:3.8"], sessions) == ["units-2.19:3.8"]


def test_a_session_that_failed_shows_what_its_tests_said(tmp_path: Path) -> None:
    """The last of a target, since a task that was rescued looks the same; and of long words both ends."""
    text = FAILED % ("x" * summary.FAILURE)
    nested = {"container-1795962627.45.xml": text}
    sessions = {
        "integration-2.21": {"disks-abcdefgh-20261129.xml": text, **nested},
        "units-2.21": {"python3.13-units.xml": text},
    }
    folder = results(tmp_path, sessions)
    assert [session.failures for session in summary.read(str(folder))] == [(), ()]
    report = folder / "report.json"
    report.write_text(report.read_text().replace('"success"', '"failed"'))
    target, units = (session.failures for session in summary.read(str(folder)))
    (last,) = target
    assert last.startswith("disks-abcdefgh-20261129.xml: asked: no answer line xx") and "... x" in last
    assert last.endswith("ValueError: in the end") and len(last) < 2 * summary.FAILURE
    assert [text.split(": ")[1] for text in units] == ["rescued", "asked"]
