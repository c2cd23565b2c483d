# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parse bounded JSON and read its fields, each checked for its type (docs/behaviour.md, section 1)."""

from __future__ import annotations

import json
import typing as t

from .._errors import ImageError, show
from .._source.source import DOCUMENT_LIMIT, VALUES_LIMIT, values_in

Object = t.Dict[str, t.Any]

_LONGEST_NUMBER = 20


def parse_json(data: bytes, where: str) -> t.Any:
    """Parse a document; ``where`` names it in errors. Raises ``ImageError``."""
    if len(data) > DOCUMENT_LIMIT:
        raise ImageError(f"{where} has {len(data)} bytes, more than {DOCUMENT_LIMIT}, a fixed limit")
    # a small value takes many times its bytes in memory
    if values_in(data) > VALUES_LIMIT:
        raise ImageError(f"{where} holds more than {VALUES_LIMIT} values, a fixed limit")
    try:
        return json.loads(data.decode("utf-8"), parse_int=_parse_int, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ImageError(f"{where} is not valid JSON: {reason}") from error


def parse_object(data: bytes, where: str) -> Object:
    """Parse a document that must be an object. Raises ``ImageError``."""
    value = parse_json(data, where)
    if not isinstance(value, dict):
        raise ImageError(f"{where} is not a JSON object")
    return value


def text(value: Object, key: str, where: str) -> str | None:
    """Return a string; None if missing or null. Raises ``ImageError``."""
    found = value.get(key)
    if found is None or isinstance(found, str):
        return found
    raise _wrong(key, where, "a string")


def number(value: Object, key: str, where: str) -> int | None:
    """Return an integer; None if missing or null. Raises ``ImageError``."""
    found = value.get(key)
    if found is None or (isinstance(found, int) and not isinstance(found, bool)):
        return found
    raise _wrong(key, where, "an integer")


def mapping(value: Object, key: str, where: str) -> Object:
    """Return an object; empty if missing or null. Raises ``ImageError``."""
    found = value.get(key)
    if found is None:
        return {}
    if isinstance(found, dict):
        return found
    raise _wrong(key, where, "an object")


def objects(value: Object, key: str, where: str) -> list[Object]:
    """Return a list of objects; empty if missing or null. Raises ``ImageError``."""
    found = value.get(key)
    if found is None:
        return []
    if isinstance(found, list) and all(isinstance(item, dict) for item in found):
        return found
    raise _wrong(key, where, "a list of objects")


def strings(value: Object, key: str, where: str) -> list[str]:
    """Return a list of strings; empty if missing or null. Raises ``ImageError``."""
    found = value.get(key)
    if found is None:
        return []
    if isinstance(found, list) and all(isinstance(item, str) for item in found):
        return found
    raise _wrong(key, where, "a list of strings")


def string_mapping(value: Object, key: str, where: str) -> dict[str, str]:
    """Return an object of strings without its null values; empty if missing or null. Raises ``ImageError``."""
    found = mapping(value, key, where)
    if all(item is None or isinstance(item, str) for item in found.values()):
        return {name: item for name, item in found.items() if item is not None}
    raise _wrong(key, where, "an object of strings")


def _wrong(key: str, where: str, wanted: str) -> ImageError:
    return ImageError(f"{where}: the field {show(key)} is not {wanted}")


def _parse_int(digits: str) -> int:
    # parsing takes quadratic time in the number of digits, and no field of an image needs many
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError("a number is too long")
    return int(digits)


def _refuse_constant(name: str) -> t.NoReturn:
    raise ValueError(f"{name} is not a number")
