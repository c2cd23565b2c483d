# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Which images of a source are signed: finds the signatures beside them, and judges each image by a task's policy.

What a signature proves is the business of ``_signature``; where bytes come from is that of ``_source``.
"""
