#!/usr/bin/python
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_rootfs
short_description: Turn an OCI image archive into a root file system
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Unpacks a container image that is bundled as a tar archive, as an image layout directory, or by C(docker save)
    into a directory on a hypervisor node, for LXC, Proxmox VE, systemd-nspawn, runc or crun to run.
  - The directory is fingerprinted by the digest of the image's manifest. A second run with the same image and options
    opens no layer and changes nothing. Another image replaces the whole tree atomically.
  - Every digest of the image is verified while it is read. Nothing is visible at O(dest) before all of it is.
  - Names and links in the image are resolved inside of the root only, whatever the image says.
  - What a container wrote into its root does not survive an update. Keep data on mounts.
  - Returns the image's config, from which a container can be described to a runtime.
requirements:
  - Python 3.8 or newer on the node
  - Linux 3.15 or newer; older file systems and kernels that cannot exchange two directories are replaced in two steps
  - the Python library zstandard, for images with layers that are compressed by zstd, unless Python is 3.14 or newer
extends_documentation_fragment:
  - hypervisor.oci._attributes
  - hypervisor.oci._http
attributes:
  check_mode:
    support: full
    details:
      - Writes nothing at all. Layers are not read, so a damaged one is only found by a real run.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - With O(recreate=true) the tree is always made anew, and O(state=previous) always exchanges.
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
      - Only with O(remote_src=true), a URL, or a connection V(local), since a transfer from the controller cannot go on in
        the background.
  safe_file_operations:
    support: none
    details:
      - The module has stricter file operations of its own, by directory descriptor.
