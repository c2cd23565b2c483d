# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""From documents to an ``Image``.

Digests, descriptors, media types and names as types; indexes, manifests and configs parsed and verified; the choice of
one image by reference, digest and platform.

Layers are only described here: ``_layer`` reads them. Where bytes come from is the business of ``_source``.
"""
