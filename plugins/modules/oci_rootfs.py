#!/usr/bin/python
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_rootfs
short_description: Turn an OCI image into a root file system
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Unpacks a container image, from a tar archive, an image layout directory or the output of C(docker save), into a
    directory on a hypervisor node. LXC, Proxmox VE, systemd-nspawn, runc or crun can run it.
  - The digest of the image's manifest and the options identify the tree. A second run with the same image and options
    opens no layer and changes nothing. Another image replaces the whole tree atomically.
  - Every digest of the image is verified while it is read. O(dest) changes only after all of them are verified.
  - Names and links in the image are resolved inside of the root only.
  - Files that a container writes into its root do not survive an update. Keep data on mounts.
  - Returns the image's config, which describes the container to a runtime.
requirements:
  - Python 3.8 or newer on the node
  - Linux 3.15 or newer; if the kernel or the file system cannot exchange two directories, two renames replace the tree
  - the Python library cryptography, if O(signature_keys) is used with O(remote_src=true)
  - the Python library zstandard or the program zstd, for images with layers that are compressed by zstd, unless Python is
    3.14 or newer
extends_documentation_fragment:
  - hypervisor.oci._attributes
  - hypervisor.oci._http
  - hypervisor.oci._registry
  - hypervisor.oci._signatures
attributes:
  check_mode:
    support: full
    details:
      - Writes nothing. Layers are not read, so only a real run finds a damaged one.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - O(recreate=true) always unpacks the tree again, and O(state=previous) always exchanges.
  platform:
    platforms: linux
    support: full
  facts:
    support: full
  action:
    support: full
  async:
    support: partial
    details:
      - Only with O(remote_src=true), a URL or registry that the node reads (see O(fetch)), or a connection V(local) that reads a
        file, because a transfer from the controller cannot continue in the background.
  safe_file_operations:
    support: none
    details:
      - The module has its own, stricter file operations, by directory descriptor.
