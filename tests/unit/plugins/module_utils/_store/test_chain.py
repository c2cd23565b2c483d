# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Chain IDs and keys of snapshots (image-spec, config.md)."""

from __future__ import annotations

import hashlib

from ansible_collections.hypervisor.oci.plugins.module_utils._store.chain import chain_ids, key_of

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


def joined(lower: str, diff_id: str) -> str:
    return "sha256:" + hashlib.sha256(f"{lower} {diff_id}".encode()).hexdigest()


def test_chain_ids() -> None:
    """ChainID(L0) = DiffID(L0); ChainID(L0|...|Ln) = Digest(ChainID(L0|...|Ln-1) + " " + DiffID(Ln))."""
    assert chain_ids([]) == []
    assert chain_ids([A]) == [A]
    assert chain_ids([A, B, C]) == [A, joined(A, B), joined(joined(A, B), C)]
    assert chain_ids([A, A]) != chain_ids([A])


def test_keys() -> None:
    keys = {key_of(A, {"x": 1}), key_of(B, {"x": 1}), key_of(A, {"x": 2}), key_of(A, {})}
    assert len(keys) == 4
    assert key_of(A, {"x": 1, "y": 2}) == key_of(A, {"y": 2, "x": 1})
