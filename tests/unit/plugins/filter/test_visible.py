# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter ``visible``: text that others wrote, in a message (docs/behaviour.md, section 8)."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.hypervisor.oci.plugins.filter.visible import FilterModule

visible = FilterModule().filters()["visible"]


def test_text_that_a_terminal_obeys() -> None:
    assert visible("\x1b[2J\x9bm\u202e\n") == "\\x1b[2J\\x9bm\\u202e\\n"
    assert visible("grün") == "grün"
    assert visible(None) == "None"


def test_long_text_is_cut_in_the_middle() -> None:
    assert visible("a" * 10**6 + "end", 10) == "aaaaaaa...end"
    assert len(visible("a" * 10**6)) == 503


@pytest.mark.parametrize("limit", [0, -1, "5", None, True, 1.5])
def test_limits_that_are_none(limit: t.Any) -> None:
    with pytest.raises(AnsibleFilterError, match="above 0"):
        visible("a", limit)
