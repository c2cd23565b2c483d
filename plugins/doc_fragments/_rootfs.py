# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is PRIVATE to the collection.

from __future__ import annotations


class ModuleDocFragment:
    """The options of ``oci_rootfs`` itself."""

    DOCUMENTATION = r"""
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
  repair:
    description:
      - What to do if O(verify) finds that something of the image is missing or has changed. Extra files alone are never a reason.
      - V(none) only tells the findings; nothing is changed.
      - V(paths) puts back what is missing or changed, in place, from the image's verified layers. Names of one file are put back together.
        Extra files stay, but not in a directory where the image has something else. It is not atomic.
      - V(recreate) unpacks the whole tree anew and exchanges the trees. The tree that is replaced is kept, whatever O(keep) says, until
        another one that has drifted is. It is an error in a mount point.
      - With V(paths) and V(recreate), a tree in use is an error as for an update; see O(in_use).
    type: str
    choices: [none, paths, recreate]
    default: none
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
  store_dir:
    description:
      - A folder on the node, for root only, that holds unpacked layers, so that trees of images with the same lower layers
        share them. A second tree of an image then costs no time and no space, and an update what has changed.
      - Works if it lies on the same file system as O(dest). On btrfs, O(dest) becomes a snapshot there. Elsewhere it becomes
        the layers of an overlay, which the role P(hypervisor.oci.container#role) mounts when its container starts, and which
        RV(mount) tells how to mount. In a mount point, and where neither works, a tree of its own is unpacked, with a warning.
      - Layers that are there are neither sent nor fetched. One is used only for an image that names a blob which was verified
        to give it. Images of one store trust each other as those of one O(cache_scope) do.
      - By default, each tree is unpacked whole.
    type: path
  store_max_age:
    description:
      - The number of days after which layers that no tree needs and no run has used are removed from O(store_dir), at the end
        of a run that unpacked an image.
    type: float
    default: 7
  _verdict:
    description:
      - B(Not for tasks), only the action plugin sets it.
      - Which images the controller has verified the signatures of.
    type: dict
"""
