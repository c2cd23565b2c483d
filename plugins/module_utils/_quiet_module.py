# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""A module with secrets in its arguments that Ansible does not know of.

Ansible writes the arguments to the node's log before the module itself does anything, and shows them with ``-vvv``. What
it takes out is the whole value of an option: neither a part of it, such as a password in a URL, nor a value in a list of
mappings, of which it logs the representation.
"""

from __future__ import annotations

import typing as t

from ansible.module_utils.basic import AnsibleModule

Params = t.Dict[str, t.Any]


class QuietModule(AnsibleModule):
    """``given`` are the arguments as they were given, and ``params`` what is logged and shown of them.

    ``hide`` makes the one into the other. It is called before Ansible has checked them, too, where they are wrong.
    """

    def __init__(self, hide: t.Callable[[Params], Params], **arguments: t.Any) -> None:
        self.given: Params = {}
        self._hide_once: t.Callable[[Params], Params] | None = hide
        super().__init__(**arguments)
        self._hide()

    def fail_json(self, msg: str, **values: t.Any) -> t.NoReturn:
        """Fail, also while the arguments are still checked."""
        self._hide()
        super().fail_json(msg, **values)

    def _log_invocation(self) -> None:
        self._hide()
        super()._log_invocation()

    def _hide(self) -> None:
        hide, self._hide_once = self._hide_once, None
        if hide is not None:
            self.given = dict(self.params)
            self.params.update(hide(self.given))
