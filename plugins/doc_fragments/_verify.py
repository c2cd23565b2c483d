# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is PRIVATE to the collection.

from __future__ import annotations


class ModuleDocFragment:
    """The options of a comparison of a tree with its image."""

    DOCUMENTATION = r"""
options:
  verify:
    description:
      - Whether to compare the tree with what the image made of it, and how closely.
      - V(metadata) reads the status of every file, and extended attributes where they may have changed. It finds what is missing
        or extra, and what differs in type, size, permissions, owner, extended attributes, target, device number or hard links. A file
        that was touched since is a I(suspect), because its content may have changed, until M(hypervisor.oci.oci_rootfs) has found it equal
        by V(content).
      - V(content) also compares the contents with the image's layers, which takes about as long as unpacking. Without access to
        the layers the tree is V(not verifiable).
      - The container may run meanwhile. A file that changes while it is looked at is I(busy).
    type: str
    choices: [none, metadata, content]
    default: none
  verify_exclude:
    description:
      - Paths of the tree that are left out with all below them. V(*) stands for any characters of one name, a name V(**) for any number of
        names. V(volumes) stands for the image's volumes, V(mount_points) for what this collection has made in the tree for mounts.
      - The default is V(volumes), V(mount_points), F(/dev), F(/proc), F(/sys), F(/run), F(/tmp), F(/var/tmp), F(/var/log), F(/var/cache),
        F(/etc/hosts), F(/etc/hostname), F(/etc/resolv.conf), F(/etc/mtab), F(/etc/machine-id) and F(/var/lib/dbus/machine-id). A list
        that is set replaces it.
      - What is mounted in the tree is always left out, and so are sizes, times and link counts of directories.
    type: list
    elements: str
  verify_exclude_extra:
    description:
      - Patterns of paths that are left out where the image has nothing. A directory is left out without what lies in it, unless a
        pattern matches that, too. A changed file of the image is a finding all the same, and so are setuid and setgid files, files with
        capabilities, and devices.
      - The default is V(/**/__pycache__/**), which Python writes when programs run, and what an init system or a daily job writes
        in each container, V(/etc/.pwd.lock), V(/etc/.updated), V(/var/.updated), V(/var/backups/*), V(/var/lib/apt/daily_lock),
        V(/var/lib/apt/lists/**), V(/var/lib/apt/periodic/**), V(/var/lib/logrotate/*), V(/var/lib/systemd/linger) and
        V(/var/lib/systemd/timers/**). A list that is set replaces it.
    type: list
    elements: str
  verify_timeout:
    description:
      - The number of seconds after which a comparison stops. It then tells what it has found so far, and is incomplete.
    type: int
    default: 600
"""
