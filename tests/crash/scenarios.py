# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is crashed: how a dest is prepared, which run is stopped, what may be found, and what puts it right."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field, replace

Step = t.Dict[str, t.Any]

A: Step = {"src": "a"}
B: Step = {"src": "b"}
C: Step = {"src": "c"}
ABSENT: Step = {"state": "absent"}
PREVIOUS: Step = {"state": "previous"}

# The calls that make a change.
EXCHANGE = "exchange"
MOVE = "rename_new"
TWO_RENAMES = "rename"
SAVE = "save"


@dataclass(frozen=True)
class Scenario:
    """One run that is stopped.

    ``before`` are the runs before it, ``action`` is the one to stop, ``next`` the run that follows (the same, where
    it is empty). ``found`` are the trees that may be at dest afterwards, by their names: an image's, ``foreign``,
    ``none``, or ``partial`` where section 7 allows it; the first is what was there before. ``final`` is the tree after
    the next run, ``kept`` the trees that may then lie in the private folder. ``swaps``: it is one of the first two of
    ``found``, whichever was not found, and the other is kept.

    ``turn`` names the call that makes the change, as the ``turns``-th of that name (from the end, where that is
    negative): one that fails no later leaves everything as it was, but for a staged tree that it ``discards``.
    """

    name: str
    action: Step
    found: tuple[str, ...]
    final: str
    before: tuple[Step, ...] = ()
    next: Step = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    swaps: bool = False
    turn: str = EXCHANGE
    turns: int = -1
    discards: bool = False
    foreign: bool = False
    inside: bool = False
    exchanges: bool = True
    missing_parents: bool = False
    # trees share their layers, also with another dest, whose image is this one
    shares: bool = False
    other: str = ""
    # a first crash, before that call of the action; then it is another run of the action that is stopped
    crashed_at: int = 0

    @property
    def following(self) -> Step:
        """The run that puts it right."""
        return self.next or self.action

    @property
    def images(self) -> set[str]:
        """The names of all images that it has to do with."""
        steps = (*self.before, self.action, self.following)
        return {step["src"] for step in steps if "src" in step}

    def turning(self, calls: t.Sequence[str]) -> int:
        """The number of the call, from 1, that makes the change; 0 where that is not known."""
        if self.crashed_at:
            return 0
        numbers = [number for number, name in enumerate(calls, 1) if name == self.turn]
        return numbers[self.turns if self.turns < 0 else self.turns - 1]

    def enlarged(self) -> Scenario:
        """The same with the large image in place of b."""

        def step(one: Step) -> Step:
            return {**one, "src": "large"} if one.get("src") == "b" else one

        def names(some: tuple[str, ...]) -> tuple[str, ...]:
            return tuple("large" if name == "b" else name for name in some)

        return replace(
            self,
            action=step(self.action),
            next=step(self.next),
            before=tuple(map(step, self.before)),
            found=names(self.found),
            final=names((self.final,))[0],
            kept=names(self.kept),
        )


FIRST = Scenario("first", B, ("none", "b"), "b", turn=MOVE)
REPLACE = Scenario("replace", B, ("a", "b"), "b", before=(C, A), kept=("a",))
# a forced run over what was never ours
FORCE = Scenario("force", {**B, "force": True}, ("foreign", "b"), "b", foreign=True, kept=("foreign",))
INSIDE = Scenario("inside", B, ("a", "b", "none", "partial"), "b", before=(A,), inside=True, turn=SAVE, turns=3)

