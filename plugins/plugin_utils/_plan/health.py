# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The health check of a container, from the image or the role's variables (docs/behaviour.md, section 15)."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...module_utils._errors import show
from .._container.model import ContainerError, Option
from .known import Facts
from .request import Request

# No other process of the node has this variable with the container's name.
_MARK = "HYPERVISOR_OCI_CHECK"
# Docker's, in seconds
_DEFAULTS = {"interval": 30.0, "timeout": 30.0, "start_period": 0.0, "start_interval": 5.0}
_RETRIES = 3
_LONGEST = 86_400.0
_SHELL = ("/bin/sh", "-c")
_IN_IMAGE = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start_period": "StartPeriod",
    "start_interval": "StartInterval",
}
_SECOND = 1_000_000_000
_SECONDS = re.compile(r"\d{1,9}(?:\.\d{1,9})?\Z")
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:h|ms|m|s))+\Z")
_PART = re.compile(r"([\d.]+)(h|ms|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True)
class Check:
    """A command inside of the container, and when it runs; ``retries`` is a number, all others are seconds."""

    argv: tuple[str, ...]
    interval: float
    timeout: float
    start_period: float
    start_interval: float
    retries: int

    @property
    def longest(self) -> float:
        """How long the verdict of a container that does not answer may take."""
        return self.start_period + self.retries * (self.interval + self.timeout)


@dataclass(frozen=True)
class Joining:
    """How a check gets into a container: a command of the node, and what that reads; or the reason why it cannot."""

    command: tuple[str, ...] = ()
    stdin: str = ""
    refusal: str = ""


@dataclass(frozen=True)
class Health:
    """What the role asks of ``oci_container_health``; without a ``command``, nothing is checked, and ``refusal`` may say why."""

    command: list[str] = field(default_factory=list)
    mark: str = ""
    input: str = ""
    interval: float = 0.0
    timeout: float = 0.0
    start_period: float = 0.0
    start_interval: float = 0.0
    retries: int = 0
    wait: float = 0.0
    refusal: str = ""


def mark_of(request: Request) -> str:
    """Return the variable that marks the processes of a container's checks."""
    return f"{_MARK}={request.name}"


def check_of(request: Request, image: Facts) -> Check | None:
    """Return the check, or ``None`` without one. Raises ``ContainerError`` for a variable that is wrong."""
    given = request.health
    if isinstance(given, Mapping):
        return _given_check(given)
    if given == "none":
        return None
    if given != "image":
        raise ContainerError(Option("health"), " must be image, none or a mapping")
    found = image.get("healthcheck") or {}
    argv = _argv(list(found.get("Test") or ()), tuple(found.get("Shell") or _SHELL))
    if argv is None:
        return None
    seconds = {name: _image_seconds(found.get(key)) or _DEFAULTS[name] for name, key in _IN_IMAGE.items()}
    return Check(argv, retries=max(found.get("Retries") or 0, 0) or _RETRIES, **seconds)


def health_of(request: Request, check: Check, joining: Joining) -> Health:
    """Return what the role asks for. Raises ``ContainerError`` if a check that the variables give cannot be run."""
    if joining.refusal:
        if isinstance(request.health, Mapping):
            raise ContainerError(Option("health"), f": {joining.refusal}; set it to none")
        return Health(refusal=joining.refusal)
    return Health(
        command=list(joining.command),
        mark=mark_of(request),
        input=joining.stdin,
        interval=check.interval,
        timeout=check.timeout,
        start_period=check.start_period,
        start_interval=check.start_interval,
        retries=check.retries,
        wait=float(check.longest if request.health_wait is None else request.health_wait),
    )


def _given_check(given: Facts) -> Check | None:
    unknown = sorted({str(name) for name in given} - {"test", "retries", *_DEFAULTS})
    if unknown:
        raise ContainerError(Option(f"health.{unknown[0]}"), " is not a part of a health check")
    test = given.get("test")
    if isinstance(test, str):
        words = ["CMD-SHELL", test]
    elif isinstance(test, Sequence) and test and all(isinstance(word, str) for word in test):
        words = list(test) if test[0] in ("CMD", "CMD-SHELL", "NONE") else ["CMD", *test]
    else:
        raise ContainerError(Option("health.test"), " must be a command, as a text for a shell or as a list of words")
    argv = _argv(words, _SHELL)
    if argv is None:
        if words != ["NONE"]:
            raise ContainerError(Option("health.test"), " is empty; give a command, or set container_health to none")
        return None
    seconds = {name: _given_seconds(name, given.get(name), default) for name, default in _DEFAULTS.items()}
    retries = given.get("retries", _RETRIES)
    if isinstance(retries, bool) or not str(retries).isdigit() or not 0 < int(str(retries)) < 1_000_000:
        raise ContainerError(Option("health.retries"), f" is {show(str(retries))}; give a number above 0")
    return Check(argv, retries=int(str(retries)), **seconds)


def _argv(words: list[str], shell: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the command of a test in Docker's form, or ``None`` if there is none."""
    kind, *rest = words or [""]
    if kind == "CMD" and rest and rest[0]:
        return tuple(rest)
    if kind == "CMD-SHELL" and rest and rest[0]:
        return (*shell, rest[0])
    return None


def _image_seconds(value: t.Any) -> float:
    """Return seconds of an image's nanoseconds; 0 stands for the default, as in Docker."""
    return min(max(value or 0, 0) / _SECOND, _LONGEST)


def _given_seconds(name: str, value: t.Any, default: float) -> float:
    if value is None:
        return default
    text = str(value).strip()
    seconds = -1.0
    if not isinstance(value, bool) and _DURATION.match(text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    elif not isinstance(value, bool) and _SECONDS.match(text):
        seconds = float(text)
    if not 0 <= seconds <= _LONGEST or (seconds == 0 and name != "start_period"):
        raise ContainerError(
            Option(f"health.{name}"), f" is {show(text)}; give seconds, or a duration such as 1m30s, of at most a day"
        )
    return seconds
