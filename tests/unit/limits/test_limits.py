# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images that ask for too much end in an error that names the limit, or in a tree, in bounded memory and time.

See docs/behaviour.md, sections 3, 4 and 7. The same at full size: ``tests/limits/run.py``.
"""

from __future__ import annotations

import os
import tempfile
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.limits.cases import FAST, Case, exceeded
from ansible_collections.hypervisor.oci.tests.limits.measure import make_apart, measure


@pytest.fixture(name="folder")
def fixture_folder() -> t.Iterator[Path]:
    """A folder in memory where there is one: what a disk takes is nothing that an image can be blamed for."""
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="oci-limits-", dir=shm) as path:
        yield Path(path)


@pytest.mark.parametrize("case", FAST, ids=lambda case: case.name.replace(" ", "-"))
def test_what_asks_for_too_much_is_bounded(case: Case, folder: Path) -> None:
    images = folder / "images"
    images.mkdir()
    src = make_apart(case.make, str(images))
    found = measure(src, str(folder), case.verb, **case.options)
    assert case.error in found.error
    assert bool(found.error) == bool(case.error)
    assert found.left == ()
    assert [words for wrong, words in exceeded(case, found) if wrong] == []
