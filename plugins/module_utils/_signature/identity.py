# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The name of an image that a signature may vouch for (docs/behaviour.md, section 12)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .._errors import OciError, show
from .._image.names import normalise_name

_HOST = r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_HOST}(?:/{_PART})+\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_LONGEST = 1024


@dataclass(frozen=True)
class Identity:
    """A normalised ``repository``, and a ``tag`` if one was given, otherwise an empty text."""

    repository: str
    tag: str = ""

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}" if self.tag else self.repository

    def is_named_by(self, reference: str) -> bool:
        """Return whether a signed reference names this repository and, if there is one, this tag."""
        named = split_reference(reference)
        return named is not None and named.repository == self.repository and self.tag in ("", named.tag)


def parse_identity(text: str) -> Identity:
    """Parse the option signature_identity. Raises ``OciError``."""
    identity = None if "@" in text else split_reference(text)
    if identity is None:
        raise OciError(
            f"invalid signature_identity {show(text)}: expected a repository such as registry.example.org/web, or a"
            " repository with a tag, without a digest"
        )
    return identity


def split_reference(text: str) -> Identity | None:
    """Return the normalised repository and tag of a reference without its digest; ``None`` for an invalid one."""
    name = text.partition("@")[0]
    if not name or len(name) > _LONGEST or not name.isascii():
        return None
    path, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        path, tag = name, ""
    elif _TAG.match(tag) is None or ":" in path.rpartition("/")[2]:
        return None
    # the tag that normalising adds is not one that was written
    host, _slash, rest = normalise_name(path).rpartition(":")[0].partition("/")
    repository = f"{_hub(host.lower())}/{rest}"
    if host.lower() == "registry-1.docker.io" and "/" not in rest:
        repository = f"docker.io/library/{rest}"
    return Identity(repository, tag) if _REPOSITORY.match(repository) else None


def _hub(host: str) -> str:
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host