options:
  src:
    description:
      - The image. An archive or directory on the controller, or on the node with O(remote_src=true), or an archive's
        C(http) or C(https) URL.
      - What it is shows from its content, never from its name. Understood are a tar that holds an OCI image layout,
        the output of C(docker save), old and new, each of them also compressed as a whole by gzip, zstd, xz or bzip2,
        and an OCI image layout directory.
      - A URL is read by the node, which fetches only the archive's index and the blobs of its own image that it lacks.
        Its user, password and query are neither logged nor returned.
        Any web server will do. One that does not serve ranges of bytes sends the whole archive, twice where it is
        unpacked.
      - Required with O(state=present) and O(state=staged).
    type: path
  dest:
    description:
      - The root file system, as an absolute path. It belongs to this module alone, but for what containers write there.
      - Directories above it that are missing are made. The last one is closed to other users (0700); with O(uid_map), the
        container's root may pass it by its group (0710).
      - A folder C(.NAME.oci_rootfs) beside it, for root only, holds the record, and trees that are on their way or kept.
      - Where it is a mount point, its content is replaced name by name, which is not atomic; the record then lies in
        C(/var/lib/hypervisor.oci).
      - A symbolic link, C(/) and the system's own directories are refused.
    type: path
    required: true
  state:
    description:
      - V(present) makes sure that the image is at O(dest).
      - V(staged) unpacks and verifies beside O(dest) and stops there, while the old container runs. The next run with
        V(present) for the same image and options only exchanges. It is an error where O(dest) is a mount point, since the
        container could change the tree there.
      - V(previous) exchanges O(dest) with the tree that was there before; see O(keep).
      - V(absent) removes the tree and everything that belongs to it. What cannot be removed, such as a mount in an old
        tree, is a warning, and the next run tries again.
    type: str
    choices: [present, staged, previous, absent]
    default: present
  ref:
    description:
      - Which image of the archive, by name. Compared after Docker's rules, so that V(alpine) is
        V(docker.io/library/alpine:latest). A bare tag matches the tag of a full name.
      - Needed only where there is more than one.
    type: str
  digest:
    description:
      - The digest that the image's manifest, index or config must have, for example V(sha256:…).
        Anything else is an error before a byte is written. So the server behind a URL need not be trusted.
    type: str
  platform:
    description:
      - Which platform's image, as V(os/architecture) or V(os/architecture/variant). The default is the node's own.
      - Lower variants are taken if the exact one is missing, another architecture never.
      - An image that does not give its operating system or architecture is never taken for a platform that is set here.
        Without this option, it is taken with a warning if O(ref), O(digest) or the archive leaves no other image.
    type: str
  remote_src:
    description:
      - Whether O(src) is on the node already. Otherwise, unless it is a URL, the controller offers it to the node, and
        sends the blobs that the node asks for, those of its own platform that it does not have, into a folder on the file
        system of O(dest).
    type: bool
    default: false
  force:
    description:
      - Replace, or remove, what is at O(dest) although this module did not make it. The replaced tree is kept in the
        folder beside O(dest), and a warning says where.
      - Changes nothing where the fingerprint matches.
    type: bool
    default: false
  recreate:
    description:
      - Make the tree anew even if the same image is there already.
    type: bool
    default: false
  in_use:
    description:
      - What to do where a mount lies in the tree, a mount or an overlay shows a part of it elsewhere, or a process has its
        root, working directory, executable, an open or a mapped file there, in whatever mount namespace.
      - V(fail) stops before anything is exchanged or removed, and lists them. V(ignore) goes on.
    type: str
    choices: [fail, ignore]
    default: fail
  keep:
    description:
      - How many earlier trees stay beside O(dest) for O(state=previous). None stay where O(dest) is a mount point.
    type: int
    default: 1
  reachable:
    description:
      - What to do with setuid and setgid files, file capabilities and device nodes of an image in a O(dest) that ordinary
        users of the node can reach. They could run these files outside of the container.
      - A O(dest) is out of reach when one folder above it lets nobody pass but root and, with O(uid_map), the container's
        root. Permissions of groups, ACLs and owners count as well as those of others. Folders that the module makes are closed.
      - V(fail) stops before anything is exchanged. A O(dest) that has the image already is only a warning.
        V(warn) goes on with a warning, V(allow) without one.
    type: str
    choices: [fail, warn, allow]
    default: fail
  lock_timeout:
    description:
      - How many seconds to wait for another run on the same O(dest).
    type: int
    default: 300
  devices:
    description:
      - What to do with character and block devices of the image.
      - V(safe) creates null, zero, full, random, urandom, tty, console and ptmx, and the 0:0 marks of overlayfs; others
        are skipped and counted. A disk's node in a readable tree is the disk.
      - V(create) creates all, V(skip) none, V(fail) is an error where there are any.
      - The default is V(safe) for root without an id map, V(skip) otherwise.
    type: str
    choices: [safe, create, skip, fail]
  ownership:
    description:
      - V(preserve) gives files the owners that the image says, by number. It needs root.
      - V(ignore) gives all to the user who runs the module. Devices, file capabilities, setuid and setgid bits are
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
      - What to do with an access ACL that the file system of O(dest) cannot hold, or with an ACL that is invalid, such as one
        that names users or groups without a mask.
      - V(preserve) is an error, since its loss would widen rights. V(drop) narrows the group's rights to what the
        ACL gave the owning group.
    type: str
    choices: [preserve, drop]
    default: preserve
  keep_dirlinks:
    description:
      - Keep a symbolic link to a directory where a layer brings a directory of that name, instead of replacing it.
        The directory's owner, mode and times then go to the one that the link leads to.
    type: bool
    default: false
  max_size:
    description:
      - The most that all layers together may hold when decompressed, as V(500M) or V(100G). Sparse files count with
        their apparent size. A larger image is an error.
      - An archive that cannot be read in place, because it is compressed as a whole or comes from a server that does not
        serve ranges of bytes, may hold as much in all, with every image and file in it, also when it is read on the
        controller. For a larger one, raise this option, or save only the image that is needed.
    type: str
    default: 100G
  max_entries:
    description:
      - The most entries that all layers together may have. An image with more is an error.
    type: int
    default: 2000000
  cache_dir:
    description:
      - A folder on the node where verified blobs stay, so that a layer which several images share is sent or fetched
        once. Without it none stay. Any number of O(dest) may share it.
      - A blob is used again for the same O(src), or for images of one O(cache_scope).
      - It is made for the running user alone where it is missing. One that other users can write to, or reach by a folder
        that they can write to, is refused.
      - Blobs are verified whenever they are used. Damaged ones are discarded, and RV(report) counts them. A cache that is
        full, or cannot be written to, is a warning.
      - It makes no difference to the result, so that O(dest) stays as it is when this option changes.
    type: path
  cache_scope:
    description:
      - A name for images that may read each other's layers, for example all of one team. They share the blobs in
        O(cache_dir). Without it, a blob is used again only for the O(src) that it came from.
      - A blob is used for a scope that has brought all of it once, and for no other. Whoever builds an image can name
        the digest of any layer in it, and would otherwise be given the content of layers that are not his.
    type: str
  cache_max_size:
    description:
      - How much may stay in O(cache_dir), as V(500M) or V(20G). After a run that unpacked an image, the blobs that were not
        used for longest go.
    type: str
    default: 20G
  cache_max_age:
    description:
      - After how many days without use a blob goes from O(cache_dir), at the end of a run that unpacked an image.
        With V(0) it stays.
    type: int
    default: 30
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
  - Where the Python library isal or zlib-ng is installed on the node, gzip layers are inflated by it in half the time.
    RV(report.gzip) says which one it was. Neither is required.
  - Ansible sends a module to the node for every task. Turn C(pipelining) on for fleets.
  - Blobs that are sent from the controller are files in its local temporary folder meanwhile, once for all nodes. Where
    that is too small, set E(ANSIBLE_LOCAL_TEMP).
  - Of an image on the controller a node is told what O(ref), O(digest) and O(platform) leave over, and gets layers of nothing
    else. Without O(platform) it may have those of every platform.
  - A transfer that was interrupted goes on at the blob with the next run, or is removed by O(state=absent).
  - Attributes of files that were left out are never lost in silence, RV(report) counts each kind.
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

