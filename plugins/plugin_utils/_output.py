# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""What ``-v`` shows of a result: one line, since the whole holds every layer and variable, and that twice."""

from __future__ import annotations

import typing as t

from ansible.module_utils.common.text.formatters import bytes_to_human

from ..module_utils._errors import show

# With so many -v the whole result is printed.
_WHOLE = 3
Result = t.Dict[str, t.Any]


def shorten_output(result: Result, verbosity: int) -> Result:
    """Return the result, marked so that callbacks do not print it with ``-v`` and ``-vv``; nothing is taken out of it.

    A failure is left as it is: callbacks print it always.
    """
    if verbosity >= _WHOLE or result.get("failed"):
        return result
    return {**result, "_ansible_verbose_override": True}


def summarize(result: Result) -> str:
    """Return one line about the image in a result, or an empty text if it has none. Nothing in it is trusted."""
    digest = result.get("manifest_digest") or result.get("config_digest")
    if not isinstance(digest, str):
        return ""
    words = [show(result[key]) for key in ("ref", "platform") if isinstance(result.get(key), str)]
    layers, report = result.get("layers"), result.get("report")
    words.append(show(digest))
    if isinstance(layers, list):
        words.append(f"{len(layers)} layers")
    if isinstance(report, dict):
        entries, size = report.get("entries"), report.get("bytes")
        if _is_count(entries) and _is_count(size):
            words.append(f"{entries} entries, {bytes_to_human(size)}")
    return ", ".join(words)


def _is_count(value: t.Any) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 63
