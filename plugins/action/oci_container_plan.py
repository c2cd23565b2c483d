# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans what the role ``container`` does, from its variables and what it found out. Nothing runs on the node."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping, Sequence

from ansible.plugins.action import ActionBase

from ..plugin_utils._container.model import ContainerError
from ..plugin_utils._plan.known import Root
from ..plugin_utils._plan.look import parse_look
from ..plugin_utils._plan.plan import plan
from ..plugin_utils._plan.request import PREFIX, parse_request, variables_with
from ..plugin_utils._plan.runtimes import OWN_VARIABLES, RUNTIMES

_ARGUMENTS = ("node", "root", "contents")

Args = t.Dict[str, t.Any]


class ActionModule(ActionBase):
    """Reads the variables ``container_…`` itself, so that none is overlooked."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Any = None, task_vars: Args | None = None) -> Args:
        super().run(tmp, task_vars)
        del tmp
        args = _plain(dict(self._task.args))
        unknown = sorted(set(args) - set(_ARGUMENTS))
        if unknown:
            return {"failed": True, "msg": f"unknown argument {unknown[0]}"}
        variables = self._variables(task_vars or {})
        try:
            request = parse_request(variables, OWN_VARIABLES)
            looked = args.get("node")
            planned = plan(request, None if looked is None else parse_look(str(looked)), _root(args.get("root")))
        except ContainerError as error:
            return {"failed": True, "msg": _in_role(error, variables)}
        result: Args = {"changed": False, **planned.as_result(bool(args.get("contents")))}
        return result

    def _variables(self, task_vars: Args) -> Args:
        """Return the variables without their prefix; those whose value is ``omit`` are left out."""
        found = {name: task_vars[name] for name in task_vars if name.startswith(PREFIX)}
        values = _plain(self._templar.template(found))
        return {name[len(PREFIX) :]: value for name, value in values.items()}


def _in_role(error: ContainerError, variables: Args) -> str:
    """Return the message with the role's names of its variables."""
    runtime = RUNTIMES.get(str(variables.get("runtime")))
    names = variables_with(OWN_VARIABLES)

    def name(option: str) -> str:
        head = option.partition(".")[0].partition("[")[0]
        rest = option[len(head) :]
        if head == "settings" and runtime is not None:
            head = runtime.settings
        return f"{PREFIX}{head}{rest}" if head in names else option

    return error.named(name)


def _plain(value: t.Any) -> t.Any:
    """Return plain JSON types: Ansible's own containers template their values when they are read."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(item) for item in value]
    return value


def _root(found: t.Any) -> Root | None:
    if not found or not found.get("result"):
        return None
    return Root(
        found["result"],
        user_info=found.get("user_info") or None,
        mounts=found.get("mounts"),
        key=found.get("key") or None,
    )
