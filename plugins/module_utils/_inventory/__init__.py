# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which files of a root file system give rights away, and which of them a task allows (docs/behaviour.md, section 13).

Nothing here touches a file system: ``_rootfs`` finds the files, and ``_dest`` keeps the inventory of a tree.
"""
