# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Registries as sources.

Names are parsed once. Challenges and tokens, credentials, requests and blobs have a file each; ``source.py`` makes the
documents and blobs of a repository one more source. Redirects and retries are those of ``_remote``.
"""
