# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""What Python lacks to work on a file system safely.

System calls, descriptors in ``with``, opening and making directories without following links, removing trees,
making writes durable. Everything takes descriptors of directories and single names.

Nothing here knows of images, containers or Ansible, and nothing is imported from other rooms but ``_errors``.
"""
