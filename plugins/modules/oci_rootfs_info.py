#!/usr/bin/python
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_rootfs_info
short_description: Tell what is known of root file systems on a node
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Reads the records that M(hypervisor.oci.oci_rootfs) keeps of one root file system or of all in some folders, and changes
    nothing.
  - It tells which image a tree was made from, when and with which options, who has signed the image, which of its files give
    rights away, which earlier trees are kept, and what an interrupted run has left.
  - With O(verify), it tells what has changed in the tree since it was unpacked.
requirements:
  - Python 3.8 or newer
  - the Python library zstandard or the program zstd, for O(verify=content) with layers that are compressed by zstd, unless
    Python is 3.14 or newer
extends_documentation_fragment:
  - hypervisor.oci._attributes
  - hypervisor.oci._verify
  - hypervisor.oci._http
  - hypervisor.oci._registry
attributes:
  check_mode:
    support: full
    details:
      - Nothing is ever changed.
  diff_mode:
    support: N/A
    details:
      - Nothing is ever changed.
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
    support: N/A
    details:
      - Nothing is written.
options:
  dest:
    description:
      - The root file system to describe, as O(hypervisor.oci.oci_rootfs#module:dest) names it.
      - Without it, all root file systems are described whose records lie in O(folders).
    type: path
  folders:
    description:
      - Where to look for records, and up to two folders below. A record lies beside its root file system; that of a mount
        point lies in F(/var/lib/hypervisor.oci).
      - The default has the places where the role P(hypervisor.oci.container#role) puts root file systems.
    type: list
    elements: path
    default:
      - /var/lib/lxc
      - /var/lib/machines
      - /var/lib/hypervisor.oci
      - /var/lib/hypervisor.oci/bundles
  sizes:
    description:
      - Whether to add up how much each tree takes on disk, which reads the status of every file.
    type: bool
    default: false
  src:
    description:
      - Where O(verify=content) finds the image's layers. A path on the node, a URL, or a name in a registry, as O(hypervisor.oci.oci_rootfs#module:src).
        The image is found by the digest that the record has.
      - With several O(folders), it has to have the images of all. Without it and O(cache_dir), contents are not verifiable.
    type: path
  cache_dir:
    description:
      - A folder of blobs that O(verify=content) reads first, as O(hypervisor.oci.oci_rootfs#module:cache_dir). It is not changed. A tree whose layers
        are all there needs no O(src).
      - Its scopes are not asked for. A layer that is recorded of the tree was unpacked there, and the result tells no content.
    type: path
  max_size:
    description:
      - The maximum size of the image's layers after decompression, and of a compressed archive.
    type: str
    default: 100G
seealso:
  - module: hypervisor.oci.oci_rootfs
  - module: hypervisor.oci.oci_image_info
"""

EXAMPLES = r"""
---
- name: Describe one root file system
  hypervisor.oci.oci_rootfs_info:
    dest: /var/lib/lxc/app/rootfs
  register: app

- name: Show its image
  ansible.builtin.debug:
    msg: "{{ app.rootfs[0].ref }} ({{ app.rootfs[0].manifest_digest }}), unpacked at {{ app.rootfs[0].made }}"

- name: Describe all of this node, with the space that they take
  hypervisor.oci.oci_rootfs_info:
    sizes: true
  register: all

- name: Compare all of this node with their images, as far as that needs no layers
  hypervisor.oci.oci_rootfs_info:
    verify: metadata
  register: verified

- name: Fail if anything of an image has changed or is missing
  ansible.builtin.assert:
    that: item.drift is none or (item.drift.changed.count == 0 and item.drift.missing.count == 0)
    quiet: true
  loop: "{{ verified.rootfs }}"
  loop_control:
    label: "{{ item.dest }}"

- name: Compare contents as well, without another transfer
  hypervisor.oci.oci_rootfs_info:
    dest: /var/lib/lxc/app/rootfs
    verify: content
    cache_dir: /var/cache/hypervisor.oci
    src: docker://registry.example.com/app

- name: List what has setuid files
  ansible.builtin.debug:
    msg: "{{ item.dest }}: {{ item.report.inventory.setuid.files | map(attribute='path') | join(' ') }}"
  loop: "{{ all.rootfs | selectattr('provisioned') }}"
  loop_control:
    label: "{{ item.dest }}"
"""

RETURN = r"""
rootfs:
  description: The root file systems, sorted by RV(rootfs[].dest).
  returned: success
  type: list
  elements: dict
  contains:
    dest:
      description: The resolved path.
      type: str
      sample: /var/lib/lxc/app/rootfs
    exists:
      description: Whether there is a directory.
      type: bool
    provisioned:
      description:
        - Whether the directory holds a tree that M(hypervisor.oci.oci_rootfs) made, as a whole. Otherwise all that is told of
          the tree itself is null.
      type: bool
    busy:
      description: Whether another run was at work on it.
      type: bool
    manifest_digest:
      description: As RV(hypervisor.oci.oci_rootfs#module:manifest_digest).
      type: str
    config_digest:
      description: As RV(hypervisor.oci.oci_rootfs#module:config_digest).
      type: str
    ref:
      description: The name that the image had when it was unpacked.
      type: str
    platform:
      description: As RV(hypervisor.oci.oci_rootfs#module:platform).
      type: str
    layers:
      description: As RV(hypervisor.oci.oci_rootfs#module:layers).
      type: list
      elements: dict
    image:
      description: As RV(hypervisor.oci.oci_rootfs#module:image). It holds the image's environment.
      type: dict
    report:
      description: As RV(hypervisor.oci.oci_rootfs#module:report), with the inventory.
      type: dict
    options:
      description: The options that the tree was made with, as far as they change it.
      type: dict
    made:
      description: When the tree was unpacked, in UTC. Null if the record does not tell.
      type: str
      sample: "2026-11-29T08:15:00Z"
    signed_by:
      description: As RV(hypervisor.oci.oci_rootfs#module:signed_by).
      type: list
      elements: str
    store:
      description: As RV(hypervisor.oci.oci_rootfs#module:store).
      type: str
    store_dir:
      description: The folder of the layers that the tree shares with others, or null.
      type: str
    staged:
      description:
        - The tree that O(hypervisor.oci.oci_rootfs#module:state=staged) has prepared, or null.
        - It has C(path), C(manifest_digest), C(config_digest), C(ref), C(platform), C(options), C(made), C(signed_by), C(store), C(store_dir), C(failed) (see
          O(hypervisor.oci.oci_rootfs#module:mark_failed)), and with O(sizes) C(size).
      type: dict
    earlier:
      description:
        - Earlier trees that are kept, the newest first, with the keys of RV(rootfs[].staged). A tree of somebody else, which
          O(hypervisor.oci.oci_rootfs#module:force) has replaced, has no digests.
      type: list
      elements: dict
    unfinished:
      description: What an interrupted run has left, which the next run of M(hypervisor.oci.oci_rootfs) finishes or removes.
      type: dict
      contains:
        phase:
          description: How far it came, such as V(unpacking), V(prepared) or V(removing). Null if nothing is unfinished.
          type: str
        transfers:
          description: The number of folders of unfinished transfers.
          type: int
        partial_blobs:
          description: Whether blobs are kept that came in part.
          type: bool
        to_remove:
          description: Paths of trees that are no longer needed, but could not be removed.
          type: list
          elements: str
    drift:
      description: As RV(hypervisor.oci.oci_rootfs#module:drift), without C(repair). Null if the directory holds no tree of this collection.
      returned: with O(verify)
      type: dict
    size:
      description: How many bytes the tree takes on disk, without what is mounted in it. Null if it does not exist.
      returned: with O(sizes)
      type: int
"""

import typing as t

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._dest.search import find_dests
from ..module_utils._errors import MissingLibraryError, OciError
from ..module_utils._fetch_arguments import FETCH_ARGUMENTS
from ..module_utils._native_path import native_path
from ..module_utils._provision.inspect import describe_dest
from ..module_utils._quiet_module import QuietModule
from ..module_utils._registry.arguments import fetch_options, without_secrets
from ..module_utils._result import to_json_safe
from ..module_utils._size_arguments import MAX_SIZE_ARGUMENTS, parse_max_size
from ..module_utils._verify_arguments import VERIFY_ARGUMENTS

if t.TYPE_CHECKING:
    from ..module_utils._provision.audit import Audit

ARGUMENT_SPEC: dict[str, t.Any] = {
    "dest": {"type": "path"},
    "folders": {
        "type": "list",
        "elements": "path",
        "default": ["/var/lib/lxc", "/var/lib/machines", "/var/lib/hypervisor.oci", "/var/lib/hypervisor.oci/bundles"],
    },
    "sizes": {"type": "bool", "default": False},
    "src": {"type": "path"},
    "cache_dir": {"type": "path"},
    **VERIFY_ARGUMENTS,
    **MAX_SIZE_ARGUMENTS,
    **FETCH_ARGUMENTS,
}


def main() -> None:
    """Run the module."""
    module = QuietModule(without_secrets, argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.given
    try:
        how = _audit(params)
        given = params["dest"]
        dests = [native_path(given)] if given else find_dests(map(native_path, params["folders"]))
        found = [describe_dest(dest, params["sizes"], how) for dest in dests]
    except MissingLibraryError as error:
        module.fail_json(msg=missing_required_lib(error.library, reason=error.why), exception=error.details)
    except OciError as error:
        module.fail_json(msg=error.message)
    module.exit_json(changed=False, rootfs=to_json_safe(found))


def _audit(params: dict[str, t.Any]) -> Audit | None:
    """Return how trees are compared with their images; ``None`` if they are not. Raises ``OciError``."""
    if params["verify"] == "none":
        return None
    # imported late: most tasks compare nothing
    from ..module_utils._drift.options import verifying_from
    from ..module_utils._provision.audit import Audit

    verifying = verifying_from(params)
    if verifying is None:
        return None
    src, cache_dir = (native_path(params[name] or "") for name in ("src", "cache_dir"))
    return Audit(verifying, src, fetch_options(params), parse_max_size(params), cache_dir)


if __name__ == "__main__":
    main()
