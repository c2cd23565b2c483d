#!/usr/bin/python
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_mount_points
short_description: Places in a root file system for mounts
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Says where mounts of a container land in its root file system, links in the image followed inside of its root only.
    Runtimes refuse, or follow, such links in different ways.
  - Makes directories and empty files to mount on where there is nothing.
  - Makes other directories, such as the one to start in, which some runtimes want to be there.
requirements:
  - Python 3.8 or newer on the node
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
  rootfs:
    description:
      - The root file system, as C(dest) of M(hypervisor.oci.oci_rootfs).
    type: path
    required: true
  mounts:
    description:
      - The mounts, as the filters of this collection take them.
    type: list
    elements: dict
    required: true
    suboptions:
      source:
        description:
          - The directory or file on the node. Required for O(mounts[].type=bind).
          - It may not lead through O(rootfs), through another source that is not read-only, or through a link that other
            users can change. A container could put a link there that leads the mount to any place of the node.
        type: path
      is_file:
        description:
          - Whether the source is going to be a file. The source must be there unless this is said.
        type: bool
      from_image:
        description:
          - Whether this is a volume that the image asks for. Where it must not be, it is ignored with a warning.
        type: bool
        default: false
      target:
        description:
          - The absolute path inside of the container.
          - One at or below F(/proc), F(/sys) and F(/dev), where links of the image lead too, is an error, but for what the
            node has at the same place, and for O(mounts[].type=tmpfs) below F(/dev).
        type: str
        required: true
      read_only:
        description:
          - Whether the container may only read there.
        type: bool
        default: false
      type:
        description:
          - What is mounted.
        type: str
        choices: [bind, tmpfs]
        default: bind
      options:
        description:
          - Further options, in the runtime's words.
        type: list
        elements: str
        default: []
  directories:
    description:
      - Absolute paths inside of the container that are to be directories.
    type: list
    elements: str
    default: []
seealso:
  - module: hypervisor.oci.oci_rootfs
  - module: hypervisor.oci.oci_volume
"""

EXAMPLES = r"""
---
- name: Find where the mounts land
  hypervisor.oci.oci_mount_points:
    rootfs: /var/lib/lxc/web/rootfs
    mounts:
      - source: /srv/web/data
        target: /var/run/data
  register: places
"""

RETURN = r"""
mounts:
  description: The mounts in an order in which they can be mounted, with targets that no link leads through.
  returned: success
  type: list
  elements: dict
  sample:
    - {source: /srv/web/data, target: /run/data, read_only: false, type: bind, options: []}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import OciError
from ..module_utils._interrupt import interruptible
from ..module_utils._result import to_json_safe
from ..module_utils._container.mount_points import (
    provide_directories,
    provide_mount_points,
)

ARGUMENT_SPEC = {
    "rootfs": {"type": "path", "required": True},
    "mounts": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "source": {"type": "path"},
            "is_file": {"type": "bool"},
            "from_image": {"type": "bool", "default": False},
            "target": {"type": "str", "required": True},
            "read_only": {"type": "bool", "default": False},
            "type": {"type": "str", "choices": ["bind", "tmpfs"], "default": "bind"},
            "options": {"type": "list", "elements": "str", "default": []},
        },
    },
    "directories": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    """Arguments in, one result out."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    rootfs = module.params["rootfs"]
    try:
        with interruptible():
            points = provide_mount_points(
                rootfs, module.params["mounts"], module.check_mode
            )
            # after the mounts, since one that lies in a mount is that one's
            made = provide_directories(
                rootfs, module.params["directories"], module.check_mode
            )
    except OciError as error:
        module.fail_json(msg=error.message)
    for warning in points.ignored:
        module.warn(warning)
    module.exit_json(changed=points.changed or made, mounts=to_json_safe(points.mounts))


if __name__ == "__main__":
    main()
