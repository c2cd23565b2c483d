# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module with secrets inside of its arguments.

Ansible writes the arguments to the node's log before the module runs, and shows them with ``-vvv``. It can hide only the
whole value of an option, not a part such as a password in a URL, nor a value in a list of mappings.
"""

from __future__ import annotations

import re
import typing as t

from ansible.module_utils.basic import AnsibleModule

Params = t.Dict[str, t.Any]

# Options that only an action plugin sets come first in Ansible's list of options.
_PRIVATE = re.compile(r"(Supported parameters include: )(?:_\w+, )+")
# A task names oci_rootfs, whichever module its action runs.
_PRIVATE_NAME = re.compile(r"(\(hypervisor\.oci\.oci_rootfs)_offered(?=\) module: )")


class QuietModule(AnsibleModule):
    """A module whose ``params`` are logged and shown; ``given`` are the arguments with their secrets.

    ``hide`` returns the replacements for ``params``. It may get arguments that Ansible has not checked yet.
    """

    def __init__(self, hide: t.Callable[[Params], Params], **arguments: t.Any) -> None:
        self.given: Params = {}
        self._hide_once: t.Callable[[Params], Params] | None = hide
        super().__init__(**arguments)
        self._hide()

    def fail_json(self, msg: str, **values: t.Any) -> t.NoReturn:
        """Fail, also while Ansible checks the arguments."""
        self._hide()
        super().fail_json(_PRIVATE_NAME.sub(r"\1", _PRIVATE.sub(r"\1", msg)), **values)

    def _log_invocation(self) -> None:
        self._hide()
        super()._log_invocation()

    def _hide(self) -> None:
        hide, self._hide_once = self._hide_once, None
        if hide is not None:
            self.given = dict(self.params)
            self.params.update(hide(self.given))
