# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans what the role ``container`` does, from its variables and what it found out. Nothing runs on the node."""

from __future__ import annotations

import base64
import binascii
import json
import re
import typing as t
from collections.abc import Mapping, Sequence

from ansible.plugins.action import ActionBase

from ..plugin_utils._container.model import ContainerError
from ..plugin_utils._container.plan import Root, plan
from ..plugin_utils._container.request import VARIABLES, parse_request
from ..plugin_utils._container.runtime import Node
from ..plugin_utils._container.runtimes import RUNTIMES

_PREFIX = "container_"
_ARGUMENTS = ("node", "root", "contents")
_SETTINGS = {
    "lxc": "lxc_settings",
    "nspawn": "nspawn_settings",
    "runc": "runtime_spec_settings",
    "crun": "runtime_spec_settings",
    "proxmox": "proxmox_settings",
}
_WORD = "|".join(sorted(VARIABLES, key=len, reverse=True))
_NAMED = re.compile(rf"(\A|\bset |\bgive |\buid_map and )({_WORD})\b(?![-/])")

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
        variables = self._variables(task_vars or {})
        args = _plain(dict(self._task.args))
        unknown = sorted(set(args) - set(_ARGUMENTS))
        if unknown:
            return {"failed": True, "msg": f"unknown argument {unknown[0]}"}
        try:
            request = parse_request(variables, RUNTIMES)
            planned = plan(request, _node(args.get("node")), _root(args.get("root")))
        except ContainerError as error:
            return {"failed": True, "msg": _with_names(error.message, variables)}
        if not args.get("contents"):
            # what holds the environment is returned to a task with no_log alone
            planned["configuration"] = None
            planned["files"] = [{key: item[key] for key in item if key != "content"} for item in planned["files"]]
        result: Args = {"changed": False, **planned}
        return result

    def _variables(self, task_vars: Args) -> Args:
        """Return the variables without their prefix; those whose value is ``omit`` are left out."""
        found = {name: task_vars[name] for name in task_vars if name.startswith(_PREFIX)}
        values = _plain(self._templar.template(found))
        return {name[len(_PREFIX) :]: value for name, value in values.items()}


def _plain(value: t.Any) -> t.Any:
    """Return JSON types of their own: Ansible's containers template their values when they are read."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(item) for item in value]
    return value


def _node(found: t.Any) -> Node | None:
    if not found:
        return None
    note = _decoded(found.get("note"))
    try:
        noted = json.loads(note) if note else {}
    except ValueError:
        noted = {}
    return Node(
        systemd=bool(found.get("systemd")),
        seccomp=bool(found.get("seccomp")),
        resolv_conf=_decoded(found.get("resolv_conf")),
        uplink=_decoded(found.get("uplink")),
        version=found.get("version") or None,
        configuration=_decoded(found.get("configuration")),
        note=noted if isinstance(noted, Mapping) else {},
    )


def _decoded(text: t.Any) -> str:
    """Return the text of a result of slurp."""
    try:
        return base64.b64decode(text or "").decode("utf-8", "surrogateescape")
    except binascii.Error:
        return ""


def _root(found: t.Any) -> Root | None:
    if not found or not found.get("result"):
        return None
    names = ("user_info", "mounts", "key")
    return Root(found["result"], **{name: found.get(name) for name in names})


def _with_names(message: str, variables: Args) -> str:
    """Return the message with the role's names of its variables."""
    settings = _SETTINGS.get(str(variables.get("runtime")), "settings")
    message = re.sub(r"\Asettings\b", settings, message)
    message = re.sub(r"\Aargv\b", "command", message)
    return _NAMED.sub(rf"\g<1>{_PREFIX}\g<2>", message)
