# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""From tar entries to a root file system that is under construction.

Entries and whiteouts applied by descriptor, links resolved as if chrooted, owners, modes, ACLs, capabilities and
extended attributes for this host, ids mapped, and the image's user as numbers.

Where the tree lies and how it replaces another one belongs to ``_dest``, what a container needs around it to
``_container``.
"""
