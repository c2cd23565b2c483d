# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: lab
short_description: Root on a node of the connection plugin of the same name
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Marks a command, which that connection then runs as root.
options:
  become_user:
    description: Always root.
    default: root
    vars:
      - name: ansible_become_user
    keyword:
      - name: become_user
  become_exe:
    description: Not used.
    default: ""
  become_flags:
    description: Not used.
    default: ""
  become_pass:
    description: Not used.
"""

from ansible.plugins.become import BecomeBase


class BecomeModule(BecomeBase):
    """Puts a mark before the command."""

    name = "lab"

    def build_become_command(self, cmd: str, shell: object) -> str:
        """The command, marked."""
        super().build_become_command(cmd, shell)
        if not cmd:
            return cmd
        return f": lab-become; {self._build_success_command(cmd, shell)}"
