# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Registries as sources.

Names are parsed once. Challenges and tokens, credentials, requests and blobs have a file each; ``source.py`` makes the
documents and blobs of a repository one more source. Redirects and retries are those of ``_remote``.
"""
