# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives on web servers.

URLs and what of them may be shown, requests that are bounded in time, retries, redirects and resumed downloads,
user names and passwords.

What the bytes mean is not known here: ``_source`` reads archives, ``_image`` reads documents.
"""
