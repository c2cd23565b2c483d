# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is PRIVATE to the collection.

from __future__ import annotations


class ModuleDocFragment:
    """Options of filters that describe a container: the image and its overrides."""

    DOCUMENTATION = r"""
options:
  _input:
    description:
      - The image, as RV(hypervisor.oci.oci_rootfs#module:image).
    type: dict
    required: true
  name:
    description:
      - The container's name.
    type: str
    required: true
  rootfs:
    description:
      - The root file system's directory on the host, the C(dest) value of a result.
    type: path
    required: true
  hostname:
    description:
      - The container's host name. The default is O(name).
    type: str
  env:
    description:
      - Environment variables, merged by name over the image's.
    type: dict
  entrypoint:
    description:
      - Replaces the image's entrypoint, and drops its command.
    type: list
    elements: str
  command:
    description:
      - Replaces the image's command.
    type: list
    elements: str
  working_dir:
    description:
      - Replaces the image's working directory.
    type: str
  stop_signal:
    description:
      - Replaces the image's stop signal, a name or a number.
    type: str
  user:
    description:
      - Replaces the image's user. The C(user) value of a result of M(hypervisor.oci.oci_user_info), or V(UID) or V(UID:GID)
        in digits.
    type: raw
  mounts:
    description:
      - Mounts, each with C(source) and C(target), and optionally C(read_only), C(type) (V(bind), the default, or
        V(tmpfs), which needs no C(source)), and C(options). The result of P(hypervisor.oci.volumes#filter) can be added to them.
      - At or below F(/proc), F(/sys) and F(/dev), only the node's object of the same path can be mounted, and V(tmpfs) below
        F(/dev). A C(source) below O(rootfs), or below another one that is not C(read_only), is an error.
    type: list
    elements: dict
  uid_map:
    description:
      - Ranges of user ids as V(CONTAINER:HOST:COUNT), which must be those that the root file system was unpacked with. Without
        a map, ids are those of the host.
    type: list
    elements: str
  gid_map:
    description:
      - Ranges of group ids, as in O(uid_map).
    type: list
    elements: str
"""
