# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""The directory that a root file system is provisioned at.

Its path and lock, the record, staging, the exchange with the tree that is there or the replacement inside of a mount
point, who uses a tree, and who can reach it.

What is in a tree is not known here: ``_rootfs`` fills it.
"""
