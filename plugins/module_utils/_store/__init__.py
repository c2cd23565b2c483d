# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers that are unpacked once for all trees of a node (docs/behaviour.md, section 16).

A store holds snapshots, one for each chain of layers and options that change the tree. ``_provision`` decides when one is
used; how a tree becomes ``dest`` belongs to ``_dest``.
"""
