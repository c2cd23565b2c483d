# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Signatures: from keys, payloads and bundles to the keys that signed a manifest digest.

Everything here works on bytes that the caller has read: nothing in this room opens a file or a connection. The
arithmetic is that of the Python library cryptography, which is imported only when a key is parsed
(docs/behaviour.md, section 12).
"""
