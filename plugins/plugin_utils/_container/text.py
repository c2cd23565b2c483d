# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""What text may hold before it goes into a file of the host's (docs/behaviour.md, section 9)."""

from __future__ import annotations

import re

from ...module_utils._errors import show
from .model import ContainerError, Option

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def has_controls(text: str) -> bool:
    """Return whether the text contains a control character (Unicode's Cc, so C1 and DEL too) other than TAB."""
    return _CONTROL.search(text) is not None


def variable(field: str, key: str) -> str:
    """Return the name of a variable of the environment for a message: no key can break its line."""
    return f"{field}.{show(key)[1:-1]}"


def require_text(field: str, value: str) -> str:
    """Return text that any format can express: valid Unicode without NUL.

    Raises ``ContainerError``, which never quotes the value: it may be a secret of the environment.
    """
    if "\0" in value:
        raise ContainerError(
            Option(field), ": the value contains a NUL character, which no process can receive; remove it"
        )
    if _SURROGATE.search(value):
        raise ContainerError(Option(field), ": the value is not valid Unicode; write it in UTF-8")
    return value


def require_line(field: str, value: str, advice: str = "remove it") -> str:
    """Return text for a line-based format without escapes. Raises ``ContainerError``."""
    require_text(field, value)
    if has_controls(value):
        raise ContainerError(
            Option(field),
            f": the value contains a control character, which would break a line of the configuration; {advice}",
        )
    return value
