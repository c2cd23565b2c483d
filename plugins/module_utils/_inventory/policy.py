# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which files that give rights away a task allows (docs/behaviour.md, section 13)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._errors import OciError, RootfsError, show, visible
from .capability_names import NAMES
from .inventory import CAPABILITIES, KINDS, MOST_KEPT, Finding, Inventory
from .patterns import Pattern, PatternError, parse_pattern

# Offenders of one kind that an error lists.
_MOST_LISTED = 20
_LONGEST_PATH = 200
_WHAT_IS_NOT = "build the image without them, or allow them in policy"


@dataclass(frozen=True)
class Rule:
    """Files that a policy allows; ``capabilities`` are what files of that kind may have at most."""

    pattern: Pattern
    capabilities: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Policy:
    """The rules of each kind that is judged; a kind without a key is not judged."""

    rules: dict[str, tuple[Rule, ...]]

    def judge(self, inventory: Inventory, dest: str) -> None:
        """Require that each file of a judged kind is allowed. Raises ``RootfsError`` that lists those that are not."""
        offences = []
        for kind, rules in self.rules.items():
            if not inventory.is_whole(kind):
                raise RootfsError(
                    f"the image has {inventory.counts[kind]} files of the kind {kind}, too many to judge them by policy (at most"
                    f" {MOST_KEPT}); {show(dest)} stays as it was; build the image without them"
                )
            offenders = [item for item in inventory.findings[kind] if not _is_allowed(kind, item, rules)]
            if offenders:
                offences.append(_describe(kind, offenders))
        if offences:
            raise RootfsError(
                f"the image has files that policy does not allow: {'; '.join(offences)}. {show(dest)} stays as it was;"
                f" {_WHAT_IS_NOT}"
            )


def parse_policy(value: t.Mapping[str, t.Any]) -> Policy:
    """Parse the option ``policy``. Raises ``OciError`` that names the part that is wrong."""
    rules: dict[str, tuple[Rule, ...]] = {}
    for kind, allowed in value.items():
        if kind not in KINDS:
            raise OciError(f"policy: {show(str(kind))} is no kind of file; the kinds are {', '.join(KINDS)}")
        if kind == CAPABILITIES:
            rules[kind] = _capability_rules(allowed)
        elif isinstance(allowed, list):
            rules[kind] = tuple(Rule(_pattern(kind, text)) for text in allowed)
        else:
            raise OciError(f"policy: {kind} is not a list of paths; an empty list allows no file")
    return Policy(rules)


def _capability_rules(allowed: t.Any) -> tuple[Rule, ...]:
    # an empty list, too, says that nothing is allowed
    if allowed == []:
        return ()
    if not isinstance(allowed, dict):
        raise OciError(
            f"policy: {CAPABILITIES} is not a mapping of paths to lists of capabilities; {{}} allows no file"
        )
    rules = []
    for text, names in allowed.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise OciError(
                f"policy: {CAPABILITIES} of {show(str(text))} is not a list of capabilities such as cap_net_raw"
            )
        unknown = [name for name in names if name not in NAMES]
        if unknown:
            raise OciError(
                f"policy: {CAPABILITIES} of {show(str(text))} names {show(unknown[0])}, which is not a capability such as"
                " cap_net_raw"
            )
        rules.append(Rule(_pattern(CAPABILITIES, text), frozenset(names)))
    return tuple(rules)


def _pattern(kind: str, text: t.Any) -> Pattern:
    if not isinstance(text, str):
        raise OciError(f"policy: {kind} lists {show(str(text))}, which is not a path")
    try:
        return parse_pattern(text)
    except PatternError as error:
        raise OciError(f"policy: {kind} lists {show(text)}, which {error}") from error


def _is_allowed(kind: str, finding: Finding, rules: tuple[Rule, ...]) -> bool:
    matching = [rule for rule in rules if rule.pattern.matches(finding.path)]
    if kind != CAPABILITIES:
        return bool(matching)
    detail = finding.detail
    # a capability of a number without a name, or of another user namespace, is never allowed
    held = {*detail["permitted"], *detail["inheritable"]}
    return "root_id" not in detail and any(held <= rule.capabilities for rule in matching)


def _describe(kind: str, offenders: t.Sequence[Finding]) -> str:
    shown = [_described(kind, finding) for finding in offenders[:_MOST_LISTED]]
    more = len(offenders) - len(shown)
    return f"{kind}: {', '.join(shown)}" + (f" and {more} more" if more else "")


def _described(kind: str, finding: Finding) -> str:
    path = visible(finding.path, _LONGEST_PATH)
    if kind != CAPABILITIES:
        return path
    held = sorted({*finding.detail["permitted"], *finding.detail["inheritable"]})
    return f"{path} ({' '.join(held)})"
