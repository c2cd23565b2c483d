# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is not compared, because something else than the image decides about it (docs/behaviour.md, section 17)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._errors import OciError, show
from .._inventory.patterns import Pattern, PatternError, parse_pattern

# Stand for paths that are known of each tree.
VOLUMES = "volumes"
MOUNT_POINTS = "mount_points"

# Paths that are left out with all below them, each with the reason. The documentation has the same table.
DEFAULTS: dict[str, str] = {
    VOLUMES: "data of the container; its runtime mounts them",
    MOUNT_POINTS: "this collection has made them for mounts",
    "/dev": "the runtime mounts it",
    "/proc": "the runtime mounts it",
    "/sys": "the runtime mounts it",
    "/run": "state of what runs",
    "/tmp": "files of what runs",
    "/var/tmp": "files of what runs",
    "/var/log": "what runs writes it",
    "/var/cache": "what runs can make it again",
    "/etc/hosts": "the runtime or the role writes it",
    "/etc/hostname": "the runtime or the role writes it",
    "/etc/resolv.conf": "the runtime or the role writes it",
    "/etc/mtab": "what mounts writes it, or makes it a link",
    "/etc/machine-id": "made at the first start",
    "/var/lib/dbus/machine-id": "made at the first start",
}
# What is left out where the image has nothing, each with the reason. What lies in a directory needs a pattern of its own.
EXTRA_DEFAULTS: dict[str, str] = {
    "/**/__pycache__/**": "Python writes them when programs run",
    "/etc/.pwd.lock": "a lock of those who look after users, without content",
    "/etc/.updated": "systemd notes when it has looked at /etc",
    "/var/.updated": "systemd notes when it has looked at /var",
    "/var/backups/*": "Debian's daily job keeps copies of lists of packages and users there",
    "/var/lib/apt/daily_lock": "Debian's daily job makes it",
    "/var/lib/apt/lists/**": "Debian's daily job may fetch them again",
    "/var/lib/apt/periodic/**": "when Debian's daily job has run",
    "/var/lib/logrotate/*": "which log was rotated when; the logs are left out, too",
    "/var/lib/systemd/linger": "systemd-logind makes the directory; a user in it is a finding",
    "/var/lib/systemd/timers/**": "when timers have run",
}


@dataclass(frozen=True)
class Exclusions:
    """The choice of a task: ``paths`` and ``patterns`` are left out with what is below, ``extra`` where the image has nothing.

    A path of ``extra`` is left out alone, without what lies below.
    """

    paths: frozenset[str]
    patterns: tuple[Pattern, ...]
    extra: tuple[Pattern, ...]
    volumes: bool
    mount_points: bool


def parse_exclusions(paths: t.Sequence[str] | None, extra: t.Sequence[str] | None) -> Exclusions:
    """Parse the options; ``None`` stands for the defaults. Raises ``OciError`` that names the option."""
    given = list(DEFAULTS) if paths is None else list(paths)
    plain = [path for path in given if path not in (VOLUMES, MOUNT_POINTS)]
    patterns = [_parse("verify_exclude", path) for path in plain]
    return Exclusions(
        paths=frozenset(pattern.text for pattern in patterns if "*" not in pattern.text),
        patterns=tuple(pattern for pattern in patterns if "*" in pattern.text),
        extra=tuple(
            _parse("verify_exclude_extra", path) for path in (list(EXTRA_DEFAULTS) if extra is None else extra)
        ),
        volumes=VOLUMES in given,
        mount_points=MOUNT_POINTS in given,
    )


def _parse(option: str, text: str) -> Pattern:
    try:
        return parse_pattern(text)
    except PatternError as error:
        raise OciError(f"{option}: {show(text)} {error}") from error


class Rules:
    """What is left out of one tree: the task's choice, and the ``paths`` that are known of this tree.

    Directories above paths that this collection has ``made`` were perhaps made with them, so they are no findings themselves.
    """

    def __init__(self, exclusions: Exclusions, paths: t.Iterable[str] = (), made: t.Iterable[str] = ()) -> None:
        self._patterns = exclusions.patterns
        self._extra = exclusions.extra
        self._names: dict[str, set[str]] = {}
        self._ways: set[str] = set()
        for path in made:
            above = path
            while above := above.rpartition("/")[0]:
                self._ways.add(above)
        for path in exclusions.paths.union(paths, made):
            above, _slash, name = path.rpartition("/")
            self._names.setdefault(above, set()).add(name)

    def names_in(self, folder: str) -> t.AbstractSet[str]:
        """Return the names in a directory that are left out whatever they are; the root's path is empty."""
        return self._names.get(folder, frozenset())

    def is_way(self, path: str) -> bool:
        """Return whether something below a directory was made by this collection."""
        return path in self._ways

    @property
    def has_patterns(self) -> bool:
        """Return whether ``excludes`` has to be asked for each path."""
        return bool(self._patterns)

    def excludes(self, path: str) -> bool:
        """Return whether a pattern leaves a path out."""
        return any(pattern.matches(path) for pattern in self._patterns)

    def excludes_extra(self, path: str) -> bool:
        """Return whether a path is left out because the image has nothing there."""
        return any(pattern.matches(path) for pattern in self._extra)


def normal(path: str) -> str:
    """Return an absolute path without a slash at its end, as rules have it; empty for another one."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "" if ".." in parts or not parts else "/" + "/".join(parts)
