# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The image config, normalised once for all runtimes (image-spec, config.md; docs/behaviour.md, section 8)."""

from __future__ import annotations

import posixpath
import re
import typing as t
from dataclasses import dataclass

from .._errors import ImageError, show
from . import documents
from .limits import HISTORY, LABELS, LONGEST_NAME, LONGEST_PATH, PORTS, VOLUMES, WORDS, Limit, require
from .optional_settings import normalise_ports, parse_healthcheck
from .platform import Platform, platform_of

_SIGNAL = re.compile(r"(?:SIG)?([A-Z][A-Z0-9]*)(?:([+-])([0-9]{1,2}))?\Z")
# Linux's numbers, the same on all architectures of images except MIPS and SPARC
_NAMES = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG"
    " XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
_SIGNALS = _NAMES.split()
_FIRST_REALTIME = 34
_LAST_SIGNAL = 64

_HISTORY_TEXTS = ("created", "created_by", "author", "comment")

_SYSTEMD = re.compile(r"/(?:usr/)?(?:lib/systemd/systemd|s?bin/(?:systemd|init))\Z")


@dataclass(frozen=True)
class ImageConfig:
    """The settings of an image; ``diff_ids`` in the order of application.

    ``warnings`` name settings that were dropped or not understood.
    """

    platform: Platform
    diff_ids: tuple[str, ...]
    rootfs_type: str
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    env: dict[str, str]
    env_dropped: int
    working_dir: str
    user: str
    stop_signal: str
    exposed_ports: tuple[str, ...]
    volumes: tuple[str, ...]
    labels: dict[str, str]
    healthcheck: dict[str, t.Any] | None
    settings_dropped: int
    created: str | None
    history: tuple[dict[str, t.Any], ...]
    warnings: tuple[str, ...]

    def to_facts(self) -> dict[str, t.Any]:
        """Return the ``image`` value of the result, without the resolved user."""
        return {
            "entrypoint": list(self.entrypoint),
            "cmd": list(self.cmd),
            "argv": [*self.entrypoint, *self.cmd],
            "env": dict(self.env),
            "env_dropped": self.env_dropped,
            "working_dir": self.working_dir,
            "user": self.user,
            "stop_signal": self.stop_signal,
            "exposed_ports": list(self.exposed_ports),
            "volumes": list(self.volumes),
            "labels": dict(self.labels),
            "healthcheck": self.healthcheck,
            "settings_dropped": self.settings_dropped,
            "architecture": self.platform.architecture,
            "os": self.platform.os,
            "variant": self.platform.variant or None,
            "created": self.created,
            "history": list(self.history),
        }


def parse_config(data: bytes, where: str) -> ImageConfig:
    """Parse a config document. Any field may be null, and all are bounded. Raises ``ImageError``."""
    value = documents.parse_object(data, where)
    run = documents.mapping(value, "config", where)
    rootfs = documents.mapping(value, "rootfs", where)
    entrypoint = _words(run, "Entrypoint", where)
    cmd = _words(run, "Cmd", where)
    env, dropped = _environment(_words(run, "Env", where))
    warnings = []
    if dropped:
        warnings.append(f"{dropped} environment entries of the image have no '=' and were dropped")
    left_out: list[str] = []
    stop_signal, unknown_signal = _stop_signal(run, (*entrypoint, *cmd), where)
    if unknown_signal:
        warnings.append(f"unknown stop signal {unknown_signal}, using {stop_signal}")
    exposed_ports = normalise_ports(_names(run, "ExposedPorts", where, PORTS), left_out)
    healthcheck = parse_healthcheck(run, left_out)
    if left_out:
        names = ", ".join(dict.fromkeys(left_out))
        warnings.append(f"invalid settings of the image were left out ({len(left_out)}): {names}")
    return ImageConfig(
        platform=platform_of(value, where),
        diff_ids=tuple(documents.strings(rootfs, "diff_ids", where)),
        rootfs_type=documents.text(rootfs, "type", where) or "layers",
        entrypoint=entrypoint,
        cmd=cmd,
        env=env,
        env_dropped=dropped,
        working_dir=_working_dir(_text(run, "WorkingDir", where, LONGEST_PATH) or ""),
        user=_text(run, "User", where, LONGEST_NAME) or "",
        stop_signal=stop_signal,
        exposed_ports=exposed_ports,
        volumes=_names(run, "Volumes", where, VOLUMES),
        labels=_labels(run, where),
        healthcheck=healthcheck,
        settings_dropped=len(left_out) + bool(unknown_signal),
        created=_text(value, "created", where, LONGEST_NAME),
        history=_history(value, where),
        warnings=tuple(warnings),
    )


