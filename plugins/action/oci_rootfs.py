# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's half of C(oci_rootfs): brings the image to the node, and runs the module there."""

from __future__ import annotations

import os
import stat
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

_NEEDS_SRC = ("present", "staged")


class ActionModule(ActionBase):
    """Sends an archive as a file, or a layout directory as its files, unless it is on the node already."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_async = True

    def run(
        self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        del tmp
        args = dict(self._task.args)
        source = args.get("src")
        wanted = args.get("state", "present") in _NEEDS_SRC
        sends = (
            source
            and wanted
            and not boolean(args.get("remote_src", False), strict=False)
        )
        if sends and self._task.async_val:
            raise AnsibleActionFail(
                "async cannot send src from the controller; copy it to the node first and set remote_src: true"
            )
        try:
            if sends:
                args["src"] = self._send(str(source))
            return self._execute_module(
                module_name="hypervisor.oci.oci_rootfs",
                module_args=args,
                task_vars=task_vars or {},
                wrap_async=self._task.async_val,
            )
        finally:
            if not self._task.async_val:
                self._remove_tmp_path(self._connection._shell.tmpdir)

    def _send(self, source: str) -> str:
        """Bring the image into the task's own folder on the node; returns its path there."""
        found = self._find_needle("files", os.path.expanduser(source))
        shell = self._connection._shell
        if not shell.tmpdir:
            self._make_tmp_path()
        remote = shell.join_path(shell.tmpdir, "image")
        if not os.path.isdir(found):
            self._transfer_file(self._loader.get_real_file(found), remote)
            self._fixup_perms2((shell.tmpdir, remote))
            return remote
        files = sorted(_regular_files(found))
        folders = sorted({os.path.dirname(name) for name in files} | {""})
        paths = [shell.join_path(remote, name) if name else remote for name in folders]
        made = self._low_level_execute_command(
            "mkdir -p " + " ".join(map(shell.quote, paths)), sudoable=False
        )
        if made["rc"] != 0:
            raise AnsibleActionFail(
                f"the folder for the image cannot be made on the node: {made['stderr']}"
            )
        for name in files:
            target = shell.join_path(remote, name)
            self._transfer_file(os.path.join(found, name), target)
            paths.append(target)
        self._fixup_perms2([shell.tmpdir, *paths])
        return remote


def _regular_files(top: str) -> t.Iterator[str]:
    """The files of a layout directory, relative to it; links are followed, other things left out."""
    for folder, _folders, names in os.walk(top, followlinks=False):
        for name in names:
            path = os.path.join(folder, name)
            try:
                status = os.stat(path)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                yield os.path.relpath(path, top)
