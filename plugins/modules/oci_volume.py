#!/usr/bin/python
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_volume
short_description: Make a persistent directory for a volume of a container
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Makes a directory outside of the root file system that a container can mount as a volume.
  - The content that the image has at the target is copied once, with owners, modes, times, links and extended attributes,
    as with Docker. If the image has none, the directory belongs to the owner of the root.
  - Links in the image are followed inside of its root only. If the copy fails, no directory is left behind.
  - Nothing outside of the root is ever read, even if a container replaces directories by links meanwhile. Files that change
    while they are copied are an error. Sockets, and devices other than those of O(hypervisor.oci.oci_rootfs#module:devices=safe),
    are left out with a warning.
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
  path:
    description:
      - The absolute path of the directory on the node. Missing directories above it are made, the last one closed to other
        users.
      - It must not lead through O(rootfs), through a directory of O(writable), or through a link that other users can change.
    type: path
    required: true
  rootfs:
    description:
      - The root file system, as C(dest) of M(hypervisor.oci.oci_rootfs).
    type: path
    required: true
  target:
    description:
      - The absolute path of the volume inside of the container. F(/) and paths in F(/proc), F(/sys) and F(/dev), also by
        links of the image, are errors; see O(from_image).
    type: str
    required: true
  fill:
    description:
      - V(new) copies only into a directory that this run makes. V(empty) also copies into an existing, empty directory.
    type: str
    choices: [new, empty]
    default: new
  in_use:
    description:
      - What to do if a process or a mount uses the root file system, or the empty directory to fill, when content has to be
        copied. V(fail) lists them. V(ignore) copies nevertheless.
    type: str
    choices: [fail, ignore]
    default: fail
  from_image:
    description:
      - Whether the image declares this volume. If O(target) is not allowed, the volume is then ignored with a warning.
    type: bool
    default: false
  writable:
    description:
      - Directories of the node that containers can write to, such as other volumes.
    type: list
    elements: path
    default: []
  reachable:
    description:
      - What to do if the image has setuid or setgid files, file capabilities or device nodes at O(target), and ordinary users
        of the node can reach O(path); see O(hypervisor.oci.oci_rootfs#module:reachable).
      - V(fail) stops before anything is copied. For a volume that this run does not fill, it only warns.
    type: str
    choices: [fail, warn, allow]
    default: fail
  uid_map:
    description:
      - The C(uid_map) that O(rootfs) was unpacked with. The container's root may then pass a directory that is made above
        O(path).
    type: list
    elements: str
    default: []
  gid_map:
    description:
      - The C(gid_map) that O(rootfs) was unpacked with. Required together with O(uid_map).
    type: list
    elements: str
    default: []
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
  description: The value of O(path).
  returned: success
  type: str
  sample: /srv/web/data
ignored:
  description: Whether the volume was ignored, because the image declares it at a target that is not allowed.
  returned: success
  type: bool
  sample: false
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._native_path import native_path
from ..module_utils._errors import OciError, show
from ..module_utils._interrupt import interruptible
from ..module_utils._rootfs.ids import parse_id_maps
from ..module_utils._dest.reach import CHOICES, FAIL, ReachRule, mapped_root
from ..module_utils._container.volume import Volume, provide_volume

ARGUMENT_SPEC = {
    "path": {"type": "path", "required": True},
    "rootfs": {"type": "path", "required": True},
    "target": {"type": "str", "required": True},
    "fill": {"type": "str", "choices": ["new", "empty"], "default": "new"},
    "in_use": {"type": "str", "choices": ["fail", "ignore"], "default": "fail"},
    "from_image": {"type": "bool", "default": False},
    "writable": {"type": "list", "elements": "path", "default": []},
    "reachable": {"type": "str", "choices": CHOICES, "default": FAIL},
    "uid_map": {"type": "list", "elements": "str", "default": []},
    "gid_map": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    try:
        with interruptible():
            root = mapped_root(*parse_id_maps(params["uid_map"], params["gid_map"]))
            volume = Volume(
                path=native_path(params["path"]),
                rootfs=native_path(params["rootfs"]),
                target=native_path(params["target"]),
                fill_empty=params["fill"] == "empty",
                ignore_users=params["in_use"] == "ignore",
                from_image=params["from_image"],
                writable=tuple(native_path(params["writable"])),
                reach=ReachRule(params["reachable"], root),
            )
            provided = provide_volume(volume, module.check_mode)
    except OciError as error:
        module.fail_json(msg=error.message)
    if provided.ignored:
        module.warn(provided.ignored)
    for warning in provided.warnings:
        module.warn(warning)
    for kind, count in provided.skipped.items():
        module.warn(f"the volume {show(params['path'])} lacks {count} {kind.partition('_')[0]} of the image")
    module.exit_json(changed=provided.changed, path=params["path"], ignored=bool(provided.ignored))


if __name__ == "__main__":
    main()
