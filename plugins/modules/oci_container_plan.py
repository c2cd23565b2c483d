#!/usr/bin/python
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_container_plan
short_description: Plan what the role container does
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Checks the variables of the role P(hypervisor.oci.container#role), and returns the role's plan, as far as it is known. Nothing runs
    on the node.
  - It reads every variable whose name begins with C(container_), and fails for one that the role does not have.
extends_documentation_fragment:
  - hypervisor.oci._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
  platform:
    platforms: linux
    support: full
  facts:
    support: none
  action:
    support: full
  async:
    support: none
  safe_file_operations:
    support: N/A
options:
  node:
    description:
      - The output of the command that the plan has for looking at the node. Without it, only the variables are checked.
    type: str
  root:
    description:
      - The result of M(hypervisor.oci.oci_rootfs), and what was found in the tree.
    type: dict
  contents:
    description:
      - Whether to return contents of files and arguments, which may hold passwords and the environment. Use it with C(no_log) only.
    type: bool
    default: false
seealso:
  - module: hypervisor.oci.oci_rootfs
  - module: hypervisor.oci.oci_container_files
"""

EXAMPLES = r"""
---
- name: Check the variables of the role
  hypervisor.oci.oci_container_plan:
  register: plan
"""

RETURN = r"""
places:
  description: The paths of the container's files.
  returned: success
  type: dict
files:
  description: The files that describe the container, as M(hypervisor.oci.oci_container_files) takes them.
  returned: success
  type: list
  elements: dict
service:
  description: The commands that start and stop the container. It is V(none) until the node is known.
  returned: success
  type: dict
"""
