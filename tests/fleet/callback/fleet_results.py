# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes one line of JSON for each result, with the times at which its task began and ended on that host."""

from __future__ import annotations

import json
import os
import time
import typing as t

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: fleet_results
type: notification
short_description: Writes results as lines of JSON, for the tests of a fleet
description:
  - Appends to the file that the environment variable E(FLEET_RESULTS) names.
author:
  - the hypervisor.oci authors (@hypervisor-oci)
"""


class CallbackModule(CallbackBase):
    """Every result of every host."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "fleet_results"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: t.Any, **options: t.Any) -> None:
        super().__init__(*args, **options)
        self._began: dict[tuple[str, str], float] = {}

    def v2_runner_on_start(self, host: t.Any, task: t.Any) -> None:
        """A worker takes up a task for a host."""
        self._began[(host.get_name(), task._uuid)] = time.time()

    def v2_runner_on_ok(self, result: t.Any) -> None:
        """It went well."""
        self._write(result, "ok")

    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        """It failed."""
        del ignore_errors
        self._write(result, "failed")

    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        """The connection broke, or was never there."""
        self._write(result, "unreachable")

    def v2_runner_on_skipped(self, result: t.Any) -> None:
        """It was not to run there."""
        self._write(result, "skipped")

    def _write(self, result: t.Any, status: str) -> None:
        host, task = result._host.get_name(), result._task
        now = time.time()
        line = {
            "host": host,
            "task": task.get_name(),
            "status": status,
            "began": self._began.get((host, task._uuid), now),
            "ended": now,
            "result": result._result,
        }
        text = json.dumps(line, default=str) + "\n"
        with open(os.environ["FLEET_RESULTS"], "a", encoding="utf-8") as file:
            file.write(text)
