# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bounded JSON (docs/behaviour.md, section 1)."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import ImageError
from ansible_collections.hypervisor.oci.plugins.module_utils._image import documents


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is not valid JSON: Expecting value"),
        (b"{", "it is not valid JSON: Expecting property name"),
        (b"{} {}", "it is not valid JSON: Extra data"),
        (b"\xff\xfe{}", "it is not valid JSON: 'utf-8' codec can't decode"),
        (b"\xef\xbb\xbf{}", "it is not valid JSON: Unexpected UTF-8 BOM"),
        (b'{"a": "\x00"}', "it is not valid JSON: Invalid control character"),
        (b'{"a": NaN}', "it is not valid JSON: NaN is not a number"),
        (b'{"a": -Infinity}', "it is not valid JSON: -Infinity is not a number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "it is not valid JSON: a number is too long"),
        (b"[" * 100_000, "it is not valid JSON: it is nested too deeply"),
        (b'{"a":' * 100_000, "it is not valid JSON: it is nested too deeply"),
        (b"[]", "it is not a JSON object"),
        (b"null", "it is not a JSON object"),
        (b'"text"', "it is not a JSON object"),
        (b" " * 4194305, "it has 4194305 bytes, more than 4194304, a fixed limit"),
    ],
)
def test_what_is_no_document(data: bytes, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        documents.parse_object(data, "it")
    assert caught.value.message.startswith(message)


def test_a_document() -> None:
    assert documents.parse_object(b' {"a": 18446744073709551615}\n', "it") == {"a": 18446744073709551615}
    assert documents.parse_json(b"[1]", "it") == [1]


GETTERS: list[tuple[t.Callable[..., t.Any], t.Any, t.Any]] = [
    (documents.text, None, "text"),
    (documents.number, None, 5),
    (documents.mapping, {}, {"b": 1}),
    (documents.objects, [], [{"b": 1}]),
    (documents.strings, [], ["b"]),
    (documents.string_mapping, {}, {"b": "c"}),
]


@pytest.mark.parametrize(("getter", "empty", "value"), GETTERS)
def test_fields_may_be_missing_or_null(getter: t.Callable[..., t.Any], empty: t.Any, value: t.Any) -> None:
    assert getter({}, "a", "it") == empty
    assert getter({"a": None}, "a", "it") == empty
    assert getter({"a": value}, "a", "it") == value


@pytest.mark.parametrize(
    ("getter", "value", "wanted"),
    [
        (documents.text, 5, "a string"),
        (documents.text, ["b"], "a string"),
        (documents.number, "5", "an integer"),
        (documents.number, True, "an integer"),
        (documents.number, 5.0, "an integer"),
        (documents.number, float("inf"), "an integer"),
        (documents.mapping, [], "an object"),
        (documents.objects, {}, "a list of objects"),
        (documents.objects, [{}, None], "a list of objects"),
        (documents.strings, "b", "a list of strings"),
        (documents.strings, ["b", 1], "a list of strings"),
        (documents.string_mapping, {"b": 1}, "an object of strings"),
        (documents.string_mapping, ["b"], "an object"),
    ],
)
def test_fields_of_another_shape(getter: t.Callable[..., t.Any], value: t.Any, wanted: str) -> None:
    with pytest.raises(ImageError) as caught:
        getter({"a": value}, "a", "it")
    assert caught.value.message == (f"it: the field 'a' is not {wanted}")


def test_null_values_of_a_mapping_are_left_out() -> None:
    assert documents.string_mapping({"a": {"b": None, "c": "d"}}, "a", "it") == {"c": "d"}
