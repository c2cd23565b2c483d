# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role's variables: in its specification, its defaults and its documentation alike."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.request import parse_request, variables_with
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.runtimes import OWN_VARIABLES, RUNTIMES

_ROLE = Path(__file__).resolve().parents[3] / "roles" / "container"


@pytest.fixture(name="options")
def fixture_options() -> dict[str, t.Any]:
    specs = yaml.safe_load((_ROLE / "meta/argument_specs.yml").read_text("utf-8"))
    options: dict[str, t.Any] = specs["argument_specs"]["main"]["options"]
    return options


def test_every_variable_is_documented(options: dict[str, t.Any]) -> None:
    text = (_ROLE / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(container_\w+)` \|([^|]*)\|", text, re.MULTILINE)
    assert [name for name, _default in rows] == list(options)
    for name, default in rows:
        option = options[name]
        if option.get("required"):
            assert default.strip() == "required"
        elif "default" in option:
            value = yaml.safe_load(default.strip(" `"))
            assert value == yaml.safe_load(str(option["default"])), name
        else:
            assert default.strip() == "", name


def test_defaults_are_those_of_the_specification(options: dict[str, t.Any]) -> None:
    defaults = yaml.safe_load((_ROLE / "defaults/main.yml").read_text("utf-8"))
    assert defaults == {name: option["default"] for name, option in options.items() if "default" in option}


def test_tasks_read_the_plan_alone(options: dict[str, t.Any]) -> None:
    """No task or variable of the role's own reads a variable that nothing has checked."""
    files = [path for folder in ("tasks", "vars") for path in (_ROLE / folder).rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        names = re.findall(r"(?<![\w./-])container_\w+", path.read_text("utf-8"))
        assert names == [], path
    assert options


def test_the_plan_reads_all_variables(options: dict[str, t.Any]) -> None:
    kinds = variables_with(OWN_VARIABLES)
    assert {f"container_{name}" for name in kinds} == set(options)
    required = {"name": "web", "runtime": "runc", "src": "image.tar"}
    request = parse_request(required, OWN_VARIABLES)
    own = {name for kinds_of_one in OWN_VARIABLES.values() for name in kinds_of_one}
    types = {
        "bool": "bool",
        "bool | None": "bool",
        "int": "int",
        "int | None": "int",
        "Facts": "dict",
        "Facts | None": "dict",
        "str | Facts": "raw",
        "str": "str",
        "str | None": "str",
    }
    for option_name, option in options.items():
        name = option_name.partition("_")[2]
        if name not in own and "default" in option:
            assert getattr(request, name) == option["default"], name
        wanted = types.get(kinds[name], "list")
        assert option["type"] in (wanted, "path" if wanted == "str" else wanted), name
    assert list(RUNTIMES) == options["container_runtime"]["choices"]
    assert list(RUNTIMES) == list(OWN_VARIABLES)
