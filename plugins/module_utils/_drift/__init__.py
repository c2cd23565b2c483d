# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has become of a tree since it was unpacked.

The journal replayed, the live tree compared with it and with the image's layers, findings, and what is put back. Which tree,
and which layers, is decided in ``_provision``.
"""
