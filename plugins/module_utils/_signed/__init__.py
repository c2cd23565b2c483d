# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which images of a source are signed: finds the signatures beside them, and judges each image by a task's policy.

What a signature proves is the business of ``_signature``; where bytes come from is that of ``_source``.
"""
