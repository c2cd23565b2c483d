# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What counts as a false finding of real software, and that a step which did nothing is told (docs/behaviour.md, section 17)."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.drift import run, steps
from ansible_collections.hypervisor.oci.tests.drift.software import ALL, Software

DATABASE = Software("database", (), (), "true", "true", "true", data={"/var/lib/db/**": "the data"}, volumes=("/srv",))
PLACE = ("tree", "start", "content")


def drift(**kinds: list[str]) -> dict[str, t.Any]:
    """What the module tells, with these paths of each kind."""
    told = {kind: kinds.get(kind, []) for kind in ("missing", "extra", "changed")}
    return {
        "verdict": "drifted",
        "reason": None,
        "suspects": {"count": 3},
        "busy": {"count": 1},
        **{kind: {"count": len(paths), "files": [{"path": path} for path in paths]} for kind, paths in told.items()},
    }


def test_data_is_told_apart() -> None:
    """What lies at a place of the software's data is data, whatever became of it; all else is false."""
    found = run.judge(
        drift(extra=["/var/lib/db/1", "/var/lib/dbx"], changed=["/etc/passwd"], missing=["/var/lib/db"]),
        DATABASE,
        PLACE,
        1.0,
    )
    assert found.false == ("extra /var/lib/dbx", "changed /etc/passwd")
    assert found.data == ("missing /var/lib/db", "extra /var/lib/db/1")
    assert (found.suspects, found.busy, found.level) == (3, 1, "content")


def test_what_was_not_compared_is_an_error() -> None:
    """Neither a verdict without a comparison nor findings that were not shown pass for none."""
    with pytest.raises(RuntimeError, match="no layers"):
        run.judge({**drift(), "reason": "no layers"}, DATABASE, PLACE, 1.0)
    cut = drift(extra=["/var/lib/db/1"])
    cut["extra"]["count"] = 2_000
    with pytest.raises(RuntimeError, match="not all are told"):
        run.judge(cut, DATABASE, PLACE, 1.0)


def test_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    """False findings and software that did not run fail, data does not."""
    told = run.Told()
    told.tell(run.judge(drift(extra=["/var/lib/db/1"]), DATABASE, PLACE, 1.0))
    assert told.end() == 0
    for _twice in range(2):
        told.tell(run.judge(drift(extra=["/etc/x"]), DATABASE, PLACE, 1.0))
    assert told.end() == 1
    assert "1 false findings, 0 that could not be tried" in capsys.readouterr().out
    told = run.Told()
    told.fail(DATABASE, "tree", RuntimeError("it does not start"))
    assert told.end() == 1


class _Container:
    def __init__(self, root: Path) -> None:
        self.root = str(root)


def test_steps_that_touch_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but volumes, links and mounts; a step that touches next to nothing is an error."""
    for name in ("etc/a", "srv/volume"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link").symlink_to("etc/a")
    subject = steps.Subject(DATABASE, t.cast(t.Any, None), t.cast(t.Any, _Container(tmp_path)), "")
    seen: list[str] = []

    def note(path: str, _status: os.stat_result) -> None:
        seen.append(os.path.relpath(path, tmp_path))

    with pytest.raises(RuntimeError, match="only 2 files"):
        subject.touch(note)
    assert seen == ["etc", "etc/a"]
    monkeypatch.setattr(steps, "_LEAST", 2)
    os.utime(tmp_path / "etc/a", (10, 10**9))
    steps.STEPS["touched by a clock set back"](subject)
    assert (tmp_path / "etc/a").stat().st_mtime == 10**9 - 86_400


def test_data_has_a_place_in_var_lib() -> None:
    """No software of the check calls anything else its data: /etc and /usr are judged."""
    for software in ALL:
        assert all(
            pattern.startswith("/var/lib/") and pattern.count("/") > 3 for pattern in software.data
        ), software.name
