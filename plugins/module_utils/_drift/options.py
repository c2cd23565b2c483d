# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task asks of the comparison of a tree with its image (docs/behaviour.md, section 17)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._errors import OciError
from .exclusions import Exclusions, parse_exclusions
from .findings import CONTENT

NONE = "none"
PATHS = "paths"
RECREATE = "recreate"


@dataclass(frozen=True)
class Verifying:
    """``level`` is ``metadata`` or ``content``, ``timeout`` is in seconds, ``repair`` is ``none``, ``paths`` or ``recreate``."""

    level: str
    exclusions: Exclusions
    timeout: float
    repair: str = NONE

    @property
    def needs_layers(self) -> bool:
        """Return whether the image's layers may have to be read."""
        return self.level == CONTENT or self.repair != NONE


def verifying_from(params: t.Mapping[str, t.Any]) -> Verifying | None:
    """Check the arguments; ``None`` if nothing is to be compared. Raises ``OciError`` that names the option."""
    level = params.get("verify") or NONE
    repair = params.get("repair") or NONE
    if level == NONE:
        if repair != NONE:
            raise OciError(f"repair: {repair} needs verify: metadata or verify: content, which finds what to repair")
        return None
    timeout = params["verify_timeout"]
    if timeout < 1:
        raise OciError(f"verify_timeout is {timeout}; give 1 or more")
    exclusions = parse_exclusions(params.get("verify_exclude"), params.get("verify_exclude_extra"))
    return Verifying(level, exclusions, float(timeout), repair)
