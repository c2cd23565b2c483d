# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Values for the edge (docs/behaviour.md, section 8)."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._result import bounded_warnings, to_json_safe


def test_warnings_are_bounded() -> None:
    """An image whose user has 3 MB makes no warning of 3 MB, and a thousand oddities no thousand warnings."""
    found = bounded_warnings(["\x1b[2J" * 10**6, *["w"] * 999])
    assert len(found) == 21
    assert all(text.isprintable() for text in found)
    assert sum(map(len, found)) < 10_000
    assert found[-1] == "980 more warnings are not shown"
    assert bounded_warnings(["a", "b"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "safe"),
    [
        ("plain \u00e9 \U0001f600", "plain \u00e9 \U0001f600"),
        # bytes that are no UTF-8, as os.fsdecode gives them
        ("a\udcffb", "a\ufffdb"),
        # half a pair, as JSON may hold it
        ("\ud83d", "\ufffd"),
        ({"k\udcff": ["\udcff", ("\udcff", 1)]}, {"k\ufffd": ["\ufffd", ["\ufffd", 1]]}),
        (None, None),
        (True, True),
        (1.5, 1.5),
    ],
)
def test_only_valid_unicode_is_left(value: t.Any, safe: t.Any) -> None:
    found = to_json_safe(value)
    text = json.dumps(found, ensure_ascii=False, allow_nan=False)
    assert json.loads(text.encode("utf-8")) == json.loads(json.dumps(found))
    assert type(found) is type(safe)
    if isinstance(found, str):
        # how many marks stand for one wrong character is not promised
        assert found.replace("\ufffd\ufffd\ufffd", "\ufffd") == safe
    else:
        assert text.replace("\ufffd\ufffd\ufffd", "\ufffd") == json.dumps(safe, ensure_ascii=False)
