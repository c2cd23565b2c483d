# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Verified blobs that stay on the node for later runs.

Files named by digest in a private folder, their limits and their removal, and which images may take which blob.

Blobs are verified by the reader that wrote them here; how they are fetched belongs to ``_source`` and ``_remote``.
"""
