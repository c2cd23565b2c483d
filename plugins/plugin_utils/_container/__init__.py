# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Containers as their runtimes want them described.

The image's config merged with what the playbook sets, and rendered for each runtime, which has a file of its own. The
filters call it.

No file system is touched here: the node's half is ``module_utils/_container``.
"""
