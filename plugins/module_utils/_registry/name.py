# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of images in registries, by Docker's rules (docs/behaviour.md, section 11)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .._errors import SourceError, show
from .._image.digest import Digest
from .._remote.url import REGISTRY, masked_name

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"[a-z0-9+._-]+:[A-Za-z0-9=_-]+\Z")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::([0-9]{{1,5}}))?\Z")
_LONGEST = 255

_DOCKER_HUB = "docker.io"
_DOCKER_HUB_HOST = "registry-1.docker.io"
_DOCKER_HUB_NAMES = (_DOCKER_HUB, "index.docker.io", _DOCKER_HUB_HOST)


@dataclass(frozen=True)
class ImageName:
    """An image in a registry. ``tag`` is what is asked for when there is no ``digest``; ``registry`` may have a port."""

    registry: str
    repository: str
    tag: str
    digest: Digest | None

    def __str__(self) -> str:
        end = f":{self.tag}" if self.digest is None else f"@{self.digest}"
        return f"{self.registry}/{self.repository}{end}"

    @property
    def host(self) -> str:
        """The host, and port if any, that serves the registry's interface."""
        return _DOCKER_HUB_HOST if self.registry == _DOCKER_HUB else self.registry


def parse_name(src: str) -> ImageName:
    """Parse ``docker://[HOST[:PORT]/]NAME[:TAG][@DIGEST]``. Raises ``SourceError`` and ``ImageError``."""
    text = src[len(REGISTRY) :]
    rest, at, digest = text.partition("@")
    if at and ("@" in digest or "/" in digest or _DIGEST.match(digest) is None):
        # whatever is wrong with it may be a part of a password, so it is not quoted
        raise SourceError(
            "src names a user, a password or an invalid digest, with an @; give credentials as url_username and"
            " url_password, or by registry_auth_file"
        )
    host, path = _split(rest)
    path, tag = _split_tag(path)
    if host == _DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    _check(src, host, path, tag)
    return ImageName(
        registry=host,
        repository=path,
        tag=tag or "latest",
        digest=Digest(digest, f"src {show(masked_name(src))}") if at else None,
    )


def normalise_host(host: str) -> str:
    """Return one name for each registry: Docker Hub has several, and host names have no case."""
    host = host.lower()
    return _DOCKER_HUB if host in _DOCKER_HUB_NAMES else host


def check_host(host: str, what: str) -> None:
    """Require that a text is a host with an optional port. Raises ``SourceError`` that begins with ``what``."""
    match = _HOST.match(host) if len(host) <= _LONGEST else None
    if match is None or (match.group(1) is not None and not 0 < int(match.group(1)) < 65536):
        raise SourceError(f"{what} has an invalid host or port: {show(host)}; expected HOST or HOST:PORT")


def check_repository(path: str, what: str) -> None:
    """Require that a text is a path of lower-case components. Raises ``SourceError`` that begins with ``what``."""
    if len(path) > _LONGEST or _REPOSITORY.match(path) is None:
        raise SourceError(
            f"{what} has an invalid path: {show(path)}; expected lower-case letters, digits and separators, such as"
            " library/alpine"
        )


def _split(rest: str) -> tuple[str, str]:
    first, slash, path = rest.partition("/")
    is_host = first == "localhost" or first != first.lower() or {".", ":"} & {*first}
    if slash and is_host:
        return normalise_host(first), path
    return _DOCKER_HUB, rest


def _split_tag(path: str) -> tuple[str, str]:
    above, slash, last = path.rpartition("/")
    last, colon, tag = last.partition(":")
    # an empty tag is not a missing one
    return f"{above}{slash}{last}", tag if not colon else tag or ":"


def _check(src: str, host: str, path: str, tag: str) -> None:
    what = f"src {show(masked_name(src))}"
    if len(host) + 1 + len(path) > _LONGEST:
        raise SourceError(f"{what} has a host and name of more than {_LONGEST} characters; check it")
    check_host(host, what)
    check_repository(path, what)
    if tag and _TAG.match(tag) is None:
        raise SourceError(f"{what} has an invalid tag: expected at most 128 letters, digits, '_', '.' and '-'")
