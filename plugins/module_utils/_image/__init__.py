# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""From documents to an ``Image``.

Digests, descriptors, media types and names as types; indexes, manifests and configs parsed and verified; the choice of
one image by reference, digest and platform.

Layers are only described here: ``_layer`` reads them. Where bytes come from is the business of ``_source``.
"""
