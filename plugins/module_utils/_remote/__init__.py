# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Archives on web servers.

URLs and what of them may be shown, requests that are bounded in time, retries, redirects and resumed downloads,
user names and passwords.

What the bytes mean is not known here: ``_source`` reads archives, ``_image`` reads documents.
"""
