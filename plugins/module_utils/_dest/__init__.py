# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The directory ``dest`` at which a root file system is provisioned.

Its path and lock, the record, staging, the exchange with the current tree or the replacement inside of a mount point, who
uses a tree, and who can reach it. The content of a tree belongs to ``_rootfs``.
"""
