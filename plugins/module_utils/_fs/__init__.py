# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Python lacks to work on a file system safely.

System calls, descriptors in ``with``, opening and making directories without following links, removing trees,
making writes durable. Everything takes descriptors of directories and single names.

Nothing here knows of images, containers or Ansible, and nothing is imported from other rooms but ``_errors``.
"""
