#!/usr/bin/python
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_rootfs_offered
short_description: Run by the action of oci_rootfs; not for tasks
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - This module is private to the collection. Use M(hypervisor.oci.oci_rootfs), which has the same options and results.
  - The action of M(hypervisor.oci.oci_rootfs) runs it on the node for an image that the controller sends. It lacks the code
    that reads an image from a file, a web server or a registry, so that Ansible sends nodes less with every task.
extends_documentation_fragment:
  - hypervisor.oci._rootfs
  - hypervisor.oci._attributes
  - hypervisor.oci._http
  - hypervisor.oci._registry
  - hypervisor.oci._signatures
  - hypervisor.oci._verify
options:
  _offer:
    description:
      - B(Not for tasks), only the action plugin sets it.
      - A file with the documents of an image that is on the controller.
    type: str
  _upload_folder:
    description:
      - B(Not for tasks), only the action plugin sets it.
      - The folder that the controller has sent blobs to.
    type: str
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - As M(hypervisor.oci.oci_rootfs).
  platform:
    platforms: linux
    support: full
  facts:
    support: full
  action:
    support: none
  async:
    support: none
  safe_file_operations:
    support: none
    details:
      - As M(hypervisor.oci.oci_rootfs).
seealso:
  - module: hypervisor.oci.oci_rootfs
"""

EXAMPLES = r"""
---
- name: Let the action of oci_rootfs run this module
  hypervisor.oci.oci_rootfs:
    src: images/app.oci.tar
    dest: /var/lib/lxc/app/rootfs
"""

RETURN = r"""
dest:
  description: As of M(hypervisor.oci.oci_rootfs), as are all values that are not listed here.
  returned: success
  type: str
mount:
  description: As RV(hypervisor.oci.oci_rootfs#module:mount).
  returned: success
  type: dict
report:
  description: As RV(hypervisor.oci.oci_rootfs#module:report).
  returned: success
  type: dict
  contains:
    inventory:
      description: As RV(hypervisor.oci.oci_rootfs#module:report.inventory).
      type: dict
"""

import typing as t

from ..module_utils._fetch_arguments import without_secrets
from ..module_utils._provision.offered import offered
from ..module_utils._quiet_module import QuietModule
from ..module_utils._run import REQUIRED_IF, ROOTFS_ARGUMENTS, run

ARGUMENT_SPEC: dict[str, t.Any] = {**ROOTFS_ARGUMENTS, "_offer": {"type": "str"}, "_upload_folder": {"type": "str"}}


def main() -> None:
    """Run the module for an image that the controller offers."""
    module = QuietModule(
        without_secrets, argument_spec=ARGUMENT_SPEC, supports_check_mode=True, required_if=REQUIRED_IF
    )
    run(module, offered)


if __name__ == "__main__":
    main()
