# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module's work, step by step: plan what has to change at dest, guard, then predict or carry out.

A plan compares the record with the options and changes nothing. Formats of images, rules about files and steps
on disk belong to the rooms below; nothing here knows of Ansible. Read ``provision.py`` first.
"""
