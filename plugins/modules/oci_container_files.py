#!/usr/bin/python
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_container_files
short_description: Files that describe a container to its runtime
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Writes the files that describe a container, all of them in one task, and brings the earlier ones back.
  - The role P(hypervisor.oci.container#role) works with it. Each file is replaced atomically, and none that is right
    already is touched.
  - Links in a path are followed where only the administrator can have made them, and none below O(directories). A folder
    for files that belongs to another user, or that others can write to, is an error.
requirements:
  - Python 3.8 or newer on the node
extends_documentation_fragment:
  - hypervisor.oci._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
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
      - Files are renamed into place in their own folder, which is root's, by directory descriptor.
options:
  state:
    description:
      - V(present) makes directories and files as they are listed.
      - V(restored) brings back what the files in O(keep) were before the last run that changed one. Files that were not
        there are removed.
    type: str
    choices: [present, restored]
    default: present
  directories:
    description:
      - Directories to make where they are missing, before the files. One that is there must belong to root or the running
        user.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The absolute path.
        type: path
        required: true
      mode:
        description: The mode of a new directory, as an octal number.
        type: str
        default: '0700'
      passable:
        description:
          - Whether the container's root may pass it, which is another user of the node where there is an O(uid_map). Nobody
            else may. A new directory belongs to the group of that root then (0710), one that is there gets an ACL entry
            where it is needed.
        type: bool
        default: false
      shared:
        description:
          - Whether containers with other id maps have folders in the directory. Then a new one gets an ACL entry as well. Where
            the file system has no ACLs, every user may pass a new one (0711), so close what lies in it.
        type: bool
        default: false
  uid_map:
    description:
      - The ranges of user ids of the container, as for M(hypervisor.oci.oci_rootfs).
    type: list
    elements: str
    default: []
  gid_map:
    description:
      - The same for groups. Required together with O(uid_map).
    type: list
    elements: str
    default: []
  files:
    description:
      - The files. Their folders must be there, or among O(directories).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The absolute path.
        type: path
        required: true
      content:
        description: The whole content. It is neither logged nor returned.
        type: str
        required: true
      shown:
        description:
          - How much of the content a diff shows. Values of environment variables are never shown, only their names, and
            whether a value changed.
          - V(none) shows only that the content changes, V(all) everything, which is for files without secrets.
          - V(settings) is for the lines of LXC, Proxmox VE and systemd-nspawn, V(spec) for a C(config.json) of an OCI bundle,
            V(script) for the exec wrapper. Content that is not understood is not shown.
        type: str
        choices: [none, all, settings, spec, script]
        default: none
      mode:
        description: The mode, as an octal number.
        type: str
        default: '0600'
      owner:
        description: The number of the owner.
        type: int
        default: 0
      group:
        description: The number of the group.
        type: int
        default: 0
  keep:
    description:
      - A directory for what the files were before, for O(state=restored). It is closed to other users.
    type: path
seealso:
  - module: hypervisor.oci.oci_rootfs
"""

EXAMPLES = r"""
---
- name: Describe the container to LXC
  hypervisor.oci.oci_container_files:
    files:
      - path: /var/lib/lxc/web/config
        content: "{{ web.image | hypervisor.oci.lxc_config(name='web', rootfs=web.dest) }}"
    keep: /var/lib/lxc/web/previous

- name: Go back
  hypervisor.oci.oci_container_files:
    state: restored
    keep: /var/lib/lxc/web/previous
"""

RETURN = r"""
changed_paths:
  description: The directories and files that were not as they should be.
  returned: success
  type: list
  elements: str
  sample: [/var/lib/lxc/web/config]
"""

import typing as t

from ..module_utils._container.files import (
    Directory,
    File,
    difference,
    provide,
    restore,
)
from ..module_utils._container.diff import MASK
from ..module_utils._errors import OciError, RootfsError, show
from ..module_utils._interrupt import interruptible
from ..module_utils._quiet_module import QuietModule
from ..module_utils._rootfs.ids import parse_id_maps
from ..module_utils._dest.reach import mapped_root

ARGUMENT_SPEC: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "restored"], "default": "present"},
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "mode": {"type": "str", "default": "0700"},
            "passable": {"type": "bool", "default": False},
            "shared": {"type": "bool", "default": False},
        },
    },
    "uid_map": {"type": "list", "elements": "str", "default": []},
    "gid_map": {"type": "list", "elements": "str", "default": []},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            # hidden below: ansible-core 2.22 would mask the name of a container wherever it stands, since that is the
            # whole of a file, and those before log the values of a list as they are
            "content": {"type": "str", "required": True, "no_log": False},
            "shown": {
                "type": "str",
                "choices": ["none", "all", "settings", "spec", "script"],
                "default": "none",
            },
            "mode": {"type": "str", "default": "0600"},
            "owner": {"type": "int", "default": 0},
            "group": {"type": "int", "default": 0},
        },
    },
    "keep": {"type": "path"},
}


_HARMLESS = ("path", "shown", "mode", "owner", "group")


def without_contents(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return what may be shown of the arguments: the environment of a container is in the files."""
    files = params.get("files")
    if not isinstance(files, list):
        return {} if files is None else {"files": MASK}
    return {
        "files": [
            (
                # a key that is none may be a mistyped one
                {key: file[key] if key in _HARMLESS else MASK for key in file}
                if isinstance(file, dict)
                else MASK
            )
            for file in files
        ]
    }


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError as error:
        raise RootfsError(f"{show(text)} is no mode; write one as '0600'") from error
    if not 0 <= mode <= 0o7777:
        raise RootfsError(f"{show(text)} is no mode; write one as '0600'")
    return mode


def main() -> None:
    """Arguments in, one result out."""
    module = QuietModule(
        without_contents,
        argument_spec=ARGUMENT_SPEC,
        supports_check_mode=True,
        required_if=[("state", "restored", ["keep"])],
    )
    params = module.given
    diff = []
    try:
        with interruptible():
            if params["state"] == "restored":
                changed = restore(params["keep"], module.check_mode)
            else:
                directories = [
                    Directory(
                        item["path"],
                        _mode(item["mode"]),
                        item["passable"],
                        item["shared"],
                    )
                    for item in params["directories"]
                ]
                files = [
                    File(
                        path=item["path"],
                        content=item["content"].encode("utf-8", "surrogateescape"),
                        mode=_mode(item["mode"]),
                        uid=item["owner"],
                        gid=item["group"],
                    )
                    for item in params["files"]
                ]
                if module._diff:
                    kinds = [item["shown"] for item in params["files"]]
                    texts = map(difference, files, kinds)
                    diff = [{"prepared": text} for text in texts if text]
                root = mapped_root(*parse_id_maps(params["uid_map"], params["gid_map"]))
                changed = provide(
                    directories, files, params["keep"], module.check_mode, root
                )
    except OciError as error:
        module.fail_json(msg=error.message)
    result = {"changed": bool(changed), "changed_paths": changed}
    if module._diff:
        result["diff"] = diff
    module.exit_json(**result)


if __name__ == "__main__":
    main()
