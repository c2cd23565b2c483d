# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module that runs a container's health check (docs/behaviour.md, section 15)."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.hypervisor.oci.plugins.modules import oci_container_health
from ansible_collections.hypervisor.oci.tests.unit.support import give

MARK = "CHECK_OF_A_TEST=module"


class Module:
    """Runs the module in this process, with a command of the node that needs no container."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, script: str, **params: t.Any) -> t.Any:
        """Return the health, or the message of an error."""
        command = ["env", MARK, "sh", "-c", script]
        give(self._monkeypatch, {"command": command, "mark": MARK, "interval": 0.2, "timeout": 5, **params})
        with pytest.raises(SystemExit):
            oci_container_health.main()
        result: dict[str, t.Any] = json.loads(self._capfd.readouterr().out)
        assert result.get("changed", False) is False
        return result["msg"] if "msg" in result else result["health"]


@pytest.fixture(name="module")
def fixture_module(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Module:
    """See ``Module``."""
    return Module(monkeypatch, capfd)


def test_what_is_returned_is_documented(module: Module) -> None:
    documented = yaml.safe_load(oci_container_health.RETURN)["health"]["contains"]
    found = module("true")
    assert set(found) == set(documented)
    assert set(found["log"][0]) == set(documented["log"]["contains"])
    assert set(module("true", _ansible_check_mode=True)) == set(documented)
    options = yaml.safe_load(oci_container_health.DOCUMENTATION)["options"]
    assert {name: value.get("default") for name, value in options.items()} == {
        name: spec.get("default") for name, spec in oci_container_health.ARGUMENT_SPEC.items()
    }


def test_once(module: Module) -> None:
    assert module("echo well")["status"] == "healthy"
    found = module("echo no; exit 3")
    assert (found["status"], found["failing_streak"], found["checks"]) == ("unhealthy", 1, 1)
    assert found["log"][0]["exit_status"] == 3
    assert found["summary"].endswith("the last check ended with 3 and said: no")


def test_until_it_is_healthy(module: Module, tmp_path: Path) -> None:
    count = tmp_path / "count"
    found = module(f"echo >>{count}; [ $(wc -l <{count}) = 3 ]", wait=20, start_period=20, start_interval=0.1)
    assert (found["status"], found["checks"]) == ("healthy", 3)


def test_until_it_is_unhealthy(module: Module) -> None:
    found = module("exit 1", wait=20, start_interval=0.05, retries=2)
    assert (found["status"], found["failing_streak"]) == ("unhealthy", 2)


def test_until_it_ends(module: Module, tmp_path: Path) -> None:
    status = ["sh", "-c", f"[ -e {tmp_path}/ended ] || echo running"]
    found = module(
        f"touch {tmp_path}/ended; exit 1",
        status=status,
        running=["other", "running"],
        wait=20,
        start_interval=0.1,
        retries=9,
    )
    assert (found["status"], found["checks"]) == ("ended", 1)


def test_until_the_wait_is_over(module: Module) -> None:
    assert module("exit 1", wait=0.5, start_period=60, start_interval=0.1)["status"] == "starting"


def test_what_was_written_is_json(module: Module) -> None:
    assert module("printf '\\377\\033[2J'")["log"][0]["output"] == "\ufffd\x1b[2J"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"interval": 0}, "interval is 0; give seconds above 0"),
        ({"timeout": -1}, "timeout is -1; give seconds above 0"),
        ({"interval": "nan"}, "interval is nan; give seconds above 0"),
        ({"wait": "inf"}, "wait is inf; give 0 or more seconds"),
        ({"retries": 0}, "retries is 0; give 1 or more"),
        ({"mark": ""}, "mark is ''; give a variable as NAME=VALUE"),
        ({"mark": "NAME="}, "mark is 'NAME='; give a variable as NAME=VALUE"),
        ({"status": ["/no/such/program"]}, "the container's status cannot be asked for: '/no/such/program'"),
        ({"command": ["/no/such/program"]}, "the health check cannot be run: '/no/such/program'"),
    ],
)
def test_what_cannot_be(module: Module, params: dict[str, t.Any], message: str) -> None:
    assert module("true", **params).startswith(message)
