# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role lets through of names, of a container's output and of secrets: docs/behaviour.md, sections 8 and 10."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import typing as t
from pathlib import Path

import yaml
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan import request as _request
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.etc_files import has_reachable_resolver

_ROLE = Path(__file__).resolve().parents[3] / "roles" / "container"
# above the folder ansible_collections, wherever the tests run
_COLLECTIONS = Path(_request.__file__).parents[5]

Task = t.Dict[str, t.Any]


def tasks() -> t.Iterator[tuple[str, Task]]:
    """Every task of the role, those in blocks too, with its file."""
    for path in sorted((_ROLE / "tasks").rglob("*.yml")):
        pending = list(yaml.safe_load(path.read_text("utf-8")))
        while pending:
            task = pending.pop(0)
            for kind in ("block", "rescue", "always"):
                pending += task.get(kind, [])
            yield str(path.relative_to(_ROLE / "tasks")), task


def task_of(name: str) -> Task:
    return next(task for _path, task in tasks() if task["name"] == name)


def test_no_check_lets_a_line_end_pass() -> None:
    """$ also matches before a line end: only whole texts and beginnings are judged."""
    found = 0
    folder = Path(_request.__file__).parent
    for path in [*folder.glob("*.py"), folder.parent / "_container" / "merge.py"]:
        for pattern in re.findall(r're\.compile\(\s*rf?"(.*)"', path.read_text("utf-8")):
            found += 1
            assert not pattern.endswith("$"), (path, pattern)
    assert found > 4


def test_no_command_is_given_the_environment() -> None:
    """Every user of the node sees the arguments of its processes; test_plan.py looks at those of the plan."""
    allowed = {"__container_plan", "__container_item"}
    seen = 0
    for path, task in tasks():
        for module in ("ansible.builtin.command", "ansible.builtin.shell"):
            if module in task:
                seen += 1
                text = json.dumps(task[module])
                assert set(re.findall(r"_*container_\w+", text)) <= allowed, path
                assert "__container_plan.files" not in text, path
    assert seen > 10


def test_what_holds_the_environment_is_in_no_result() -> None:
    rendered, looked = set(), []
    for path, task in tasks():
        if task.get("register") == "__container_said":
            assert task["no_log"] is True, path
        if task.get("register") == "__container_looked":
            # the configuration has the environment, and base64 hides nothing
            looked.append(task["no_log"])
        assert "ansible.builtin.slurp" not in task, path
        plan = task.get("hypervisor.oci.oci_container_plan") or {}
        if "contents" in plan:
            rendered.add(path)
            assert task["no_log"] is True, path
    assert looked == [True]
    assert rendered == {"judge.yml", "describe.yml", "exchange_volume.yml", "watch_former.yml"}


# What a terminal obeys, from a container that ends.
_HOSTILE = "\x1b]0;pwned\x07\x9b2J\x7f\u202etxt"


def _play(*given: Task) -> list[Task]:
    return [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {"container_runtime": "runc", "container_state": "absent"},
            "tasks": list(given),
        }
    ]


def _run(tmp_path: Path, *given: Task) -> tuple[int, str]:
    path = tmp_path / "play.yml"
    path.write_text(json.dumps(_play(*given)))
    done = subprocess.run(
        # ansible-test knows no entry points
        [sys.executable, "-c", "from ansible.cli.playbook import main; main()", str(path), "-i", "localhost,", "-c", "local"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(_COLLECTIONS),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
        },
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def _check(**variables: t.Any) -> Task:
    return {
        "ansible.builtin.include_role": {"name": "hypervisor.oci.container", "tasks_from": "judge", "public": True},
        "vars": variables,
    }


def test_names_with_a_line_end(tmp_path: Path) -> None:
    cases = [
        ({"container_name": "web\n"}, "invalid container name 'web\\\\n'"),
        ({"container_log_folder": "/log\n"}, "'/log\\\\n' is not an absolute path"),
        ({"container_state_folder": "/a\x1b[2J"}, "'/a\\\\x1b[2J' is not an absolute path"),
    ]  # fmt: skip
    refused = [
        {
            "block": [_check(**{"container_name": "web", **variables})],
            "rescue": [{"ansible.builtin.debug": {"msg": f"REFUSED {number}"}}],
        }
        for number, (variables, _says) in enumerate(cases)
    ]
    _status, written = _run(tmp_path, *refused)
    for number, (_variables, says) in enumerate(cases):
        assert f"REFUSED {number}" in written, written
        assert says in written, written
    assert "\x1b" not in written


def test_what_a_container_says_is_one_visible_line(tmp_path: Path) -> None:
    """The very templates of the role, with an output of a megabyte; and a node whose resolv.conf is line ends alone."""
    message = task_of("Note what its log says")["ansible.builtin.set_fact"]["__container_last_words"]
    reason = task_of("Note the reason")["ansible.builtin.set_fact"]["__container_reason"]
    lines = [_HOSTILE, *[""] * 1000, "x" * 10**6, "the reason"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    status, written = _run(
        tmp_path,
        _check(container_name="web"),
        {
            "ansible.builtin.debug": {"msg": "SAID " + message},
            "vars": {"__container_said": {"stdout_lines": lines}},
        },
        {
            "ansible.builtin.debug": {"msg": "REASON " + reason},
            "vars": {"ansible_failed_result": {"msg": _HOSTILE * 10**5}, "ansible_failed_task": {"name": "Start"}},
        },
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert status == 0, written
    assert not has_reachable_resolver("\n" * 100_000)
    said = next(line for line in written.splitlines() if "SAID" in line)
    assert "\\\\x1b]0;pwned\\\\x07\\\\x9b2J\\\\x7f\\\\u202etxt | xxx" in said
    assert said.endswith('x | the reason"')
    assert len(said) < 10_000
    assert "REASON Start: \\\\x1b]0;pwned" in written
    assert len(written) < 150_000
    assert all(c.isprintable() or c == "\n" for c in written)
    assert after.ru_utime - before.ru_utime < 20
