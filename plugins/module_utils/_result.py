# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make values of an image safe for a module's result, strict UTF-8 JSON (docs/behaviour.md, section 8)."""

from __future__ import annotations

import typing as t

from ansible.module_utils.common.text.converters import to_text

from ._errors import visible

_MOST_WARNINGS = 20
_LONGEST_WARNING = 2000


def to_json_safe(value: t.Any) -> t.Any:
    """Return the value in valid Unicode; lone surrogates, which stand for undecodable bytes, are replaced."""
    if isinstance(value, str):
        return to_text(value.encode("utf-8", "surrogatepass"), errors="replace")
    if isinstance(value, dict):
        return {to_json_safe(key): to_json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_safe(item) for item in value]
    return value


def bounded_warnings(warnings: t.Sequence[str]) -> list[str]:
    """Return the warnings for the user: each in one line of limited length, and a limited number of them."""
    shown = [visible(text, _LONGEST_WARNING) for text in warnings[:_MOST_WARNINGS]]
    rest = len(warnings) - len(shown)
    return [*shown, f"{rest} more warnings are not shown"] if rest > 0 else shown
