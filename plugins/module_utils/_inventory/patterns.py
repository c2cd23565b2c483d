# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Patterns of paths: ``*`` stands for any characters but ``/``, a component ``**`` for any number of components."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

_ANY = "*"
_ANY_DEPTH = "**"
_LONGEST = 4096


class PatternError(ValueError):
    """An invalid pattern; the text is a phrase."""


@dataclass(frozen=True)
class Pattern:
    """A parsed pattern. Matching takes at most the product of its length and the path's."""

    text: str
    parts: tuple[str, ...]

    def matches(self, path: str) -> bool:
        """Return whether the whole absolute ``path`` matches."""
        names = path.split("/")[1:]
        # which beginnings of the pattern match the names so far
        reached = self._skipping([True] + [False] * len(self.parts))
        for name in names:
            reached = self._skipping(
                [False]
                + [
                    (reached[place + 1] if part == _ANY_DEPTH else reached[place] and _component_matches(part, name))
                    for place, part in enumerate(self.parts)
                ]
            )
        return reached[-1]

    def _skipping(self, reached: list[bool]) -> list[bool]:
        """Let each ``**`` also stand for no component at all."""
        for place, part in enumerate(self.parts):
            if part == _ANY_DEPTH and reached[place]:
                reached[place + 1] = True
        return reached


def parse_pattern(text: str) -> Pattern:
    """Parse a pattern. Raises ``PatternError``."""
    if not text.startswith("/") or text.endswith("/") or len(text) > _LONGEST:
        raise PatternError("is not an absolute path without a slash at its end")
    parts = tuple(text.split("/")[1:])
    for part in parts:
        if part in ("", ".", ".."):
            raise PatternError("has an empty component, '.' or '..'")
        if _ANY_DEPTH in part and part != _ANY_DEPTH:
            raise PatternError("has '**' beside other characters; it stands for whole components")
    return Pattern(text, parts)


def _component_matches(pattern: str, name: str) -> bool:
    """Match one component; between its first and last piece, each further piece is found as early as possible."""
    first, *rest = pattern.split(_ANY)
    if not rest:
        return pattern == name
    last = rest.pop()
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    return _holds_in_order(name, rest, len(first), len(name) - len(last))


def _holds_in_order(name: str, pieces: t.Iterable[str], start: int, end: int) -> bool:
    for piece in pieces:
        found = name.find(piece, start, end)
        if found < 0:
            return False
        start = found + len(piece)
    return True
