# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""From tar entries to a root file system that is under construction.

Entries and whiteouts applied by descriptor, links resolved as if chrooted, owners, modes, ACLs, capabilities and
extended attributes for this host, ids mapped, and the image's user as numbers.

Where the tree lies and how it replaces another one belongs to ``_dest``, what a container needs around it to
``_container``.
"""
