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
  # what is long lies in fragments, because nodes get this file with every task
  - hypervisor.oci._rootfs
  - hypervisor.oci._verify
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

- name: Find out what the container has changed in its root file system
  hypervisor.oci.oci_rootfs:
    src: images/app.oci.tar
    dest: /var/lib/lxc/app/rootfs
    verify: content
  register: app

- name: Put back what is missing or changed while the container is stopped
  hypervisor.oci.oci_rootfs:
    src: images/app.oci.tar
    dest: /var/lib/lxc/app/rootfs
    verify: content
    repair: paths

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
store:
  description:
    - How the tree shares layers with others, V(btrfs) or V(overlay). Null for a tree of its own.
  returned: O(state) is not V(absent)
  type: str
mount:
  description:
    - How the overlay of a tree with RV(store=overlay) is mounted, as O(ansible.posix.mount#module:src),
      O(ansible.posix.mount#module:fstype) and O(ansible.posix.mount#module:opts) of M(ansible.posix.mount). Null for another tree.
  returned: O(state) is not V(absent)
  type: dict
  sample: {src: overlay, fstype: overlay, opts: "index=off,lowerdir=/srv/layers/s/x,upperdir=/srv/web/upper,workdir=/srv/web/work"}
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
drift:
  description:
    - What differs between the tree at O(dest) and its image, before anything was repaired. Null if O(dest) got another tree.
  returned: with O(verify)
  type: dict
  contains:
    verdict:
      description:
        - V(clean), V(drifted), V(suspect) (files were touched, and only O(verify=content) tells whether they have changed), V(busy) (files
          changed while they were looked at), V(incomplete) (a bound was reached) or V(not verifiable).
      type: str
    verified:
      description: What was compared, V(metadata) or V(content).
      type: str
    reason:
      description: Why it is incomplete or not verifiable, or null.
      type: str
    entries:
      description: The number of files, directories and others of the image that were looked for.
      type: int
    changed:
      description:
        - Objects that differ, C(count) and up to 1,000 C(files), those that give rights away first. Each has C(path), C(type), C(differs), which
          names what has changed (C(type), C(size), C(content), C(target), C(device), C(mode), C(owner), C(capabilities), C(acl), C(xattrs),
          C(links)), and the values C(recorded) and C(found). C(gives_rights) marks setuid and setgid files, files with
          capabilities and devices, as recorded or found.
      type: dict
      sample:
        count: 1
        files:
          - {path: /usr/bin/env, type: file, differs: [mode], recorded: {mode: "0755"}, found: {mode: "4755"}, gives_rights: true}
    missing:
      description: Objects of the image that are not there, as RV(drift.changed). C(below) counts what was in a directory.
      type: dict
    extra:
      description:
        - Objects that the image does not have. C(below) counts what is in an extra directory; only what gives rights away is listed by itself there.
      type: dict
    suspects:
      description:
        - Regular files that were touched since the tree was unpacked, and whose content was not compared. If C(most) is true, C(paths) is
          empty.
      type: dict
    busy:
      description: C(count) and C(paths) of what changed while it was looked at.
      type: dict
    repair:
      description: The O(repair) that was carried out, or null.
      type: str
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

from ..module_utils._provision.node_source import node_source
from ..module_utils._quiet_module import QuietModule
from ..module_utils._registry.arguments import without_secrets
from ..module_utils._run import REQUIRED_IF, ROOTFS_ARGUMENTS, run

ARGUMENT_SPEC = ROOTFS_ARGUMENTS


def main() -> None:
    """Run the module for a source that the node reads, or without one."""
    module = QuietModule(
        without_secrets, argument_spec=ARGUMENT_SPEC, supports_check_mode=True, required_if=REQUIRED_IF
    )
    run(module, node_source)


if __name__ == "__main__":
    main()
