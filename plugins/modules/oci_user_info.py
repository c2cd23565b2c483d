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
  - Looks up the ids of a user in F(/etc/passwd) and F(/etc/group) of a root file system, by Docker's rules.
  - Reads inside of the root file system only, as if chrooted, and runs none of its programs.
  - M(hypervisor.oci.oci_rootfs) returns the same for the user that the image names. This module is for other users.
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
      - A name that does not exist is an error. A number needs no account. It gets the groups of its account if it has one,
        and group 0 otherwise.
      - With a group in the text, supplementary groups are left out.
      - An empty text means root, as in an image that names no user.
    type: str
    required: true
  program:
    description:
      - The path of the container's first program, for RV(nspawn.systemd).
    type: str
    default: ""
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
      description: The value of O(user).
      type: str
      sample: www-data
    uid:
      description: The uid in the container.
      type: int
      sample: 33
    gid:
      description: The gid in the container.
      type: int
      sample: 33
    groups:
      description: Supplementary groups.
      type: list
      elements: int
    home:
      description: The home directory. Null if the user has no account, or if the path is not absolute.
      type: str
      sample: /var/www
nspawn:
  description:
    - What C(systemd-nspawn) itself would find for this user. It runs C(getent) of the root file system. This module does
      not run it, but reads the same files.
  returned: success
  type: dict
  contains:
    getent:
      description:
        - Whether the answer is known. False if the program is missing or a script, or if F(/etc/nsswitch.conf) names other
          services than files.
      type: bool
    uid:
      description: The uid. Null if the account does not exist, or if the answer is not known.
      type: int
    gid:
      description: The gid. Null if RV(nspawn.uid) is.
      type: int
    groups:
      description: Supplementary groups. Null if RV(nspawn.uid) is.
      type: list
      elements: int
    systemd:
      description: Whether O(program) is systemd, and D-Bus is installed, so that C(systemd-run) reaches the container.
      type: bool
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._native_path import native_path
from ..module_utils._errors import OciError, RootfsError, os_phrase, show
from ..module_utils._result import to_json_safe
from ..module_utils._container.accounts import TreeOnDisk, judge_getent
from ..module_utils._container.init import is_systemd
from ..module_utils._container.lookup import opened_root
from ..module_utils._rootfs.users import resolve_user

ARGUMENT_SPEC: dict[str, t.Any] = {
    "rootfs": {"type": "path", "required": True},
    "user": {"type": "str", "required": True},
    "program": {"type": "str", "default": ""},
}


def look_up_user(rootfs: str, user: str, program: str = "") -> dict[str, t.Any]:
    """Return the values of the result. Raises ``RootfsError`` if the user does not exist."""
    with opened_root(rootfs) as fd:
        tree = TreeOnDisk(fd)
        found = resolve_user(user, tree)
        judged = {**judge_getent(user, tree).to_facts(), "systemd": is_systemd(fd, program)}
    if found.uid is None:
        raise RootfsError(
            f"the root file system at {show(rootfs)} has no user or group {show(user)}; choose one of its /etc/passwd and"
            " /etc/group, or give numbers"
        )
    return {"user": {"name": user, **found.to_facts()}, "nspawn": judged}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    rootfs = native_path(module.params["rootfs"])
    try:
        found = look_up_user(rootfs, module.params["user"], module.params["program"])
    except OciError as error:
        module.fail_json(msg=error.message)
    except OSError as error:
        module.fail_json(msg=f"the root file system at {show(rootfs)} cannot be read: {os_phrase(error)}")
    module.exit_json(changed=False, **to_json_safe(found))


if __name__ == "__main__":
    main()