- name: Show how the image is to be run
  ansible.builtin.debug:
    msg: "{{ app.image.argv }} as {{ app.image.uid }}:{{ app.image.gid }} in {{ app.image.working_dir }}"

- name: Choose one image of an archive with several, and pin its digest
  hypervisor.oci.oci_rootfs:
    src: images/all.oci.tar
    dest: /var/lib/machines/web
    ref: registry.example.org/web:2.1
    platform: linux/arm64
    digest: "{{ web_digest }}"

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

- name: Go back to the tree from before the last update
  hypervisor.oci.oci_rootfs:
    dest: /var/lib/lxc/app/rootfs
    state: previous

- name: Let each node fetch its own part of an archive from a mirror that need not be trusted
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
  description: The root file system, as it was given.
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
  description: The name under which the archive holds the image, null where it has none.
  returned: O(state) is not V(absent)
  type: str
  sample: docker.io/library/alpine:3.20
platform:
  description: The image's platform, null if the image does not give all of it.
  returned: O(state) is not V(absent)
  type: str
  sample: linux/amd64
layers:
  description: The image's layers in the order of their application.
  returned: O(state) is not V(absent)
  type: list
  elements: dict
  contains:
    digest:
      description: The digest of the blob; of its content where the archive gives no other.
      type: str
    diff_id:
      description: The digest of the tar inside.
      type: str
    size:
      description: The blob's size in bytes.
      type: int
    media_type:
      description: What the manifest says that the blob is.
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
      description: What runs, entry point and arguments together.
      type: list
      elements: str
    env:
      description: Environment variables, in the image's order.
      type: dict
    env_dropped:
      description: How many entries of the image's environment had no C(=) and were left out.
      type: int
    working_dir:
      description: The directory to start in, always absolute.
      type: str
    user:
      description: The user as the image writes it.
      type: str
    uid:
      description:
        - The user's number in the container, from the image's own F(/etc/passwd).
        - Null where the name does not exist, which is a warning, and in check mode for a new image.
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
        - The user's home directory, from the image's own F(/etc/passwd). Null where the user has no account there, or it
          has no absolute path, and as RV(image.uid).
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
      description: Paths that the image wants as volumes.
      type: list
      elements: str
    labels:
      description: The image's labels.
      type: dict
    settings_dropped:
      description:
        - How many settings of the image are invalid and were left out, of the health check, the exposed ports and the stop
          signal. A warning names them.
      type: int
    healthcheck:
      description: The valid fields of the health check as the image writes it, or null.
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
    - What was unpacked. Of the run that made the tree; null in check mode for a new image.
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
      description: The library that inflated layers, V(zlib), V(isal) or V(zlib-ng). Null where none was compressed by gzip.
      type: str
    counts:
      description: Counts by kind of everything skipped, filtered, ignored or worth a look.
      type: dict
      sample: {"devices_skipped": 2, "pax_global_headers": 1}
"""

import typing as t

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._errors import MissingLibraryError, OciError
from ..module_utils._remote.arguments import HTTP_ARGUMENTS, without_secrets
from ..module_utils._interrupt import interruptible
from ..module_utils._options import options_from
from ..module_utils._provision.outcome import Outcome
from ..module_utils._provision.provision import provision
from ..module_utils._quiet_module import QuietModule
from ..module_utils._result import bounded_warnings, to_json_safe
from ..module_utils._dest.reach import CHOICES, FAIL
from ..module_utils._size_arguments import MAX_SIZE_ARGUMENTS, parse_size

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
    "reachable": {"type": "str", "choices": CHOICES, "default": FAIL},
    "lock_timeout": {"type": "int", "default": 300},
    "devices": {"type": "str", "choices": ["safe", "create", "skip", "fail"]},
    "ownership": {"type": "str", "choices": ["preserve", "ignore"]},
    "uid_map": {"type": "list", "elements": "str", "default": []},
    "gid_map": {"type": "list", "elements": "str", "default": []},
    "xattrs": {"type": "list", "elements": "str", "default": []},
    "acl": {"type": "str", "choices": ["preserve", "drop"], "default": "preserve"},
    "keep_dirlinks": {"type": "bool", "default": False},
    **MAX_SIZE_ARGUMENTS,
    "max_entries": {"type": "int", "default": 2000000},
    "cache_dir": {"type": "path"},
    "cache_scope": {"type": "str"},
    "cache_max_size": {"type": "str", "default": "20G"},
    "cache_max_age": {"type": "int", "default": 30},
    **HTTP_ARGUMENTS,
    "_offer": {"type": "str"},
    "_upload_folder": {"type": "str"},
}


def main() -> None:
    """Arguments in, one result out."""
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
        # for the action plugin, which uploads the blobs and runs the module again
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
