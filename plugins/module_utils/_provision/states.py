# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The states that need no image, each with its plan: how it is checked, predicted and carried out."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._dest.record import Record, Tree
from .._errors import RootfsError, show
from .carry_out import kept_warning, remove_finished_transfers
from .describe import absent_outcome, restore_outcome
from .guard import judge_policy, judge_reach
from .outcome import Outcome
from .plan import DestState
from .target import Target


class StatePlan(t.Protocol):
    """What a run without an image changes. All methods raise ``OciError``."""

    def check(self, target: Target) -> list[str]:
        """Return warnings, before anything is changed."""

    def predict(self, target: Target, warnings: t.Sequence[str]) -> Outcome:
        """Return the outcome that carrying out the plan would have."""

    def carry_out(self, target: Target, warnings: t.Sequence[str]) -> Outcome:
        """Change dest, and return the outcome."""


@dataclass(frozen=True)
class Restore:
    """Put the newest earlier tree into dest."""

    record: Record
    current: Tree | None
    previous: Tree

    def check(self, target: Target) -> list[str]:
        """Judge the earlier tree by the options of this task. Raises ``RootfsError``."""
        signing = target.options.signing
        if signing is not None and not signing.policy.is_met_by(self.previous.signers):
            raise RootfsError(
                f"the earlier tree of {show(target.dest.path)} was not signed, when it was made, as signature_keys,"
                " signature_threshold and signature_identity ask for now; use state: present with its image and signatures"
            )
        judge_policy(target, self.previous)
        target.replacement.require_whole(self.previous)
        warnings = judge_reach(target, self.previous)
        target.replacement.check_use()
        return warnings

    def predict(self, target: Target, warnings: t.Sequence[str]) -> Outcome:
        """Return the outcome, which is the earlier tree's own."""
        return restore_outcome(target, self.current, self.previous, warnings)

    def carry_out(self, target: Target, warnings: t.Sequence[str]) -> Outcome:
        """Exchange the trees."""
        target.replacement.restore_previous(self.record, target.options.mark_failed)
        return self.predict(target, warnings)


@dataclass(frozen=True)
class AlreadyAbsent:
    """There is nothing to remove."""

    def check(self, target: Target) -> list[str]:
        """Return nothing: nothing is changed."""
        del target
        return []

    def predict(self, target: Target, warnings: t.Sequence[str]) -> Outcome:
        """Return an unchanged outcome."""
        return absent_outcome(target, False, None, warnings)

    carry_out = predict


@dataclass(frozen=True)
class Remove:
    """Remove the tree at dest, and everything that belongs to it; ``before`` is the state that the run found."""

    record: Record
    current: Tree | None
    before: DestState

    def check(self, target: Target) -> list[str]:
        """Refuse to remove a tree in use. Raises ``RootfsError``."""
        target.replacement.check_use()
        return []

    def predict(self, target: Target, warnings: t.Sequence[str]) -> Outcome:
        """Return a changed outcome."""
        return absent_outcome(target, True, self.current, warnings)

    def carry_out(self, target: Target, warnings: t.Sequence[str]) -> Outcome:
        """Remove everything, and count as a change what is really gone."""
        had_content = target.replacement.has_content(self.record)
        remove_finished_transfers(target.dest, active=True)
        kept = target.replacement.remove(self.record, target.options.force)
        # a tree that could not be removed before and still cannot be is not a change
        changed = had_content or DestState.read(target.dest) != self.before
        return absent_outcome(target, changed, self.current, [*warnings, *map(kept_warning, kept)])


def plan_state(target: Target, record: Record, before: DestState) -> StatePlan:
    """Plan the state of a task that needs no image; ``before`` is what the run found. Raises ``RootfsError``."""
    return _PLANNERS[target.options.state](target, record, before)


def _plan_restore(target: Target, record: Record, before: DestState) -> StatePlan:
    """Plan ``previous``. Raises ``RootfsError`` if no earlier tree is kept."""
    del before
    return Restore(record, target.replacement.current(record), target.replacement.previous(record))


def _plan_removal(target: Target, record: Record, before: DestState) -> StatePlan:
    """Plan ``absent``."""
    unfinished = before.uploads is not None or before.partials
    if not unfinished and not target.replacement.has_something(record, target.options.force):
        return AlreadyAbsent()
    return Remove(record, target.replacement.current(record), before)


_PLANNERS: dict[str, t.Callable[[Target, Record, DestState], StatePlan]] = {
    "previous": _plan_restore,
    "absent": _plan_removal,
}
