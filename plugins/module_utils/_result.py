# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Values for the edge: strict UTF-8 JSON, whatever an image put into them (docs/behaviour.md, section 8)."""

from __future__ import annotations

import typing as t

from ansible.module_utils.common.text.converters import to_text
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import visible

_MOST_WARNINGS = 20
_LONGEST_WARNING = 2000
# How much of an image's value a diff shows.
_MOST_ITEMS = 100
_LONGEST_ITEM = 500


def to_json_safe(value: t.Any) -> t.Any:
    """The same value in valid Unicode: lone surrogates, from bytes that were none, are replaced."""
    if isinstance(value, str):
        return to_text(value.encode("utf-8", "surrogatepass"), errors="replace")
    if isinstance(value, dict):
        return {to_json_safe(key): to_json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_safe(item) for item in value]
    return value


def bounded_warnings(warnings: t.Sequence[str]) -> list[str]:
    """Return the warnings as a user gets them: each in one visible line, and not more than a screen of them."""
    shown = [visible(text, _LONGEST_WARNING) for text in warnings[:_MOST_WARNINGS]]
    rest = len(warnings) - len(shown)
    return [*shown, f"{rest} more warnings are not shown"] if rest > 0 else shown


def bounded(value: t.Any) -> t.Any:
    """Return an image's value as a diff shows it: visible, and not larger than anybody reads."""
    if isinstance(value, str):
        return visible(value, _LONGEST_ITEM)
    if isinstance(value, dict):
        shown = {
            visible(key, _LONGEST_ITEM): bounded(item)
            for key, item in list(value.items())[:_MOST_ITEMS]
        }
        return {**shown, **_rest(len(value), "...")}
    if isinstance(value, (list, tuple)):
        rest = _rest(len(value), "")
        return [*map(bounded, value[:_MOST_ITEMS]), *rest.values()]
    return value


def _rest(number: int, key: str) -> dict[str, str]:
    return {key: f"and {number - _MOST_ITEMS} more"} if number > _MOST_ITEMS else {}
