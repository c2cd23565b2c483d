# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The comparison with the model bites: each seeded fault is found.

The faults break rules of docs/behaviour.md, sections 4 to 6.
"""

from __future__ import annotations

import functools
import os
import typing as t

import pytest
from ansible_collections.hypervisor.oci.tests.model import compare
from ansible_collections.hypervisor.oci.tests.model.faults import FAULTS, Fault, find, generate

# how many, and their seed: most faults are found in the first ones, and each process makes its own
_BATCHES = ((80, 1), (800, 2), (800, 3), (800, 4), (800, 5), (800, 6))
_MOST_ENTRIES = 8


_images = functools.lru_cache(maxsize=None)(generate)


@pytest.fixture(name="work")
def _work() -> t.Iterator[bytes]:
    with compare.workplace() as work:
        yield work


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.what for fault in FAULTS])
def test_fault_is_found(fault: Fault, work: bytes) -> None:
    """A broken product disagrees with the model soon, and on an image of a few lines."""
    if fault.root_only and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    tries = (find(fault, _images(number, seed), work) for number, seed in _BATCHES)
    found = next(filter(None, tries), None)
    assert found is not None, f"not found in {sum(number for number, _seed in _BATCHES)} images"
    _number, image, lines = found
    assert sum(map(len, image.layers)) <= _MOST_ENTRIES, compare.to_code(image)
    assert lines
