# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The controller's half of the collection.

Which images a task asks for, the offer that describes them to nodes, blobs staged once for all forks, checked answers of
nodes, and progress for the user. The action plugins call it.

Nothing here runs on a node, and nothing on a node imports it. What both sides need belongs to ``module_utils``.
"""
