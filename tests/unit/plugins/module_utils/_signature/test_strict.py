# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""JSON and base64 that only one reading has (docs/behaviour.md, section 12)."""

from __future__ import annotations

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._signature.strict import (
    PAYLOAD_LIMIT,
    MalformedError,
    decode_base64,
    parse_strict,
    parse_strict_object,
)


def test_plain_json_is_parsed() -> None:
    assert parse_strict(b' {"a": [1, -2.5, true, null, "\\u00e4"]} ') == {"a": [1, -2.5, True, None, "\u00e4"]}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'\xef\xbb\xbf{"a": 1}', "not valid JSON"),
        (b'{"a": 1, "a": 1}', "same key twice"),
        (b'{"b": {"a": 1, "\\u0061": 2}}', "same key twice"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": -Infinity}', "Infinity is not a number"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"1" * 21 + b"}", "too long"),
        (b'{"a": 0.' + b"1" * 100 + b"}", "too long"),
        (b'{"a": "\xff"}', "not valid JSON"),
        (b'{"a": "\\ud800"}', "not valid Unicode"),
        (b'{"\\ud800": 1}', "not valid Unicode"),
        (b'{"a": 1} {}', "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b'{"a": 1,}', "not valid JSON"),
        ('{"a": 1}'.encode("utf-16"), "not valid JSON"),
        (b"[" * 40 + b"]" * 40, "nested too deeply"),
        (b"[" * 15_000, "nested too deeply|not valid JSON"),
        (b"[" + b"1," * 30_000 + b"1]", "more than 20000 values"),
        (b'"' + b"a" * PAYLOAD_LIMIT + b'"', "more than 1048576"),
        (b"", "not valid JSON"),
    ],
)
def test_what_two_readers_could_understand_differently(data: bytes, reason: str) -> None:
    with pytest.raises(MalformedError, match=reason):
        parse_strict(data)


@pytest.mark.parametrize("data", [b"[]", b"null", b'"a"', b"1"])
def test_documents_are_objects(data: bytes) -> None:
    with pytest.raises(MalformedError, match="it is not an object"):
        parse_strict_object(data)


def test_canonical_base64() -> None:
    assert decode_base64("+/8AAQ==", "x") == b"\xfb\xff\x00\x01"
    assert decode_base64("", "x") == b""


@pytest.mark.parametrize(
    "text", ["-_8AAQ==", "+/8AAQ", "+/8AAQ=", "+/8AAR==", "+/8A\nAQ==", " +/8AAQ==", "+/8AAQ===", "+/8A====", "\u00e4"]
)
def test_any_other_base64(text: str) -> None:
    with pytest.raises(MalformedError, match="x is not (valid|canonical) base64"):
        decode_base64(text, "x")
