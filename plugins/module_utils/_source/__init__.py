# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the bytes of an image come from.

An archive, a layout directory, a compressed archive and an offer of the controller stand behind one small protocol,
``Source``: documents by name or digest, blobs as streams, their sizes.

Platforms, configs and tags belong to ``_image``, URLs and HTTP to ``_remote``.
"""
