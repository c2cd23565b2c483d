# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The modules ``oci_rootfs`` and ``oci_rootfs_offered``, which differ in where the image comes from.

This is the ``main`` of both, so it may end the process.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import missing_required_lib

from ._dest.reach import CHOICES, FAIL
from ._errors import MissingLibraryError, OciError
from ._fetch_arguments import FETCH_ARGUMENTS
from ._interrupt import interruptible
from ._options import SIGNATURE_ARGUMENTS, options_from
from ._provision.outcome import Outcome, VerdictRequest
from ._provision.provision import provision
from ._quiet_module import QuietModule
from ._result import bounded_warnings, to_json_safe
from ._size_arguments import MAX_SIZE_ARGUMENTS, parse_size
from ._unpack_options import UNPACK_ARGUMENTS
from ._verify_arguments import REPAIR_ARGUMENTS, VERIFY_ARGUMENTS

if t.TYPE_CHECKING:
    from ._provision.origin import Origin

ROOTFS_ARGUMENTS: dict[str, t.Any] = {
    "src": {"type": "path"},
    "dest": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "staged", "previous", "absent"], "default": "present"},
    "ref": {"type": "str"},
    "digest": {"type": "str"},
    "platform": {"type": "str"},
    "remote_src": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
    "recreate": {"type": "bool", "default": False},
    "in_use": {"type": "str", "choices": ["fail", "ignore"], "default": "fail"},
    "keep": {"type": "int", "default": 1},
    "mark_failed": {"type": "bool", "default": False},
    "reachable": {"type": "str", "choices": CHOICES, "default": FAIL},
    "policy": {"type": "dict"},
    "lock_timeout": {"type": "int", "default": 300},
    **UNPACK_ARGUMENTS,
    **MAX_SIZE_ARGUMENTS,
    "cache_dir": {"type": "path"},
    "cache_scope": {"type": "str"},
    "cache_max_size": {"type": "str", "default": "20G"},
    "cache_max_age": {"type": "int", "default": 30},
    "store_dir": {"type": "path"},
    "store_max_age": {"type": "float", "default": 7},
    **VERIFY_ARGUMENTS,
    **REPAIR_ARGUMENTS,
    "fetch": {"type": "str", "choices": ["node", "controller"]},
    **SIGNATURE_ARGUMENTS,
    **FETCH_ARGUMENTS,
}
REQUIRED_IF = [("state", "present", ["src"]), ("state", "staged", ["src"])]


def run(module: QuietModule, find_origin: t.Callable[[dict[str, t.Any]], Origin]) -> t.NoReturn:
    """Do what the module's arguments say, and end; ``find_origin`` returns where their image comes from."""
    params = module.given
    try:
        sizes = {name: parse_size(name, module.params[name]) for name in ("max_size", "cache_max_size")}
        with interruptible():
            options = options_from({**params, **sizes}, find_origin)
            outcome = provision(options, module.check_mode)
    except MissingLibraryError as error:
        module.fail_json(msg=missing_required_lib(error.library, reason=error.why), exception=error.details)
    except OciError as error:
        module.fail_json(msg=error.message)
    if not isinstance(outcome, Outcome):
        # for the action plugin, which does what is asked for and runs the module again
        if isinstance(outcome, VerdictRequest):
            module.exit_json(changed=False, _verdict_request=True)
        module.exit_json(changed=False, _upload_request=to_json_safe(outcome.to_result()))
    result = outcome.to_result()
    for warning in bounded_warnings(result.pop("warnings")):
        module.warn(warning)
    result = to_json_safe(result)
    facts = {key: result[key] for key in result if key not in ("changed", "diff")}
    if not module._diff:
        del result["diff"]
    module.exit_json(ansible_facts={"oci_rootfs": facts}, **result)
