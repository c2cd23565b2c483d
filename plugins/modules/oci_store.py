#!/usr/bin/python
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_store
short_description: Tell what a store of shared layers holds, check it, and remove what nobody needs
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Lists the unpacked layers that O(hypervisor.oci.oci_rootfs#module:store_dir) keeps on a node, which root file systems
    refer to them, and how much they share.
  - With O(verify), it compares what is there with what was recorded. With O(prune), it removes what nobody needs, as
    M(hypervisor.oci.oci_rootfs) does at the end of a run that unpacked an image. That is for nodes where no such run comes
    any more.
  - Without O(prune), nothing is ever changed. A store that does not exist is not made.
requirements:
  - Python 3.8 or newer
extends_documentation_fragment:
  - hypervisor.oci._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details:
      - RV(pruned) tells what has changed.
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
  store_dir:
    description:
      - The folder of the store, as O(hypervisor.oci.oci_rootfs#module:store_dir) names it.
    type: path
    required: true
  sizes:
    description:
      - Whether to ask the file system how much of each snapshot something else shares, which opens every file.
    type: bool
    default: false
  verify:
    description:
      - Whether to compare each snapshot with what was recorded of it, and to look for what interrupted runs have left. The
        files of a snapshot are not read. What is wrong is told in RV(problems), and is not an error.
    type: bool
    default: false
  prune:
    description:
      - Remove snapshots that no root file system refers to and no run has used for O(store_max_age) days, and what interrupted
        runs have left.
      - A root file system counts as gone only if its file system is there, and its record is not. What is unsure is kept.
    type: bool
    default: false
  store_max_age:
    description:
      - The number of days for O(prune), as O(hypervisor.oci.oci_rootfs#module:store_max_age).
    type: float
    default: 7
  lock_timeout:
    description:
      - The number of seconds that O(prune) waits for other runs that use the store.
    type: int
    default: 300
seealso:
  - module: hypervisor.oci.oci_rootfs
  - module: hypervisor.oci.oci_rootfs_info
"""

EXAMPLES = r"""
---
- name: See what the store of this node holds
  hypervisor.oci.oci_store:
    store_dir: /var/lib/machines/.store
    verify: true
  register: store

- name: Nothing is wrong with it
  ansible.builtin.assert:
    that: store.problems | length == 0
    fail_msg: "{{ store.problems | join('; ') }}"

- name: Tell how much sharing saves
  ansible.builtin.debug:
    msg: >-
      {{ store.size | ansible.builtin.human_readable }} serve {{ store.references | length }} root file systems that
      would take {{ store.unshared_size | ansible.builtin.human_readable }} without the store

- name: Remove what nobody has needed for a month
  hypervisor.oci.oci_store:
    store_dir: /var/lib/machines/.store
    prune: true
    store_max_age: 30
"""

RETURN = r"""
store_dir:
  description: The resolved path.
  returned: success
  type: str
  sample: /var/lib/machines/.store
exists:
  description: Whether there is a store.
  returned: success
  type: bool
busy:
  description: Whether another run used the store.
  returned: success
  type: bool
size:
  description:
    - The bytes of all layers in the store, as they were counted when the layers were unpacked. What they take on disk differs by
      rounding, metadata, compression, and files that a higher layer has replaced.
  returned: success
  type: int
needed_size:
  description: The part of RV(size) that RV(references) need, without those whose records are gone.
  returned: success
  type: int
unshared_size:
  description:
    - The bytes that the trees of these references would have without the store, counted in the same way. Of trees of one root
      file system where one's layers are the lower ones of another's, only the latter counts.
  returned: success
  type: int
snapshots:
  description: The snapshots after the run, smaller trees first. Each is one layer with all below it.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name in the store.
      type: str
      sample: 4k0x9a
    parent:
      description: The name of the snapshot below it. Null for the lowest layer.
      type: str
    chain_id:
      description: The chain ID of its layers. Null if one of them has no record.
      type: str
    diff_id:
      description: The diff_id of its layer.
      type: str
    digests:
      description: The digests of blobs that were verified to hold this layer.
      type: list
      elements: str
    options:
      description: The options that the tree was made with, as far as they change it.
      type: dict
    driver:
      description: How it is shared, V(btrfs). Null if it is not there, or not as it should be.
      type: str
    layer_size:
      description: The bytes of its layer, counted as RV(size).
      type: int
    tree_size:
      description: The same of its layer and all below it.
      type: int
    entries:
      description: The number of entries of its layer and all below it.
      type: int
    used:
      description: When a run used it last, in UTC.
      type: str
      sample: "2026-11-29T08:15:00Z"
    dests:
      description: The root file systems that refer to it, or their records where the path cannot be told.
      type: list
      elements: str
    exclusive:
      description:
        - The bytes of its files that nothing else on the file system shares, and that removing this snapshot alone would free.
          A tree that was made of it shares them all. Null if the file system does not tell.
        - Files that are small enough to lie in the metadata do not count, nor does metadata. Compressed data counts as it
          reads.
      returned: with O(sizes)
      type: int
    shared:
      description: The bytes of its files that something else shares, such as another snapshot or a tree.
      returned: with O(sizes)
      type: int
references:
  description: Which root file systems refer to snapshots, with their earlier and staged trees, after the run.
  returned: success
  type: list
  elements: dict
  contains:
    dest:
      description: The path of the root file system. Null if it cannot be told.
      type: str
      sample: /var/lib/machines/web
    record:
      description: The path of its record.
      type: str
    state:
      description:
        - V(present) if the record is there. V(gone) if it is not, but its file system is. V(unknown) if its file system is not
          there, or the path cannot be opened.
      type: str
    exists:
      description: Whether RV(references[].dest) is a directory. Null if that cannot be told.
      type: bool
    snapshots:
      description: The names of the snapshots.
      type: list
      elements: str
problems:
  description: What is wrong with the store, one sentence each, at most 1,000.
  returned: with O(verify)
  type: list
  elements: str
pruned:
  description: What was removed; in check mode, what would be.
  returned: with O(prune)
  type: dict
  contains:
    snapshots:
      description: Names of snapshots.
      type: list
      elements: str
    references:
      description: Records of root file systems that are gone.
      type: list
      elements: str
    leftovers:
      description: What interrupted runs had left, as paths in the store.
      type: list
      elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import OciError
from ..module_utils._interrupt import interruptible
from ..module_utils._native_path import native_path
from ..module_utils._result import bounded_warnings, to_json_safe
from ..module_utils._store.inspect import Inspection, inspect_store

ARGUMENT_SPEC: dict[str, t.Any] = {
    "store_dir": {"type": "path", "required": True},
    "sizes": {"type": "bool", "default": False},
    "verify": {"type": "bool", "default": False},
    "prune": {"type": "bool", "default": False},
    "store_max_age": {"type": "float", "default": 7},
    "lock_timeout": {"type": "int", "default": 300},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    asked = Inspection(
        store_dir=native_path(params["store_dir"]),
        sizes=params["sizes"],
        verify=params["verify"],
        prune=params["prune"],
        max_age=params["store_max_age"],
        lock_timeout=float(params["lock_timeout"]),
    )
    try:
        with interruptible():
            found = inspect_store(asked, module.check_mode)
    except OciError as error:
        module.fail_json(msg=error.message)
    for warning in bounded_warnings(found.warnings):
        module.warn(warning)
    module.exit_json(changed=found.changed, **to_json_safe(found.facts))


if __name__ == "__main__":
    main()
