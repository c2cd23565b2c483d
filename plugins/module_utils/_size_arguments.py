# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Arguments that are sizes, and the one that limits an archive (docs/behaviour.md, section 7)."""

from __future__ import annotations

import typing as t

from ansible.module_utils.common.text.formatters import human_to_bytes

from ._errors import OciError
from ._source.source import DEFAULT_MAX_SIZE

MAX_SIZE_ARGUMENTS: dict[str, dict[str, t.Any]] = {"max_size": {"type": "str", "default": f"{DEFAULT_MAX_SIZE >> 30}G"}}


def parse_size(name: str, value: t.Any) -> int:
    """Return the bytes that an option such as 500M stands for. Raises ``OciError``."""
    try:
        return human_to_bytes(value)
    except (ValueError, OverflowError) as error:
        raise OciError(f"{name}: {error}") from error


def parse_max_size(params: t.Mapping[str, t.Any]) -> int:
    """Return the bytes of a task's ``max_size``, or of its default. Raises ``OciError``."""
    default = MAX_SIZE_ARGUMENTS["max_size"]["default"]
    size = parse_size("max_size", params.get("max_size", default))
    if size < 1:
        raise OciError(f"max_size is {size}; give 1 or more")
    return size