SCENARIOS = (
    FIRST,
    replace(FIRST, name="first-below-missing-folders", missing_parents=True),
    replace(FIRST, name="first-then-absent", next=ABSENT, final="none"),
    REPLACE,
    replace(REPLACE, name="replace-keeping-none", action={**B, "keep": 0}, kept=()),
    replace(REPLACE, name="replace-keeping-two", action={**B, "keep": 2}, kept=("a", "c")),
    replace(REPLACE, name="replace-then-absent", next=ABSENT, final="none", kept=()),
    replace(REPLACE, name="recreate", action={**A, "recreate": True}, found=("a",), final="a", kept=("a",)),
    replace(REPLACE, name="two-renames", found=("a", "b", "none"), exchanges=False, turn=TWO_RENAMES),
    replace(REPLACE, name="staged", action={**B, "state": "staged"}, found=("a",), next=B, turn=SAVE),
    replace(REPLACE, name="staged-then-present", before=(A, {**B, "state": "staged"})),
    replace(REPLACE, name="staged-for-another", before=(A, {**C, "state": "staged"}), discards=True),
    replace(REPLACE, name="previous", action=PREVIOUS, before=(A, B), found=("b", "a"), final="", kept=(), swaps=True),
    replace(
        REPLACE,
        name="previous-two-renames",
        action=PREVIOUS,
        before=(A, B),
        found=("b", "a", "none"),
        final="",
        kept=(),
        swaps=True,
        exchanges=False,
        turn=TWO_RENAMES,
    ),
    Scenario("absent", ABSENT, ("b", "none"), "none", before=(A, B), turn=MOVE),
    Scenario("absent-with-staged", ABSENT, ("a", "none"), "none", before=(A, {**B, "state": "staged"}), turn=MOVE),
    FORCE,
    replace(FORCE, name="force-two-renames", found=("foreign", "b", "none"), exchanges=False, turn=TWO_RENAMES),
    replace(
        FORCE,
        name="absent-over-kept-foreign",
        before=({**A, "force": True},),
        action=ABSENT,
        found=("a", "none"),
        final="none",
        turn=MOVE,
    ),
    replace(INSIDE, name="inside-first", before=(), found=("none", "b", "partial")),
    INSIDE,
    replace(
        INSIDE,
        name="inside-force",
        before=(),
        foreign=True,
        action={**B, "force": True},
        found=("foreign", "b", "none", "partial"),
        kept=("foreign",),
    ),
    replace(INSIDE, name="inside-absent", action=ABSENT, found=("a", "none", "partial"), final="none", turns=1),
)

# These share their layers; they are not crashed but by losses of power.
_SHARED = Scenario("shared-update", B, ("a", "b"), "b", before=(A,), kept=("a",), shares=True)
SHARED = (
    replace(_SHARED, name="shared-first", found=("none", "b"), before=(), kept=(), turn=MOVE),
    replace(_SHARED, name="shared-second", found=("none", "b"), before=(), kept=(), turn=MOVE, other="b"),
    _SHARED,
    replace(
        _SHARED, name="shared-previous", action=PREVIOUS, before=(A, B), found=("b", "a"), kept=(), final="", swaps=True
    ),
    replace(
        _SHARED,
        name="shared-absent",
        action=ABSENT,
        before=(A, B),
        found=("b", "none"),
        kept=(),
        final="none",
        turn=MOVE,
    ),
    replace(
        _SHARED,
        name="shared-collection",
        action={**B, "keep": 0, "store_max_age": 0},
        before=(C, A),
        kept=(),
        other="b",
    ),
    # from a tree of its own, and back to one
    replace(_SHARED, name="shared-from-its-own", before=({**A, "store_dir": None},)),
    replace(_SHARED, name="shared-to-its-own", action={**B, "store_dir": None}),
)

# Of these, each crash at a call named here is followed by a second crash, in the run that recovers.
TWICE = (
    ("first", ("save", "rename_new")),
    ("replace", ("save", "exchange")),
    ("two-renames", ("save", "rename")),
    ("previous", ("save", "exchange")),
    ("absent", ("save", "rename_new", "rmdir")),
    ("inside", ("save", "rename_new")),
    ("inside-absent", ("save", "unlink")),
)


def by_name(name: str) -> Scenario:
    """Raises ``KeyError``."""
    return {scenario.name: scenario for scenario in (*SCENARIOS, *SHARED)}[name]