def _stop_signal(run: documents.Object, argv: t.Sequence[str], where: str) -> tuple[str, str]:
    """Return the stop signal, and the image's own one for a message if it is unknown. Raises ``ImageError``."""
    signal = documents.text(run, "StopSignal", where)
    known = normalise_signal(signal) if signal else None
    return known or _default_signal(argv), show(signal) if signal and known is None else ""


def _default_signal(argv: t.Sequence[str]) -> str:
    is_systemd = bool(argv) and _SYSTEMD.match(argv[0]) is not None
    return "SIGRTMIN+3" if is_systemd else "SIGTERM"


def normalise_signal(text: str) -> str | None:
    """Return a signal as ``SIGNAME``, given a number or a name in any case; None if it is unknown."""
    text = text.strip().upper()
    if text.isascii() and text.isdigit() and len(text) < 4:
        return _signal_of_number(int(text))
    match = _SIGNAL.match(text)
    if match is None:
        return None
    base, sign, offset = match.group(1), match.group(2) or "", match.group(3) or "0"
    if base in ("RTMIN", "RTMAX"):
        steps = int(offset)
        allowed = sign in ("", "+" if base == "RTMIN" else "-")
        if not allowed or steps > _LAST_SIGNAL - _FIRST_REALTIME:
            return None
        return f"SIG{base}{sign}{steps}" if steps else f"SIG{base}"
    known = {*_SIGNALS, "IOT", "POLL", "CLD"}
    return f"SIG{base}" if base in known and not sign else None


def _signal_of_number(number: int) -> str | None:
    if 1 <= number <= len(_SIGNALS):
        return "SIG" + _SIGNALS[number - 1]
    if number == _FIRST_REALTIME:
        return "SIGRTMIN"
    if _FIRST_REALTIME < number <= _LAST_SIGNAL:
        return f"SIGRTMIN+{number - _FIRST_REALTIME}"
    return None


def _words(value: documents.Object, key: str, where: str) -> tuple[str, ...]:
    words = documents.strings(value, key, where)
    require(words, key, where, WORDS)
    return tuple(words)


def _text(value: documents.Object, key: str, where: str, longest: int) -> str | None:
    text = documents.text(value, key, where)
    if text is not None:
        require((text,), key, where, (1, longest))
    return text


def _labels(run: documents.Object, where: str) -> dict[str, str]:
    labels = documents.string_mapping(run, "Labels", where)
    require(labels, "Labels", where, LABELS)
    require(labels.values(), "Labels", where, LABELS)
    return labels


def _environment(entries: tuple[str, ...]) -> tuple[dict[str, str], int]:
    env = {}
    dropped = 0
    for entry in entries:
        name, equals, value = entry.partition("=")
        if name and equals:
            env[name] = value
        else:
            dropped += 1
    return env, dropped


def _working_dir(text: str) -> str:
    # POSIX gives two leading slashes a meaning of their own, so normpath would keep them
    return posixpath.normpath("/" + text.lstrip("/"))


def _history(value: documents.Object, where: str) -> tuple[dict[str, t.Any], ...]:
    """Return the fields of each item that the specification defines (config.md)."""
    items = []
    found = documents.objects(value, "history", where)
    most, longest = HISTORY
    if len(found) > most:
        raise ImageError(
            f"{where}: history has {len(found)} entries, more than {most}, a fixed limit; build the image with fewer"
        )
    for item in found:
        facts: dict[str, t.Any] = {}
        for key in _HISTORY_TEXTS:
            text = _text(item, key, where, longest)
            if text is not None:
                facts[key] = text
        if isinstance(item.get("empty_layer"), bool):
            facts["empty_layer"] = item["empty_layer"]
        items.append(facts)
    return tuple(items)


def _names(run: documents.Object, key: str, where: str, limit: Limit) -> tuple[str, ...]:
    """Return the keys of an object that serves as a set. Some builders write a list instead."""
    value = run.get(key)
    if value is None:
        return ()
    if isinstance(value, dict) or (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        names = tuple(sorted(set(value)))
        require(names, key, where, limit)
        return names
    raise ImageError(f"{where}: the field {show(key)} is not an object")