options:
  src:
    description:
      - The image. An archive or directory on the controller, or on the node with O(remote_src=true), an archive's
        C(http) or C(https) URL, or the name of an image in a registry as V(docker://[HOST[:PORT]/]NAME[:TAG][@DIGEST]).
      - The content decides about the format, not the name. Supported are a tar with an OCI image layout, the output of
        C(docker save) of old and new versions, both also compressed as a whole by gzip, zstd, xz or bzip2, and an OCI image layout
        directory.
      - The node reads a URL. It fetches only the archive's index and the blobs of its own image that it lacks.
        User, password and query of the URL are neither logged nor returned.
        Any web server works. One that does not serve ranges of bytes sends the whole archive, and twice if it is unpacked.
      - An image in a registry is fetched by the node. Names are expanded by Docker's rules, so that V(docker://alpine:3.20) is
        V(docker.io/library/alpine:3.20). A digest decides over a tag. If the image of a digest is at O(dest), the registry
        is not asked at all, and by a tag only for its digest.
      - Of a layer that was fetched in part when a run ended, the next run fetches the rest.
      - Required with O(state=present) and O(state=staged).
    type: path
  dest:
    description:
      - The root file system, as an absolute path. Only this module and containers may write to it.
      - Missing directories above it are made. The last one is closed to other users (0700); with O(uid_map), the
        container's root may pass it by its group (0710).
      - A folder C(.NAME.oci_rootfs) beside it, for root only, holds the record, the next tree and earlier trees.
      - If it is a mount point, its content is replaced name by name, which is not atomic. The record then lies in
        C(/var/lib/hypervisor.oci).
      - A symbolic link, C(/) and the system's own directories are refused.
    type: path
    required: true
  state:
    description:
      - V(present) makes sure that the image is at O(dest).
      - V(staged) unpacks and verifies the image beside O(dest) while the old container runs. The next run with V(present)
        for the same image and options only exchanges the trees. It is an error if O(dest) is a mount point, because the
        container could change the staged tree there.
      - V(previous) exchanges O(dest) with the tree of the last update; see O(keep).
      - V(absent) removes the tree and everything that belongs to it. If something cannot be removed, such as a mount in an
        old tree, the run warns and the next run tries again.
    type: str
    choices: [present, staged, previous, absent]
    default: present
  ref:
    description:
      - The name of the image in the archive. Names are compared by Docker's rules, so V(alpine) is
        V(docker.io/library/alpine:latest). A bare tag matches the tag of a full name.
      - Only needed if the archive holds more than one image.
    type: str
  digest:
    description:
      - The digest that the image's manifest, index or config must have, for example V(sha256:…).
        Another digest is an error before anything is written, so the server behind a URL need not be trusted.
    type: str
  platform:
    description:
      - The platform of the image, as V(os/architecture) or V(os/architecture/variant). The default is the node's own.
      - A lower variant is taken if the exact one is missing, but never another architecture.
      - An image that does not give its operating system or architecture is never taken for a platform that is set here.
        Without this option, it is taken with a warning if O(ref), O(digest) or the archive leaves no other image.
    type: str
  remote_src:
    description:
      - Whether O(src) is on the node already. Otherwise, unless it is a URL or in a registry, the controller offers the image to the node,
        and uploads the blobs that the node requests to a folder on the file system of O(dest).
    type: bool
    default: false
  fetch:
    description:
      - Who fetches O(src) when it is a URL or an image in a registry. Without this option, the node does. With a path it is an
        error.
      - V(node) needs a route to the server and credentials on each node.
      - With V(controller), the controller fetches once what its nodes need, and sends it to them as it does an archive of its
        own. Nodes get no credentials and need no route. Options for the server, with their paths and environment, are those of
        the controller. It is an error with C(async).
      - The controller keeps what it fetched until ansible-playbook ends, and in F($XDG_CACHE_HOME/hypervisor.oci) what a later
        run can continue, for seven days and up to 10 GiB.
    type: str
    choices: [node, controller]
  force:
    description:
      - Replace or remove a tree at O(dest) that this module did not create. A replaced tree is kept in the folder beside
        O(dest), and a warning names its path.
      - Has no effect if O(dest) already holds the image.
    type: bool
    default: false
  recreate:
    description:
      - Unpack the tree again even if O(dest) already holds the image.
    type: bool
    default: false
  in_use:
    description:
      - What to do if the tree is in use in any mount namespace. It is in use if a mount lies in the tree, a mount or an
        overlay shows a part of it elsewhere, or a process has its root, working directory, executable, an open file or a
        mapped file in it.
      - V(fail) stops before anything is exchanged or removed, and lists the users. V(ignore) continues.
    type: str
    choices: [fail, ignore]
    default: fail
  keep:
    description:
      - The number of earlier trees to keep beside O(dest) for O(state=previous). A mount point keeps none.
    type: int
    default: 1
  mark_failed:
    description:
      - With O(state=previous), note that the tree which is replaced has failed. It is kept as O(keep) says, but a later
        O(state=previous) never brings it back.
    type: bool
    default: false
  reachable:
    description:
      - What to do with setuid and setgid files, file capabilities and device nodes of an image in a O(dest) that ordinary
        users of the node can reach. They could run these files outside of the container.
      - They cannot reach O(dest) if only root and, with O(uid_map), the container's root can pass one folder above it.
        Permissions of groups, ACLs and owners count as well as those of others. Folders that the module makes are closed.
      - V(fail) stops before anything is exchanged; if O(dest) holds the image already, it only warns.
        V(warn) continues with a warning, V(allow) without one.
    type: str
    choices: [fail, warn, allow]
    default: fail
  policy:
    description:
      - Which files that give rights away the image may have. A kind of file without a key here is not judged; every file of a
        judged kind that no pattern matches is an error before anything is exchanged.
      - The kinds are V(setuid), V(setgid), V(capabilities), V(devices), V(world_writable) (files, and directories without
        the sticky bit) and V(unowned) (files of a user or group that the image's own F(/etc/passwd) and F(/etc/group) do not
        know). RV(report.inventory) lists what an image has.
      - Each kind has a list of paths in the root; an empty list allows no file. V(*) stands for any characters of one name,
        a name V(**) for any number of names.
      - V(capabilities) is a mapping of such paths to lists of the capabilities that these files may have at most, such as
        V(cap_net_raw).
      - The tree at O(dest) is judged as well, also with O(state=staged) and O(state=previous), without unpacking it again.
        In check mode, a new image is not judged.
    type: dict
  lock_timeout:
    description:
      - The number of seconds to wait for another run on the same O(dest).
    type: int
    default: 300
  devices:
    description:
      - What to do with character and block devices of the image.
      - V(safe) creates null, zero, full, random, urandom, tty, console and ptmx, and the 0:0 marks of overlayfs. It skips
        and counts others, because a device node gives access to the device.
      - V(create) creates all, V(skip) none. V(fail) is an error if the image has any.
      - The default is V(safe) for root without an id map, V(skip) otherwise.
    type: str
    choices: [safe, create, skip, fail]
  ownership:
    description:
      - V(preserve) sets the owners of the image, by number. It needs root.
      - V(ignore) leaves all files to the user who runs the module. Devices, file capabilities, setuid and setgid bits are
        dropped and counted.
      - The default is V(preserve) for root, V(ignore) otherwise.
    type: str
    choices: [preserve, ignore]
  uid_map:
    description:
      - Ranges of user ids, each as V(container:host:count), for a container with a user namespace.
        File capabilities and ACLs are written for that namespace.
      - An id outside of all ranges is an error.
    type: list
    elements: str
    default: []
  gid_map:
    description:
      - The same for groups. Required together with O(uid_map).
    type: list
    elements: str
    default: []
  xattrs:
    description:
      - Names of extended attributes to write beyond C(user.*), C(security.capability) and POSIX ACLs.
    type: list
    elements: str
    default: []
  acl:
    description:
      - What to do with an access ACL that the file system of O(dest) cannot store, or with an invalid ACL, such as one that
        names users or groups without a mask.
      - V(preserve) is an error, because without the ACL more users could have access. V(drop) drops the ACL and limits the
        group's permissions to those of the ACL's owning group.
    type: str
    choices: [preserve, drop]
    default: preserve
  keep_dirlinks:
    description:
      - Keep a symbolic link to a directory, instead of replacing it, when a layer has a directory of the same name.
        The target of the link then gets the directory's owner, mode and times.
    type: bool
    default: false
  max_size:
    description:
      - The maximum size of all layers together after decompression, such as V(500M) or V(100G). Sparse files count with
        their apparent size. A larger image is an error.
      - It also limits a whole archive, with every image and file in it, that cannot be read in place because it is
        compressed as a whole or comes from a server that does not serve ranges of bytes. For a larger archive, raise this
        option, or save only the image that is needed.
    type: str
    default: 100G
  max_entries:
    description:
      - The maximum number of entries in all layers together. An image with more is an error.
    type: int
    default: 2000000
  cache_dir:
    description:
      - A folder on the node that keeps verified blobs, so that a layer of several images is sent or fetched once. By
        default, no blob is kept. Any number of O(dest) may share a folder.
      - A blob is used again for the same O(src), or for images of one O(cache_scope).
      - A missing folder is made for the running user alone. A folder is refused if other users can write to it or to a
        folder above it.
      - Blobs are verified on each use. Damaged ones are discarded, and RV(report) counts them. A cache that is full or
        cannot be written to only causes a warning.
      - Changing this option does not change O(dest).
    type: path
  cache_scope:
    description:
      - A name for images that may read each other's layers, for example all images of one team. They share the blobs in
        O(cache_dir). By default, a blob is used again only for the O(src) that it came from.
      - A blob is used only for a scope that has added all of it once. An image can name the digest of any layer, and would
        otherwise get the content of layers that its builder may not read.
    type: str
  cache_max_size:
    description:
      - The maximum size of O(cache_dir), such as V(500M) or V(20G). At its end, a run that unpacked an image removes the
        least recently used blobs.
    type: str
    default: 20G
  cache_max_age:
    description:
      - The number of days without use after which a blob is removed from O(cache_dir), at the end of a run that unpacked an
        image. V(0) means never.
    type: int
    default: 30
  _verdict:
    description:
      - B(Not for tasks), only the action plugin sets it.
      - Which images the controller has verified the signatures of.
    type: dict
  _offer:
    description:
      - B(Not for tasks), only the action plugin sets it.
      - A file with the documents of an image that is on the controller.
    type: str
  _upload_folder:
    description:
      - B(Not for tasks), only the action plugin sets it.
      - The folder that the controller has sent blobs to.
    type: str
notes:
  - If the Python library isal or zlib-ng is installed on the node, it inflates gzip layers in half the time.
    RV(report.gzip) names the library that was used. Neither is required.
  - Ansible sends a module to the node for every task. Turn C(pipelining) on for fleets.
  - Blobs for nodes are files in the controller's local temporary folder during the transfer, once for all nodes. If it is
    too small, set E(ANSIBLE_LOCAL_TEMP).
  - A node gets only documents and layers of images on the controller that match O(ref), O(digest) and O(platform).
    Without O(platform), these are the images of every platform.
  - The next run continues an interrupted transfer at the blob; O(state=absent) removes it.
  - RV(report) counts each kind of file attribute that was left out.
seealso:
  - module: hypervisor.oci.oci_image_info
  - name: OCI image format
    description: The specification of what this module reads.
    link: https://github.com/opencontainers/image-spec
"""

EXAMPLES = r"""
---
- name: Provision a root file system from an archive on the controller
  hypervisor.oci.oci_rootfs:
    src: images/app.oci.tar
    dest: /var/lib/lxc/app/rootfs
  register: app

- name: Show the command, user and directory of the image
  ansible.builtin.debug:
    msg: "{{ app.image.argv }} as {{ app.image.uid }}:{{ app.image.gid }} in {{ app.image.working_dir }}"

- name: Choose one of several images in an archive, and pin its digest
  hypervisor.oci.oci_rootfs:
    src: images/all.oci.tar
    dest: /var/lib/machines/web
    ref: registry.example.org/web:2.1
    platform: linux/arm64
    digest: "{{ web_digest }}"

- name: Install only what the release team has signed
  hypervisor.oci.oci_rootfs:
    src: images/web.oci.tar
    dest: /var/lib/machines/web
    signature_keys:
      - keys/release.pub
    signature_identity: registry.example.org/web

- name: Refuse an image with setuid files, capabilities or devices that nobody has allowed
  hypervisor.oci.oci_rootfs:
    src: images/web.oci.tar
    dest: /var/lib/machines/web
    policy:
      setuid: [/usr/bin/su]
      capabilities:
        /usr/bin/ping: [cap_net_raw]
      devices: []

- name: Unpack on the node while the old container runs
  hypervisor.oci.oci_rootfs:
    src: /srv/images/app-2.oci.tar
    remote_src: true
    dest: /var/lib/lxc/app/rootfs
    state: staged

- name: Exchange the trees when the container is stopped, and keep the old one
  hypervisor.oci.oci_rootfs:
    src: /srv/images/app-2.oci.tar
    remote_src: true
    dest: /var/lib/lxc/app/rootfs
    keep: 1

- name: Fetch on the controller, once for all nodes, which get no credentials
  hypervisor.oci.oci_rootfs:
    src: https://images.example.org/app.oci.tar
    fetch: controller
    url_username: deploy
    url_password: "{{ images_password }}"
    dest: /var/lib/machines/web

- name: Go back to the tree before the last update
  hypervisor.oci.oci_rootfs:
    dest: /var/lib/lxc/app/rootfs
    state: previous

- name: Let each node fetch its own image from a mirror that need not be trusted
  hypervisor.oci.oci_rootfs:
    src: https://mirror.example.org/images/all.oci.tar
    dest: /var/lib/machines/web
    digest: "{{ web_digest }}"
    cache_dir: /var/cache/hypervisor.oci
    cache_scope: web

- name: A root file system for an unprivileged container
  hypervisor.oci.oci_rootfs:
    src: images/app.oci.tar
    dest: /var/lib/lxc/unprivileged/rootfs
    uid_map: ["0:100000:65536"]
    gid_map: ["0:100000:65536"]

- name: Remove it
  hypervisor.oci.oci_rootfs:
    dest: /var/lib/lxc/app/rootfs
    state: absent
"""

RETURN = r"""
dest:
  description: The path of the root file system as the task gives it.
  returned: success
  type: str
  sample: /var/lib/lxc/app/rootfs
manifest_digest:
  description: The digest of the image's manifest. Null for an old C(docker save) archive, which has none.
  returned: O(state) is not V(absent)
  type: str
config_digest:
  description: The digest of the image's config.
  returned: O(state) is not V(absent)
  type: str
ref:
  description: The name of the image in the archive, null if it has none.
  returned: O(state) is not V(absent)
  type: str
  sample: docker.io/library/alpine:3.20
platform:
  description: The image's platform, null if the image does not give all of it.
  returned: O(state) is not V(absent)
  type: str
  sample: linux/amd64
signed_by:
  description:
    - The fingerprints of the keys by which signatures of the image were verified, each as C(sha256:) and the SHA-256 of the
      key's SubjectPublicKeyInfo. Empty if O(signature_keys) was never used for this tree.
  returned: O(state) is not V(absent)
  type: list
  elements: str
layers:
  description: The image's layers in the order of their application.
  returned: O(state) is not V(absent)
  type: list
  elements: dict
  contains:
    digest:
      description: The digest of the blob, or of its content if the archive names no other.
      type: str
    diff_id:
      description: The digest of the uncompressed layer.
      type: str
    size:
      description: The blob's size in bytes.
      type: int
    media_type:
      description: The media type of the blob in the manifest.
      type: str
image:
  description: The image's config, normalised.
  returned: O(state) is not V(absent)
  type: dict
  contains:
    entrypoint:
      description: The entry point, a list of words.
      type: list
      elements: str
    cmd:
      description: The default arguments, a list of words.
      type: list
      elements: str
    argv:
      description: The command to run, entry point and arguments together.
      type: list
      elements: str
    env:
      description: Environment variables, in the image's order.
      type: dict
    env_dropped:
      description: The number of entries of the image's environment that had no C(=) and were left out.
      type: int
    working_dir:
      description: The directory to start in, always absolute.
      type: str
    user:
      description: The user as the image writes it.
      type: str
    uid:
      description:
        - The user's id in the container, from the image's own F(/etc/passwd).
        - Null if the name does not exist, with a warning, and in check mode for a new image.
      type: int
    gid:
      description: The user's group, as RV(image.uid).
      type: int
    groups:
      description: Supplementary groups, as RV(image.uid).
      type: list
      elements: int
    home:
      description:
        - The user's home directory, from the image's own F(/etc/passwd). Null without an account or an absolute path, and as
          RV(image.uid).
      type: str
      sample: /home/app
    stop_signal:
      description: The signal that asks the container to stop.
      type: str
      sample: SIGTERM
    exposed_ports:
      description: Ports, as V(8080/tcp) or V(8000-8010/udp).
      type: list
      elements: str
    volumes:
      description: Paths that the image declares as volumes.
      type: list
      elements: str
    labels:
      description: The image's labels.
      type: dict
    settings_dropped:
      description:
        - The number of invalid settings of the image that were left out, of the health check, the exposed ports and the stop
          signal. A warning names them.
      type: int
    healthcheck:
      description:
        - The valid fields of the health check as the image writes it, or null. C(Shell) is the image's own, if the check is for a
          shell.
      type: dict
    architecture:
      description: The architecture.
      type: str
    os:
      description: The operating system.
      type: str
    variant:
      description: The architecture's variant, or null.
      type: str
    created:
      description: When the image was made, or null.
      type: str
    history:
      description: How the image was made.
      type: list
      elements: dict
report:
  description:
    - The report of the run that unpacked the tree; null in check mode for a new image.
  returned: O(state) is not V(absent)
  type: dict
  contains:
    entries:
      description: Entries of all layers.
      type: int
    files:
      description: Regular files among them.
      type: int
    bytes:
      description: Bytes of file content written, without holes.
      type: int
    whiteouts:
      description: Whiteouts and opaque marks.
      type: int
    gzip:
      description: The library that inflated layers, V(zlib), V(isal) or V(zlib-ng). Null if no layer was compressed by gzip.
      type: str
    inventory:
      description:
        - Files of the tree that give rights away, by the kinds of O(policy). Each kind has C(count) and C(files), of which no
          more than 1,000 are shown, sorted by C(path).
        - What else is told of a file depends on its kind. It is C(uid) for C(setuid), C(gid) for C(setgid), C(permitted),
          C(inheritable) and C(effective) for C(capabilities), C(device) for C(devices), C(type) for C(world_writable), and
          C(uid) and C(gid) for C(unowned). Ids are those in the container, null for an id that it does not have.
      type: dict
      sample: {"setuid": {"count": 1, "files": [{"path": "/usr/bin/su", "uid": 0}]}}
    counts:
      description: Counts by kind of everything that was skipped, filtered, ignored or is remarkable.
      type: dict
      sample: {"devices_skipped": 2, "pax_global_headers": 1}
"""

import typing as t

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._errors import MissingLibraryError, OciError
from ..module_utils._interrupt import interruptible
from ..module_utils._options import SIGNATURE_ARGUMENTS, options_from
from ..module_utils._provision.outcome import Outcome, VerdictRequest
from ..module_utils._provision.provision import provision
from ..module_utils._quiet_module import QuietModule
from ..module_utils._registry.arguments import FETCH_ARGUMENTS, without_secrets
from ..module_utils._result import bounded_warnings, to_json_safe
from ..module_utils._dest.reach import CHOICES, FAIL
from ..module_utils._size_arguments import MAX_SIZE_ARGUMENTS, parse_size
from ..module_utils._unpack_options import UNPACK_ARGUMENTS

ARGUMENT_SPEC: dict[str, t.Any] = {
    "src": {"type": "path"},
    "dest": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "staged", "previous", "absent"], "default": "present"},
    "ref": {"type": "str"},
    "digest": {"type": "str"},
    "platform": {"type": "str"},
    "remote_src": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
    "recreate": {"type": "bool", "default": False},
    "in_use": {"type": "str", "choices": ["fail", "ignore"], "default": "fail"},
    "keep": {"type": "int", "default": 1},
    "mark_failed": {"type": "bool", "default": False},
    "reachable": {"type": "str", "choices": CHOICES, "default": FAIL},
    "policy": {"type": "dict"},
    "lock_timeout": {"type": "int", "default": 300},
    **UNPACK_ARGUMENTS,
    **MAX_SIZE_ARGUMENTS,
    "cache_dir": {"type": "path"},
    "cache_scope": {"type": "str"},
    "cache_max_size": {"type": "str", "default": "20G"},
    "cache_max_age": {"type": "int", "default": 30},
    "fetch": {"type": "str", "choices": ["node", "controller"]},
    **SIGNATURE_ARGUMENTS,
    **FETCH_ARGUMENTS,
    "_offer": {"type": "str"},
    "_upload_folder": {"type": "str"},
}


def main() -> None:
    """Run the module."""
    module = QuietModule(
        without_secrets,
        argument_spec=ARGUMENT_SPEC,
        supports_check_mode=True,
        required_if=[("state", "present", ["src"]), ("state", "staged", ["src"])],
    )
    params = module.given
    try:
        sizes = {name: parse_size(name, module.params[name]) for name in ("max_size", "cache_max_size")}
        with interruptible():
            options = options_from({**params, **sizes})
            outcome = provision(options, module.check_mode)
    except MissingLibraryError as error:
        module.fail_json(msg=missing_required_lib(error.library, reason=error.why), exception=error.details)
    except OciError as error:
        module.fail_json(msg=error.message)
    if not isinstance(outcome, Outcome):
        # for the action plugin, which does what is asked for and runs the module again
        if isinstance(outcome, VerdictRequest):
            module.exit_json(changed=False, _verdict_request=True)
        module.exit_json(changed=False, _upload_request=to_json_safe(outcome.to_result()))
    result = outcome.to_result()
    for warning in bounded_warnings(result.pop("warnings")):
        module.warn(warning)
    result = to_json_safe(result)
    facts = {key: result[key] for key in result if key not in ("changed", "diff")}
    if not module._diff:
        del result["diff"]
    module.exit_json(ansible_facts={"oci_rootfs": facts}, **result)


if __name__ == "__main__":
    main()
