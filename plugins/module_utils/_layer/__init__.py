# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""From one blob to verified tar entries.

Decompression in a pipeline of threads, both digests of a layer, tar headers with their extensions, sparse files, and the
limits that all layers of an image share.

Entries are not written here: ``_rootfs`` applies them.
"""
