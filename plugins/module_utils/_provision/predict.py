# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check mode: describe what the plan for an image would change."""

from __future__ import annotations

import typing as t

from .._dest.record import Tree
from . import guard
from .cache import open_cache
from .describe import image_outcome, predicted_tree
from .outcome import Outcome
from .plan import ImagePlan, Unchanged, Unpack
from .target import Target


def predict(target: Target, plan: ImagePlan, warnings: t.Sequence[str]) -> Outcome:
    """Return the outcome that carrying out the plan would have. Raises ``OciError`` if it is known to fail."""
    tree: Tree
    if isinstance(plan, Unpack):
        tree = predicted_tree(plan)
        source = plan.wanted.source
        guard.require_libraries(plan.wanted.image)
        with open_cache(target, source) as cache:
            arriving = source.spooled_size or 0
            guard.require_room(target, plan.wanted.image, arriving, cache)
        warnings = [*warnings, *guard.judge_reach(target, tree)]
    else:
        tree = plan.current if isinstance(plan, Unchanged) else plan.staged
    return image_outcome(target, plan, tree, warnings)
