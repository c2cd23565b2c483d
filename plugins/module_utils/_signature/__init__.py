# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures: from keys, payloads and bundles to the keys that signed a manifest digest.

Everything here works on bytes that the caller has read: nothing in this room opens a file or a connection. The
arithmetic is that of the Python library cryptography, which is imported only when a key is parsed
(docs/behaviour.md, section 12).
"""
