# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings that do not decide how an image is unpacked: what is invalid of them is left out (docs/behaviour.md, section 8).

The health check is Docker's own, and not in the OCI specification. Ports are only told to the user.
"""

from __future__ import annotations

import re
import typing as t

from .._errors import ImageError
from . import documents
from .limits import WORDS, require

_HEALTHCHECK_NUMBERS = ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries")

_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/([A-Za-z]+))?\Z")
_PROTOCOLS = ("tcp", "udp", "sctp")
_LAST_PORT = 65535


def parse_healthcheck(run: documents.Object, left_out: list[str]) -> dict[str, t.Any] | None:
    """Return the valid fields that Docker defines; add the names of others to ``left_out``."""
    value = run.get("Healthcheck")
    if not isinstance(value, dict):
        left_out += ["Healthcheck"] if value is not None else []
        return None
    facts: dict[str, t.Any] = {}
    for key in ("Test", *_HEALTHCHECK_NUMBERS):
        try:
            found = _test(value) if key == "Test" else documents.number(value, key, "Healthcheck")
        except ImageError:
            left_out.append(f"Healthcheck.{key}")
        else:
            if found is not None:
                facts[key] = found
    shell = _shell(run, left_out) if facts.get("Test", [""])[:1] == ["CMD-SHELL"] else None
    return {**facts, **({"Shell": shell} if shell else {})} or None


def normalise_ports(ports: t.Iterable[str], left_out: list[str]) -> tuple[str, ...]:
    """Return ports as ``8080/tcp`` or ``8000-8010/udp``, each once; count invalid ones in ``left_out``."""
    found = set()
    for port in ports:
        match = _PORT.match(port)
        first, last, protocol = match.groups() if match is not None else ("0", None, None)
        numbers = [int(number) for number in (first, last) if number is not None]
        protocol = (protocol or "tcp").lower()
        if 0 < numbers[0] <= numbers[-1] <= _LAST_PORT and protocol in _PROTOCOLS:
            found.add(f"{'-'.join(map(str, numbers))}/{protocol}")
        else:
            left_out.append("ExposedPorts")
    return tuple(sorted(found))


def _shell(run: documents.Object, left_out: list[str]) -> list[str] | None:
    """Return the command that Docker gives a check's text to, if the image names one."""
    try:
        words = documents.strings(run, "Shell", "config")
        require(words, "Shell", "config", WORDS)
    except ImageError:
        left_out.append("Shell")
        return None
    return words or None


def _test(value: documents.Object) -> list[str] | None:
    """Return the command of a health check. Raises ``ImageError``."""
    if value.get("Test") is None:
        return None
    words = documents.strings(value, "Test", "Healthcheck")
    require(words, "Test", "Healthcheck", WORDS)
    return words
