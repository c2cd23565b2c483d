# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""The module's work, step by step: plan what has to change at dest, guard, then predict or carry out.

A plan compares the record with the options and changes nothing. Formats of images, rules about files and steps
on disk belong to the rooms below; nothing here knows of Ansible. Read ``provision.py`` first.
"""
