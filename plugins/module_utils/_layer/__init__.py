# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""From one blob to verified tar entries.

Decompression in a pipeline of threads, both digests of a layer, tar headers with their extensions, sparse files, and the
limits that all layers of an image share.

Entries are not written here: ``_rootfs`` applies them.
"""
