# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""The directory ``dest`` at which a root file system is provisioned.

Its path and lock, the record, staging, the exchange with the current tree or the replacement inside of a mount point, who
uses a tree, and who can reach it. The content of a tree belongs to ``_rootfs``.
"""
