# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Chain IDs (image-spec, config.md), and the keys of snapshots."""

from __future__ import annotations

import hashlib
import json
import typing as t


def chain_ids(diff_ids: t.Iterable[str]) -> list[str]:
    """Return the chain ID of each layer with all below it, for diff_ids from the bottom to the top."""
    chain: list[str] = []
    for diff_id in diff_ids:
        if chain:
            diff_id = "sha256:" + hashlib.sha256(f"{chain[-1]} {diff_id}".encode()).hexdigest()
        chain.append(str(diff_id))
    return chain


def key_of(chain_id: str, options: t.Mapping[str, t.Any]) -> str:
    """Return the key of a snapshot; ``options`` are those that change the tree."""
    text = json.dumps([chain_id, options], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
