# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verified blobs that stay on the node for later runs.

Files named by digest in a private folder, their limits and their removal, and which images may take which blob.

Blobs are verified by the reader that wrote them here; how they are fetched belongs to ``_source`` and ``_remote``.
"""
