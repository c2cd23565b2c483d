# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Which files of a root file system give rights away, and which of them a task allows (docs/behaviour.md, section 13).

Nothing here touches a file system: ``_rootfs`` finds the files, and ``_dest`` keeps the inventory of a tree.
"""
