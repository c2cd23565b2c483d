#!/usr/bin/python
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_container_files
short_description: Write the files that describe a container to its runtime
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Writes all files that describe a container in one task, and restores their earlier versions.
  - The role P(hypervisor.oci.container#role) uses it. Each file is replaced atomically. Files that have the wanted content,
    mode and owner are not touched.
  - Links in a path are followed if only the administrator can have made them, but never below O(directories). A file in a
    folder that belongs to another user, or that others can write to, is an error.
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
      - The module writes each file in its folder and renames it there, by directory descriptor.
options:
  state:
    description:
      - V(present) makes the directories and files that are listed.
      - V(restored) restores the files from O(keep) as they were before the last run that changed one. Files that did not
        exist are removed.
    type: str
    choices: [present, restored]
    default: present
  directories:
    description:
      - Directories to make if they are missing, before the files. An existing one must belong to root or the running user.
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
          - Whether the container's root, which is another user of the node if O(uid_map) is set, may pass the directory.
            A new directory then belongs to the group of that root, with mode 0710. An existing one gets an ACL entry if it
            needs one.
        type: bool
        default: false
      shared:
        description:
          - Whether containers with other id maps have folders in the directory. A new one then gets an ACL entry, too. If
            the file system has no ACLs, it gets mode 0711 and every user may pass it, so its content must be closed.
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
      - The ranges of group ids. Required together with O(uid_map).
    type: list
    elements: str
    default: []
  files:
    description:
      - The files. Their folders must exist or be listed in O(directories).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The absolute path.
        type: path
        required: true
      content:
        description: The content. It is neither logged nor returned.
        type: str
        required: true
      shown:
        description:
          - How much of the content a diff shows.
          - V(none) shows only that the content changes. V(all) shows everything and is for files without secrets.
          - V(settings) is for files of LXC, Proxmox VE and systemd-nspawn, V(spec) for the C(config.json) of an OCI bundle,
            V(script) for the exec wrapper. They show names of environment variables and whether values change, but no values.
            Content that cannot be parsed is not shown.
        type: str
        choices: [none, all, settings, spec, script]
        default: none
      mode:
        description: The mode, as an octal number.
        type: str
        default: '0600'
      owner:
        description: The uid of the owner.
        type: int
        default: 0
      group:
        description: The gid of the group.
        type: int
        default: 0
  keep:
    description:
      - The directory that earlier versions of the files are stored in, for O(state=restored). It is closed to other users.
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

- name: Restore the earlier files
  hypervisor.oci.oci_container_files:
    state: restored
    keep: /var/lib/lxc/web/previous
"""

RETURN = r"""
changed_paths:
  description: The directories and files that were changed.
  returned: success
  type: list
  elements: str
  sample: [/var/lib/lxc/web/config]
"""

import typing as t

from ..module_utils._container.files import Directory, File, difference, provide, restore
from ..module_utils._secrets import MASK
from ..module_utils._native_path import native_path, task_path
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
            # masked by without_contents instead: ansible-core 2.22 would mask a short content, such as the name of a
            # container, wherever it occurs, and earlier versions log the values in lists
            "content": {"type": "str", "required": True, "no_log": False},
            "shown": {"type": "str", "choices": ["none", "all", "settings", "spec", "script"], "default": "none"},
            "mode": {"type": "str", "default": "0600"},
            "owner": {"type": "int", "default": 0},
            "group": {"type": "int", "default": 0},
        },
    },
    "keep": {"type": "path"},
}


_HARMLESS = ("path", "shown", "mode", "owner", "group")


def without_contents(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the arguments that may be logged, without contents, which hold the environment of a container."""
    files = params.get("files")
    if not isinstance(files, list):
        return {} if files is None else {"files": MASK}
    return {
        "files": [
            (
                # an unknown key may be a misspelled one with a content
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
        raise _invalid_mode(text) from error
    if not 0 <= mode <= 0o7777:
        raise _invalid_mode(text)
    return mode


def _invalid_mode(text: str) -> RootfsError:
    return RootfsError(f"invalid mode {show(text)}; use an octal string such as '0600'")


def _present(params: dict[str, t.Any], check_mode: bool, diff_mode: bool) -> tuple[list[str], list[dict[str, str]]]:
    """Make directories and files; return the changed paths, and diffs if they are wanted."""
    directories = [
        Directory(native_path(item["path"]), _mode(item["mode"]), item["passable"], item["shared"])
        for item in params["directories"]
    ]
    files = [
        File(
            path=native_path(item["path"]),
            content=item["content"].encode("utf-8", "surrogateescape"),
            mode=_mode(item["mode"]),
            uid=item["owner"],
            gid=item["group"],
        )
        for item in params["files"]
    ]
    diff = []
    if diff_mode:
        kinds = [item["shown"] for item in params["files"]]
        texts = map(difference, files, kinds)
        diff = [{"prepared": text} for text in texts if text]
    root = mapped_root(*parse_id_maps(params["uid_map"], params["gid_map"]))
    return provide(directories, files, native_path(params["keep"]), check_mode, root), diff


def main() -> None:
    """Run the module."""
    module = QuietModule(
        without_contents,
        argument_spec=ARGUMENT_SPEC,
        supports_check_mode=True,
        required_if=[("state", "restored", ["keep"])],
    )
    params = module.given
    diff: list[dict[str, str]] = []
    try:
        with interruptible():
            if params["state"] == "restored":
                changed = restore(native_path(params["keep"]), module.check_mode)
            else:
                changed, diff = _present(params, module.check_mode, module._diff)
    except OciError as error:
        module.fail_json(msg=error.message)
    result = {"changed": bool(changed), "changed_paths": task_path(changed)}
    if module._diff:
        result["diff"] = diff
    module.exit_json(**result)


if __name__ == "__main__":
    main()
