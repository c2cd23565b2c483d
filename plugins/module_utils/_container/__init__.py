# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""The node's half of a container.

Paths resolved in a tree that a container may be changing, volumes and their copies, mount points, accounts, and the files
that describe a container to its runtime.

Which files these are is decided on the controller, in ``plugin_utils/_container``. Unpacking belongs to ``_rootfs``.
"""
