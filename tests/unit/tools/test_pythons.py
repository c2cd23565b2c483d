# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which Pythons run which tests."""

from __future__ import annotations

import pytest
from ansible_collections.hypervisor.oci.tests.tools import pythons


@pytest.mark.parametrize(
    ("there", "cores", "expected"),
    [
        (["3.8", "3.9", "3.11", "3.13"], ["2.19", "2.21"], {"3.8", "3.13"}),
        # by number, not by letter
        (["3.9", "3.11"], ["2.19", "2.21"], {"3.9", "3.11"}),
        (["3.11"], ["2.19", "2.21"], {"3.11"}),
        (["3.8", "3.11", "3.13"], ["2.19"], {"3.8", "3.11"}),
        ([], ["2.19", "2.21"], set()),
    ],
)
def test_the_oldest_and_the_newest_run_everything(
    monkeypatch: pytest.MonkeyPatch, there: list[str], cores: list[str], expected: set[str]
) -> None:
    monkeypatch.setattr(pythons, "find", lambda version: "/usr/bin/python" if version in there else None)
    assert pythons.ends(cores) == expected
