# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Where the bytes of an image come from.

An archive, a layout directory, a compressed archive and an offer of the controller stand behind one small protocol,
``Source``: documents by name or digest, blobs as streams, their sizes.

Platforms, configs and tags belong to ``_image``, URLs and HTTP to ``_remote``.
"""
