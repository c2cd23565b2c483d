# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Root file systems of the images as the module makes them: a tree of its own, an overlay, a snapshot of btrfs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import typing as t

from ansible_collections.hypervisor.oci.plugins.modules import oci_rootfs
from ansible_collections.hypervisor.oci.tests.bench.filesystem import Btrfs, unmount
from ansible_collections.hypervisor.oci.tests.tools.removal import made_folder

TREE, OVERLAY, BTRFS = "tree", "overlay", "btrfs"
WAYS = (TREE, OVERLAY, BTRFS)
_PATIENCE = 900
_FINISHED = re.compile(r'"finished": (\d+)')
_DAY = 86_400 * 10**9


class Rootfs:
    """A root file system; ``path`` is what a runtime is given, which with an overlay is where that is mounted."""

    def __init__(self, folder: str, src: str, way: str) -> None:
        """Provision it in ``folder``. Raises ``RuntimeError``."""
        self._dest = os.path.join(folder, "guest", "rootfs")
        self._arguments = {"src": src, "dest": self._dest, "remote_src": True}
        if way != TREE:
            self._arguments["store_dir"] = os.path.join(folder, "store")
        result = self._run_module()
        if result.get("store") != (None if way == TREE else way):
            raise RuntimeError(f"not what was asked for: {way}, but {result.get('store')}")
        self.path = self._dest
        if result["mount"]:
            self.path = os.path.join(folder, "mounted")
            os.mkdir(self.path)
            mount = result["mount"]
            subprocess.run(["mount", "-t", mount["fstype"], "-o", mount["opts"], mount["src"], self.path], check=True)

    def verify(self, level: str) -> dict[str, t.Any]:
        """Return ``drift``. Raises ``RuntimeError``."""
        drift: dict[str, t.Any] = self._run_module(verify=level)["drift"]
        return drift

    def as_unpacked_by_a_clock_ahead(self) -> None:
        """Let the record say that the tree was finished tomorrow, as if the node's clock had been set back since."""
        above, name = os.path.split(self._dest)
        path = os.path.join(above, f".{name}.oci_rootfs", "record.json")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        text, count = _FINISHED.subn(lambda found: f'"finished": {int(found[1]) + _DAY}', text)
        if not count:
            raise RuntimeError(f"{path} does not say when the tree was finished")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def release(self) -> None:
        """Unmount it."""
        if self.path != self._dest:
            unmount(self.path)

    def _run_module(self, **more: t.Any) -> dict[str, t.Any]:
        done = subprocess.run(
            [sys.executable, "-m", oci_rootfs.__name__],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": {**self._arguments, **more}}),
            capture_output=True,
            check=False,
            text=True,
            timeout=_PATIENCE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        lines = done.stdout.splitlines()
        result: dict[str, t.Any] = json.loads(lines[-1]) if lines else {"failed": True, "msg": done.stderr}
        if result.get("failed"):
            raise RuntimeError(str(result["msg"])[-2000:])
        return result


@contextlib.contextmanager
def provisioned(folder: str, src: str, way: str) -> t.Iterator[Rootfs]:
    """Provision an image in a folder below ``folder``, and remove it at the end. Raises ``RuntimeError``."""
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(made_folder("rootfs-", folder))
        if way == BTRFS:
            own = stack.enter_context(Btrfs(own).fresh())
        rootfs = Rootfs(own, src, way)
        stack.callback(rootfs.release)
        yield rootfs
