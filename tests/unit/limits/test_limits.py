# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images that ask for too much end in an error that names the limit, or in a tree, in bounded memory and time.

See docs/behaviour.md, sections 3, 4 and 7. The same at full size: C(tests/limits/run.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.limits.cases import (
    FAST,
    Case,
    exceeded,
)
from ansible_collections.hypervisor.oci.tests.limits.measure import (
    make_apart,
    measure,
)


@pytest.mark.parametrize("case", FAST, ids=lambda case: case.name.replace(" ", "-"))
def test_what_asks_for_too_much_is_bounded(case: Case, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    src = make_apart(case.make, str(images))
    found = measure(src, str(tmp_path), case.verb, **case.options)
    assert case.error in found.error
    assert bool(found.error) == bool(case.error)
    assert found.left == ()
    assert [words for wrong, words in exceeded(case, found) if wrong] == []
