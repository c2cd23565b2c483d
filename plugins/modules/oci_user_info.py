#!/usr/bin/python
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_user_info
short_description: Look up a user in a root file system
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Says which numbers a user has in a root file system, by its own F(/etc/passwd) and F(/etc/group), by Docker's rules.
  - Reads inside of the root file system only, as if chrooted, and runs none of its programs.
  - M(hypervisor.oci.oci_rootfs) does the same for the user that the image names. This module is for another one.
requirements:
  - Python 3.8 or newer
extends_documentation_fragment:
  - hypervisor.oci._attributes
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
  rootfs:
    description:
      - The root file system's directory.
    type: path
    required: true
  user:
    description:
      - V(USER) or V(USER:GROUP), each a name or a number.
      - A name that is not there is an error. A number is taken as it is, with the group and the supplementary groups of its
        account where it has one, else with group 0.
      - A group that is given leaves no supplementary ones.
      - An empty text is root, as in an image that names no user.
    type: str
    required: true
seealso:
  - module: hypervisor.oci.oci_rootfs
  - plugin: hypervisor.oci.lxc_config
    plugin_type: filter
"""

EXAMPLES = r"""
---
- name: Unpack an image
  hypervisor.oci.oci_rootfs:
    src: app.oci.tar
    dest: /var/lib/lxc/app/rootfs
  register: app

- name: Look up another user than the image's
  hypervisor.oci.oci_user_info:
    rootfs: "{{ app.dest }}"
    user: www-data
  register: web

- name: Let LXC start the container as that user
  ansible.builtin.copy:
    dest: /var/lib/lxc/app/config
    content: "{{ app.image | hypervisor.oci.lxc_config(name='app', rootfs=app.dest, user=web.user) }}"
    mode: "0640"
"""

RETURN = r"""
user:
  description: The user, as the filters of this collection take it.
  returned: success
  type: dict
  contains:
    name:
      description: What was asked for.
      type: str
      sample: www-data
    uid:
      description: The user's number in the container.
      type: int
      sample: 33
    gid:
      description: The number of the group in the container.
      type: int
      sample: 33
    groups:
      description: Supplementary groups.
      type: list
      elements: int
    home:
      description: The home directory. Null where the user has no account, or the account's is no absolute path.
      type: str
      sample: /var/www
nspawn:
  description:
    - What C(systemd-nspawn) itself would find for this user. It asks the C(getent) of the root file system, which is not
      run here, but judged by the files that it reads.
  returned: success
  type: dict
  contains:
    getent:
      description:
        - Whether the answer is known. False where there is no such program, where it is a script, and where
          F(/etc/nsswitch.conf) lets others than files answer.
      type: bool
    uid:
      description: The user's number. Null where there is no such account, and where the answer is not known.
      type: int
    gid:
      description: The number of the group, as RV(nspawn.uid).
      type: int
    groups:
      description: Supplementary groups, as RV(nspawn.uid).
      type: list
      elements: int
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._errors import OciError, RootfsError, os_phrase, show
from ..module_utils._result import to_json_safe
from ..module_utils._container.accounts import TreeOnDisk, judge_getent
from ..module_utils._container.lookup import opened_root
from ..module_utils._rootfs.users import resolve_user

ARGUMENT_SPEC: dict[str, t.Any] = {
    "rootfs": {"type": "path", "required": True},
    "user": {"type": "str", "required": True},
}


def look_up_user(rootfs: str, user: str) -> dict[str, t.Any]:
    """The result's values. Raises ``RootfsError`` where the user is not there."""
    with opened_root(rootfs) as fd:
        tree = TreeOnDisk(fd)
        found = resolve_user(user, tree)
        judged = judge_getent(user, tree)
    if found.uid is None:
        raise RootfsError(
            f"the root file system at {show(rootfs)} has no user or group {show(user)}; choose one of its /etc/passwd and"
            " /etc/group, or give numbers"
        )
    return {"user": {"name": user, **found.to_facts()}, "nspawn": judged.to_facts()}


def main() -> None:
    """Arguments in, one result out."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    rootfs = module.params["rootfs"]
    try:
        found = look_up_user(rootfs, module.params["user"])
    except OciError as error:
        module.fail_json(msg=error.message)
    except OSError as error:
        module.fail_json(
            msg=f"the root file system at {show(rootfs)} cannot be read: {os_phrase(error)}"
        )
    module.exit_json(changed=False, **to_json_safe(found))


if __name__ == "__main__":
    main()
