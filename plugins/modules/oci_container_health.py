#!/usr/bin/python
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_container_health
short_description: Run the health check of a container
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Runs a command in a container until it succeeds, fails too often, or the container ends, by Docker's rules for health
    checks. The role P(hypervisor.oci.container#role) uses it after a start.
  - A failing check is not an error of this module; its result says so.
  - When a check ends or takes too long, all processes that it has started are killed, also inside of the container.
requirements:
  - Python 3.8 or newer
extends_documentation_fragment:
  - hypervisor.oci._attributes
attributes:
  check_mode:
    support: full
    details:
      - The check is not run, and V(unknown) is returned.
  diff_mode:
    support: N/A
    details:
      - Nothing is changed.
  idempotent:
    support: full
  platform:
    platforms: linux
    support: full
  facts:
    support: none
  action:
    support: none
  async:
    support: full
  safe_file_operations:
    support: N/A
    details:
      - Nothing is written.
options:
  command:
    description:
      - The command on the node that runs the check in the container, such as C(runc exec) with its arguments.
    type: list
    elements: str
    required: true
  mark:
    description:
      - A variable that O(command) puts into the environment of the check, as V(NAME=VALUE), which no other process of the node
        has. By it the processes are found that the check has left behind, and killed.
    type: str
    required: true
  input:
    description:
      - What the command reads from its standard input.
    type: str
    default: ""
  status:
    description:
      - A command that says whether the container runs. By default, it is not looked at.
    type: list
    elements: str
    default: []
  running:
    description:
      - Lines, one of which O(status) prints if the container runs.
    type: list
    elements: str
    default: []
  interval:
    description:
      - Seconds between two checks. A failure counts once in each interval.
    type: float
    default: 30
  timeout:
    description:
      - Seconds that a check may take. One that takes longer has failed.
    type: float
    default: 30
  start_period:
    description:
      - Seconds after the start in which failures do not count. A success ends it.
    type: float
    default: 0
  start_interval:
    description:
      - Seconds between two checks until the first verdict, if they are fewer than O(interval).
    type: float
    default: 5
  retries:
    description:
      - How many failures in a row make a container unhealthy.
    type: int
    default: 3
  age:
    description:
      - Seconds since the container was started.
    type: float
    default: 0
  wait:
    description:
      - Seconds since the start after which the module does not wait any more. With V(0) it checks once.
    type: float
    default: 0
seealso:
  - module: hypervisor.oci.oci_rootfs
"""

EXAMPLES = r"""
---
- name: Wait until the first process of a container of runc is there
  hypervisor.oci.oci_container_health:
    command: [runc, exec, --env, CHECK=web, web, /bin/sh, -c, "kill -0 1"]
    mark: CHECK=web
    interval: 5
    wait: 60
  register: web
  failed_when: web.health.status != 'healthy'
"""

RETURN = r"""
health:
  description: What the checks have shown.
  returned: success
  type: dict
  contains:
    status:
      description:
        - V(healthy) or V(unhealthy); V(ended) if the container has ended; V(starting) if O(wait) was over before; V(unknown) in
          check mode.
        - With O(wait=0), V(unhealthy) after one failure.
      type: str
      sample: healthy
    summary:
      description: The same in a sentence, with the end of what the last check wrote, made visible.
      type: str
      sample: it is healthy
    failing_streak:
      description: How many failures in a row have counted.
      type: int
    checks:
      description: How many checks were run.
      type: int
    log:
      description: The latest checks, five at most.
      type: list
      elements: dict
      contains:
        exit_status:
          description: The exit status. Null if the check took too long.
          type: int
        output:
          description: The end of its output, 4 KiB at most, as the container wrote it.
          type: str
        seconds:
          description: How long it took.
          type: float
"""

import subprocess
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._container.health import STARTING, UNHEALTHY, Health, Timing, watch
from ..module_utils._container.probing import Command, run_probe
from ..module_utils._errors import OciError, RootfsError, os_phrase, show
from ..module_utils._interrupt import interruptible
from ..module_utils._result import to_json_safe

ARGUMENT_SPEC: dict[str, t.Any] = {
    "command": {"type": "list", "elements": "str", "required": True},
    "mark": {"type": "str", "required": True},
    "input": {"type": "str", "default": "", "no_log": True},
    "status": {"type": "list", "elements": "str", "default": []},
    "running": {"type": "list", "elements": "str", "default": []},
    "interval": {"type": "float", "default": 30},
    "timeout": {"type": "float", "default": 30},
    "start_period": {"type": "float", "default": 0},
    "start_interval": {"type": "float", "default": 5},
    "retries": {"type": "int", "default": 3},
    "age": {"type": "float", "default": 0},
    "wait": {"type": "float", "default": 0},
}
_STATUS_SECONDS = 30
_DAY = 86_400.0
_POSITIVE = ("interval", "timeout", "start_interval")


class _Clock:
    """The monotonic clock."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def check_health(params: dict[str, t.Any]) -> Health:
    """Return what the checks show. Raises ``OciError``."""
    _require_sane(params)
    timing = Timing(
        **{name: params[name] for name in ("interval", "timeout", "start_period", "start_interval", "retries")}
    )
    health = Health(timing, time.monotonic() - params["age"])
    command = Command(tuple(params["command"]), params["mark"], params["input"])

    def is_running() -> bool:
        return not params["status"] or not set(params["running"]).isdisjoint(_lines_of(params["status"]))

    found = watch(health, params["wait"], _Clock(), lambda limit: run_probe(command, limit), is_running)
    if not params["wait"] and found.status == STARTING:
        found.status, found.streak = UNHEALTHY, max(found.streak, 1)
    return found


def _require_sane(params: dict[str, t.Any]) -> None:
    for name in _POSITIVE:
        if not 0 < params[name] <= _DAY:
            raise OciError(f"{name} is {params[name]:g}; give seconds above 0, at most those of a day")
    for name in ("start_period", "age", "wait"):
        if not 0 <= params[name] < float("inf"):
            raise OciError(f"{name} is {params[name]:g}; give 0 or more seconds")
    if params["retries"] < 1:
        raise OciError(f"retries is {params['retries']}; give 1 or more")
    name, equals, value = params["mark"].partition("=")
    if not (name and equals and value):
        # with an empty mark, every process of the node would be killed
        raise OciError(f"mark is {show(params['mark'])}; give a variable as NAME=VALUE")
    if not params["command"]:
        raise OciError("command is empty; give the program that runs the check")


def _lines_of(argv: list[str]) -> list[str]:
    try:
        # run_command has no limit of time
        ran = subprocess.run(  # pylint: disable=ansible-bad-function
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_STATUS_SECONDS, check=False
        )
    except OSError as error:
        raise RootfsError(f"the container's status cannot be asked for: {show(argv[0])}: {os_phrase(error)}") from error
    except subprocess.TimeoutExpired:
        raise RootfsError(
            f"the container's status cannot be asked for: {show(argv[0])} took more than {_STATUS_SECONDS} seconds"
        ) from None
    return ran.stdout.decode("utf-8", "replace").splitlines()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    if module.check_mode:
        module.exit_json(
            changed=False,
            health={"status": "unknown", "failing_streak": 0, "checks": 0, "log": [], "summary": "it was not checked"},
        )
    try:
        with interruptible("nothing of the check goes on"):
            found = check_health(module.params)
    except OciError as error:
        module.fail_json(msg=error.message)
    module.exit_json(changed=False, health=to_json_safe(found.to_result()))


if __name__ == "__main__":
    main()
