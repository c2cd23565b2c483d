# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""What the role ``container`` does, planned from its variables and from what it found out.

The action ``oci_container_plan`` calls ``plan`` several times, each time with more known, before anything is stopped. Each
runtime is one class in one file behind the protocol ``Runtime``, and ``runtimes.py`` lists them.

Nothing runs on the node here, and nothing is rendered that a filter renders: that is ``_container``.
"""
