# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parse what was signed so that no two readers can understand it differently (docs/behaviour.md, section 12)."""

from __future__ import annotations

import base64
import binascii
import json
import math
import typing as t

from .._errors import show

# The most bytes of one payload or bundle.
PAYLOAD_LIMIT = 1024 * 1024
_DEEPEST = 32
_MOST_VALUES = 20_000
_LONGEST_NUMBER = 20

Object = t.Dict[str, t.Any]


class MalformedError(ValueError):
    """A document that is not what its kind requires; the text is a phrase, and the caller adds which document."""


def parse_strict(data: bytes) -> t.Any:
    """Parse JSON in UTF-8 without a byte order mark, doubled keys, NaN, infinity or deep nesting.

    Raises ``MalformedError``.
    """
    if len(data) > PAYLOAD_LIMIT:
        raise MalformedError(f"it has {len(data)} bytes, more than {PAYLOAD_LIMIT}, a fixed limit")
    if sum(map(data.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise MalformedError(f"it holds more than {_MOST_VALUES} values, a fixed limit")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_parse_int,
            parse_float=_parse_float,
            parse_constant=_refuse_constant,
        )
    except RecursionError as error:
        raise MalformedError("it is nested too deeply") from error
    except ValueError as error:
        raise MalformedError(f"it is not valid JSON: {error}") from error
    _check(value)
    return value


def parse_strict_object(data: bytes) -> Object:
    """Parse a document that must be an object. Raises ``MalformedError``."""
    return as_object(parse_strict(data), "it")


def as_object(value: t.Any, what: str) -> Object:
    """Return a value that must be an object; ``what`` names it. Raises ``MalformedError``."""
    if not isinstance(value, dict):
        raise MalformedError(f"{what} is not an object")
    return value


def as_text(value: t.Any, what: str) -> str:
    """Return a value that must be a string; ``what`` names it. Raises ``MalformedError``."""
    if not isinstance(value, str):
        raise MalformedError(f"{what} is not a string")
    return value


def check_fields(value: Object, what: str, required: t.Iterable[str], optional: t.Iterable[str] = ()) -> None:
    """Refuse an object that lacks a required field or has one that is not listed. Raises ``MalformedError``."""
    for name in required:
        if name not in value:
            raise MalformedError(f"{what} has no field {name}")
    known = {*required, *optional}
    for name in value:
        if name not in known:
            raise MalformedError(f"{what} has the unknown field {show(name)}")


def decode_base64(text: str, what: str) -> bytes:
    """Decode base64 of the standard alphabet, padded, in its only canonical form. Raises ``MalformedError``."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedError(f"{what} is not valid base64") from error
    # unused bits at the end, for example, have several spellings
    if base64.b64encode(data).decode("ascii") != text:
        raise MalformedError(f"{what} is not canonical base64")
    return data


def _unique(pairs: list[tuple[str, t.Any]]) -> Object:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise MalformedError("an object has the same key twice")
    return value


def _parse_int(digits: str) -> int:
    # parsing takes quadratic time in the number of digits
    if len(digits) > _LONGEST_NUMBER:
        raise MalformedError("a number is too long")
    return int(digits)


def _parse_float(digits: str) -> float:
    value = float(digits) if len(digits) <= 4 * _LONGEST_NUMBER else math.inf
    if not math.isfinite(value):
        raise MalformedError("a number is too large or too long")
    return value


def _refuse_constant(name: str) -> t.NoReturn:
    raise MalformedError(f"{name} is not a number")


def _check(value: t.Any, depth: int = 0) -> None:
    """Refuse deep nesting, and text that cannot be written as UTF-8. Raises ``MalformedError``."""
    if depth > _DEEPEST:
        raise MalformedError("it is nested too deeply")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MalformedError("it has text that is not valid Unicode") from error
