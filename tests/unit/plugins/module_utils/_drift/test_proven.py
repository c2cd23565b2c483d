# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the files are kept that were touched and compared since (docs/behaviour.md, section 17)."""

from __future__ import annotations

import zlib

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.proven import from_bytes, to_bytes

KEPT = {0: (1, 2), 2**32 - 1: (-(2**63), 2**63 - 1)}


def test_what_is_kept_comes_back() -> None:
    assert from_bytes(to_bytes(KEPT)) == KEPT
    assert from_bytes(to_bytes({})) == {}


@pytest.mark.parametrize("times", [(2**63, 0), (-(2**63) - 1, 0), (0, 2**62 * 10**9)])
def test_times_that_a_container_chose_far_away_prove_nothing(times: tuple[int, int]) -> None:
    """btrfs and tmpfs keep any number of seconds; such a file stays a suspect."""
    assert from_bytes(to_bytes({**KEPT, 7: times})) == KEPT


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"oci-proven-1\n",
        b"oci-proven-2\n" + to_bytes(KEPT)[13:],
        to_bytes(KEPT)[:-1],
        b"oci-proven-1\n" + zlib.compress(b"x" * 19),
        b"oci-proven-1\n" + zlib.compress(bytes(20 * 1_000_001)),
    ],
    ids=["empty", "nothing", "version", "cut", "part", "large"],
)
def test_what_is_damaged_or_too_large_proves_nothing(data: bytes) -> None:
    assert from_bytes(data) == {}
