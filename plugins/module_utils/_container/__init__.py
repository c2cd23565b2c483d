# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's half of a container.

Paths resolved in a tree that a container may be changing, volumes and their copies, mount points, accounts, and the files
that describe a container to its runtime.

Which files these are is decided on the controller, in ``plugin_utils/_container``. Unpacking belongs to ``_rootfs``.
"""
