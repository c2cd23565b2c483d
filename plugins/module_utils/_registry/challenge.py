# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a registry wants to be shown: the header WWW-Authenticate (RFC 9110, section 11.6.1)."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

# What is read of all headers together, in characters, and how many challenges.
_LONGEST = 16 * 1024
_MOST = 16

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_BETWEEN = re.compile(r"[\s,]*")
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"=][^\s,"]*))', re.DOTALL)
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+|(?=,)|\Z)")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|\Z)")
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True)
class Challenge:
    """A challenge: the ``scheme`` in lower case, and its parameters by name in lower case."""

    scheme: str
    parameters: t.Mapping[str, str]


def parse_challenges(headers: t.Iterable[str]) -> list[Challenge]:
    """Return all challenges of these headers, in order; what follows something unreadable is left out."""
    found: list[Challenge] = []
    room = _LONGEST
    for header in headers:
        found += _parse(header[:room])
        room -= len(header)
        if room <= 0 or len(found) >= _MOST:
            break
    return found[:_MOST]


def _parse(text: str) -> t.Iterator[Challenge]:
    scheme = ""
    parameters: dict[str, str] = {}
    position = 0
    while True:
        position = _end(_BETWEEN.match(text, position), position)
        parameter = _PARAMETER.match(text, position) if scheme else None
        if parameter is not None:
            quoted = parameter.group(2)
            value = parameter.group(3) if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted)
            # the first one counts
            parameters.setdefault(parameter.group(1).lower(), value)
            position = parameter.end()
            continue
        if scheme:
            yield Challenge(scheme, parameters)
        next_scheme = _SCHEME.match(text, position)
        if next_scheme is None:
            return
        scheme, parameters = next_scheme.group(1).lower(), {}
        position = next_scheme.end()
        position = _end(_TOKEN68.match(text, position), position)


def _end(match: re.Match[str] | None, position: int) -> int:
    return position if match is None else match.end()
