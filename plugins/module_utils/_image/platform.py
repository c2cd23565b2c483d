# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Platforms, normalised and matched as containerd does (docs/behaviour.md, section 2)."""

from __future__ import annotations

import platform as host
import re
import struct
import typing as t
from dataclasses import dataclass

from .._errors import ImageError, show

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
    "armv5tel": ("arm", "v5"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
}
_OPERATING_SYSTEMS = {"macos": "darwin"}
# The variant meant when none is given.
_DEFAULT_VARIANTS = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
# The platform of a 32-bit system under a 64-bit kernel.
_HALVED = {"amd64": ("386", ""), "arm64": ("arm", "v7")}

_VARIANT = re.compile(r"v?([0-9]{1,3})(?:\.([0-9]{1,3}))?\Z")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True)
class Platform:
    """A normalised platform; ``variant`` is empty if it is the architecture's default."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        parts = [self.os, self.architecture, self.variant]
        return "/".join(part for part in parts if part)

    @property
    def is_complete(self) -> bool:
        """Whether both the operating system and the architecture are known."""
        return bool(self.os and self.architecture)

    @property
    def name(self) -> str | None:
        """The platform as the option platform takes it, None if it is not complete."""
        return str(self) if self.is_complete else None

    def in_words(self) -> str:
        """Return the platform for a message."""
        if self.is_complete:
            return str(self)
        if not self.os and not self.architecture:
            return "an unknown platform"
        return f"{self.os or 'an unknown system'} on {self.architecture or 'an unknown architecture'}"

    def may_be(self, platform: Platform) -> bool:
        """Return whether this could be another platform, as far as its fields are known."""
        return self.os in ("", platform.os) and self.architecture in ("", platform.architecture)

    @property
    def is_unknown(self) -> bool:
        """Whether this is unknown/unknown, the platform of attestations."""
        return self.os == "unknown" and self.architecture == "unknown"

    def rank_of(self, candidate: Platform) -> int | None:
        """Return how far a candidate is below this platform: 0 is an exact match, None cannot run here."""
        if (self.os, self.architecture) != (candidate.os, candidate.architecture):
            return None
        if self.variant == candidate.variant:
            return 0
        wanted = _level(self)
        offered = _level(candidate)
        if wanted is None or offered is None or offered > wanted:
            return None
        return (wanted[0] - offered[0]) * 1000 + wanted[1] - offered[1]


def parse_platform(text: str) -> Platform:
    """Parse the option platform, ``os/architecture[/variant]``. Raises ``ImageError``."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(_WORD.match(part) for part in parts):
        raise ImageError(
            f"invalid platform {show(text)}: expected os/architecture or os/architecture/variant, such as linux/arm64"
        )
    return normalise(*parts)


def platform_of(value: dict[str, t.Any], where: str) -> Platform:
    """Return the platform in a descriptor or config. Raises ``ImageError``."""
    fields = [value.get(key) for key in ("os", "architecture", "variant")]
    system, architecture, variant = ("" if field is None else field for field in fields)
    for field in (system, architecture, variant):
        if not isinstance(field, str):
            raise ImageError(f"{where} has a platform that is not a string")
        if field and not _WORD.match(field):
            raise ImageError(f"{where} has an invalid platform: {show(field)}")
    return normalise(system, architecture, variant)


def node_platform() -> Platform:
    """Return the platform of the system that this runs on."""
    own = normalise(host.system(), host.machine())
    if struct.calcsize("P") == 4 and own.architecture in _HALVED:
        return Platform(own.os, *_HALVED[own.architecture])
    return own


def normalise(system: str, architecture: str, variant: str = "") -> Platform:
    """Return the platform under its canonical names."""
    system = system.lower()
    architecture = architecture.lower()
    variant = variant.lower()
    architecture, implied = _ARCHITECTURES.get(architecture, (architecture, ""))
    variant = variant or implied
    if variant[:1].isdigit():
        variant = "v" + variant
    if architecture == "arm":
        variant = variant or _DEFAULT_VARIANTS["arm"]
    elif variant == _DEFAULT_VARIANTS.get(architecture):
        variant = ""
    return Platform(_OPERATING_SYSTEMS.get(system, system), architecture, variant)


def _level(platform: Platform) -> tuple[int, int] | None:
    match = _VARIANT.match(platform.variant or _DEFAULT_VARIANTS.get(platform.architecture, "v0"))
    if match is None:
        return None
    return int(match.group(1)), int(match.group(2) or 0)
