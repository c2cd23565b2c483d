# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: lab
short_description: A node on this machine that notes what is sent to it, and may lose its connection
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Commands run as O(user), as over ssh. With the become plugin of the same name, they run as root.
options:
  user:
    description: The number of the user who logs in; the same number is his group's.
    type: int
    default: 0
    vars:
      - name: lab_user
  disk:
    description:
      - A directory that the node has as F(/mnt), in a root directory of its own, as by C(chroot).
      - What is mounted for that is seen by the command alone, and gone with it.
    type: str
    default: ""
    vars:
      - name: lab_disk
  log:
    description: A file that gets a line for each file that is sent, its size in bytes and where it goes.
    type: str
    required: true
    vars:
      - name: lab_log
  cut:
    description: The connection is lost in the middle of the files with blobs of these numbers.
    type: list
    elements: int
    default: []
    vars:
      - name: lab_cut
  gone:
    description: The folder of the blob of this number is removed before it is sent, as another run would.
    type: int
    default: 0
    vars:
      - name: lab_gone
"""

import os
import re
import subprocess

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.connection import ConnectionBase
from ansible_collections.hypervisor.oci.tests.tools.removal import remove_below

# What the become plugin puts before a command.
MARK = ": lab-become;"
# In a mount namespace that ends with the command: nobody else can see, and so remove, what is mounted in it.
_CHROOT = """
set -e
mount --make-rprivate /
disk=$1
shift
mount -t tmpfs lab /media
mkdir /media/root /media/disk
mount --bind "$disk" /media/disk
mount --rbind / /media/root
mount --move /media/disk /media/root/mnt
exec chroot /media/root "$@"
"""
_BLOB = re.compile(r"(sha256|member|bundle)-[0-9a-f]{64}\Z")


class Connection(ConnectionBase):
    """Everything else than a real network."""

    transport = "lab"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Run a command as whoever it is for."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)  # type: ignore[safe-super]
        return self._run(["/bin/sh", "-c", cmd], MARK in cmd, in_data)

    def put_file(self, in_path: str, out_path: str) -> None:
        """Write a file as the user who logs in, and note it."""
        super().put_file(in_path, out_path)  # type: ignore[safe-super]
        with open(in_path, "rb") as file:
            data = file.read()
        number = self._number() if _BLOB.search(out_path) else 0
        cut = str(number) in map(str, self.get_option("cut"))
        if number and number == self.get_option("gone"):
            # as if another run had removed what it was sent to
            remove_below(os.path.dirname(self.get_option("log")), os.path.dirname(out_path))
        if cut:
            data = data[: len(data) // 2]
        with open(self.get_option("log"), "a", encoding="utf-8") as log:
            log.write(f"{len(data)} {out_path}\n")
        # the mode is the one of the file that is sent, as with sftp
        mode = os.stat(in_path).st_mode & 0o777
        code, _out, error = self._run(
            ["/bin/sh", "-c", 'umask 0 && cat > "$0" && chmod "$1" "$0"', out_path, f"{mode:o}"],
            False,
            data,
        )  # fmt: skip
        if code:
            raise AnsibleError(f"failed to transfer file to {out_path}: {error!r}")
        if cut:
            raise AnsibleConnectionFailure("the lab has cut the connection")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Nothing is fetched."""
        raise AnsibleError("nothing is to be fetched")

    def close(self) -> None:
        """There is nothing to close."""
        self._connected = False

    def _number(self) -> int:
        """The number that the next blob in the log would have."""
        try:
            with open(self.get_option("log"), encoding="utf-8") as log:
                return 1 + sum(bool(_BLOB.search(line.rstrip())) for line in log)
        except FileNotFoundError:
            return 1

    def _run(self, words: list[str], as_root: bool, in_data: bytes | None) -> tuple[int, bytes, bytes]:
        disk = self.get_option("disk")
        user = self.get_option("user")
        if disk:
            words = ["unshare", "--mount", "sh", "-c", _CHROOT, "sh", disk, *words]
        if user and not as_root:
            words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *words]  # fmt: skip
        done = subprocess.run(words, input=in_data, capture_output=True, check=False, cwd="/")
        return done.returncode, done.stdout, done.stderr
