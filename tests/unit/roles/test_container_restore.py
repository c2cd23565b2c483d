# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Roll back: docs/behaviour.md, section 10."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

_ROLE = Path(__file__).resolve().parents[3] / "roles" / "container"
# of the former container; asked for the first time, it fails
_CONTROL = """\
#!/bin/sh
echo "$1" >>{folder}/asked
case $1 in
    start) touch {folder}/started ;;
    status)
        [ -e {folder}/started ] || { echo 'broken status' >&2; exit 9; }
        echo running
        ;;
    stop) exit 3 ;;
esac
"""
_FAILING_LOOP: dict[str, t.Any] = {
    "name": "Do several things",
    "ansible.builtin.fail": {"msg": "the reason of {{ item }}"},
    "when": "item == 'two'",
    "loop": ["one", "two", "three"],
}
_FAILING_COMMAND: dict[str, t.Any] = {
    "name": "Do one thing",
    "ansible.builtin.command": {"argv": ["sh", "-c", "echo 'the reason of a command' >&2; exit 4"]},
}


def _play(folder: Path, failing: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    control = str(folder / "control")
    pattern = r"\Arunning$"
    service = {
        "kind": "script",
        "start": [[control, "start"]],
        "running": pattern,
        "stays": pattern,
        "status_codes": [0, 2, 3],
        **{verb: [control, verb] for verb in ("stop", "status", "log")},
    }
    variables = {
        "__container_plan": {"name": "web", "is_managed": False, "start_wait": 0, "service": service},
        "__container_had_root": True,
        "__container_root": {},
        "__container_went_back": {},
        "__container_known": {},
        "__container_written": {},
        "__container_configured": False,
        "__container_enabled": False,
        "__container_was_running": True,
        "__container_stopped": True,
        "__container_last_words": "",
        "__container_not_undone": "",
        "__container_rendered": {},
        "__container_answer": "",
    }
    block = {
        "block": [{"ansible.builtin.set_fact": variables}, failing],
        "rescue": [{"ansible.builtin.include_tasks": str(_ROLE / "tasks" / "restore.yml")}],
    }
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [block]}
    return [{**play, "vars_files": [str(_ROLE / "vars" / "main.yml")]}]


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        (_FAILING_LOOP, "Do several things: the reason of two"),
        (_FAILING_COMMAND, "Do one thing: the reason of a command"),
    ],
)
def test_a_step_that_fails_does_not_keep_the_former_container_down(
    tmp_path: Path, failing: dict[str, t.Any], reason: str
) -> None:
    (tmp_path / "control").write_text(_CONTROL.replace("{folder}", str(tmp_path)))
    (tmp_path / "control").chmod(0o755)
    (tmp_path / "play.json").write_text(json.dumps(_play(tmp_path, failing)))
    # an environment of ansible-test has no entry points
    program = [sys.executable, "-c", "from ansible.cli.playbook import main; main()"]
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": __file__.partition("/ansible_collections/")[0],
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
        "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
    }
    command = [*program, "--inventory", "localhost,", str(tmp_path / "play.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    messages = re.findall(r'"msg": "(web: .*?)"', done.stdout)
    expected = f"web: {reason}; Ask whether the container runs: broken status; the former container was started again, and runs"
    assert messages == [expected], done.stdout + done.stderr
    assert (tmp_path / "asked").read_text().split() == ["status", "start", "status"]
