# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Describes one container to a runtime.

The image's config is merged with what the playbook sets, checked, and rendered for each runtime, which has a file of its own.
The filters call it, and ``_plan``, which says what the role does.

No file system is touched here: the node's half is ``module_utils/_container``.
"""
