#!/usr/bin/python
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_mount_points
short_description: Prepare mount points in a root file system
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Finds where the mounts of a container land in its root file system. Links in the image are followed inside of the root,
    because runtimes refuse or follow them in different ways.
  - Makes missing mount points, as directories or empty files.
  - Makes other directories that some runtimes require, such as the working directory.
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
          - It must not lead through O(rootfs), through another source that is not read-only, or through a link that other
            users can change. A container could put a link there that redirects the mount to any path of the node.
        type: path
      is_file:
        description:
          - Whether the source is going to be a file. If this is not set, the source must exist.
        type: bool
      from_image:
        description:
          - Whether the image declares this volume. If its target is not allowed, it is ignored with a warning.
        type: bool
        default: false
      target:
        description:
          - The absolute path inside of the container.
          - Targets in F(/proc), F(/sys) and F(/dev), also by links of the image, are errors. Exceptions are sources in the
            same directory of the node, and O(mounts[].type=tmpfs) below F(/dev).
        type: str
        required: true
      read_only:
        description:
          - Whether to mount read-only.
        type: bool
        default: false
      type:
        description:
          - The type of the mount.
        type: str
        choices: [bind, tmpfs]
        default: bind
      options:
        description:
          - Further mount options, as the runtime expects them.
        type: list
        elements: str
        default: []
  directories:
    description:
      - Absolute paths inside of the container to make as directories if they are missing.
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
  description: The mounts in the order to mount them, with targets that contain no links.
  returned: success
  type: list
  elements: dict
  sample:
    - {source: /srv/web/data, target: /run/data, read_only: false, type: bind, options: []}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._dest.made import note_made
from ..module_utils._native_path import native_path, task_path
from ..module_utils._errors import OciError
from ..module_utils._interrupt import interruptible
from ..module_utils._result import to_json_safe
from ..module_utils._container.mount_points import provide_directories, provide_mount_points

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
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    rootfs, mounts = native_path((module.params["rootfs"], module.params["mounts"]))
    try:
        with interruptible():
            new: set[str] = set()
            points = provide_mount_points(rootfs, mounts, module.check_mode, new.add)
            # after the mount points, because a mount may contain one of them
            folders = native_path(module.params["directories"])
            made = provide_directories(rootfs, folders, module.check_mode, new.add)
            note_made(rootfs, new)
    except OciError as error:
        module.fail_json(msg=error.message)
    for warning in points.ignored:
        module.warn(warning)
    module.exit_json(changed=points.changed or made, mounts=to_json_safe(task_path(points.mounts)))


if __name__ == "__main__":
    main()
