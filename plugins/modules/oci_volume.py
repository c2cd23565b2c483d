#!/usr/bin/python
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_volume
short_description: A persistent directory for a container's volume
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Makes a directory outside of the root file system, for a container to have as a volume.
  - What the image has at that place is copied there once, with owners, modes, times, links and extended attributes, as
    users of Docker expect. Without anything there, the directory belongs to the root's owner.
  - Links in the image are followed inside of its root only. A directory that could not be filled is not left behind.
requirements:
  - Python 3.8 or newer on the node
  - C(cp) of GNU coreutils
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
    support: none
  async:
    support: full
  safe_file_operations:
    support: none
    details:
      - The module has stricter file operations of its own, by directory descriptor.
options:
  path:
    description:
      - The directory on the node, as an absolute path. Directories above it that are missing are made, the last one
        closed to other users.
    type: path
    required: true
  rootfs:
    description:
      - The root file system, as C(dest) of M(hypervisor.oci.oci_rootfs). Its container must not run meanwhile.
    type: path
    required: true
  target:
    description:
      - The absolute path inside of the container where the volume is going to be.
    type: str
    required: true
  fill:
    description:
      - V(new) copies only into a directory that this run makes. V(empty) copies into one that is there and empty, too.
    type: str
    choices: [new, empty]
    default: new
seealso:
  - module: hypervisor.oci.oci_rootfs
  - module: hypervisor.oci.oci_mount_points
"""

EXAMPLES = r"""
---
- name: Keep the data of a container
  hypervisor.oci.oci_volume:
    path: /srv/web/data
    rootfs: /var/lib/lxc/web/rootfs
    target: /var/lib/data
"""

RETURN = r"""
path:
  description: The directory, as it was given.
  returned: success
  type: str
  sample: /srv/web/data
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import (
    OciError,
    RootfsError,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._interrupt import (
    interruptible,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.volume import (
    provide_volume,
)

ARGUMENT_SPEC = {
    "path": {"type": "path", "required": True},
    "rootfs": {"type": "path", "required": True},
    "target": {"type": "str", "required": True},
    "fill": {"type": "str", "choices": ["new", "empty"], "default": "new"},
}
_PRESERVE = "--preserve=mode,ownership,timestamps,links,xattr"


def main() -> None:
    """Arguments in, one result out."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params

    def copy(source: int, target: int) -> None:
        """Both are directories that are open; nothing in them is followed."""
        status, _output, errors = module.run_command(
            [
                "cp",
                "--recursive",
                "--no-dereference",
                _PRESERVE,
                f"/proc/self/fd/{source}/.",
                f"/proc/self/fd/{target}/",
            ],
            pass_fds=(source, target),
        )
        if status:
            reason = (errors.strip() or f"status {status}").splitlines()[0]
            raise RootfsError(
                f"the volume {params['path']!r} cannot be filled from the image: {reason}"
            )

    try:
        with interruptible():
            changed = provide_volume(
                params["path"],
                params["rootfs"],
                params["target"],
                params["fill"] == "empty",
                module.check_mode,
                copy,
            )
    except OciError as error:
        module.fail_json(msg=error.message)
    module.exit_json(changed=changed, path=params["path"])


if __name__ == "__main__":
    main()
