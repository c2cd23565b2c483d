# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a URL is made of, and how much of it may be shown (docs/behaviour.md, section 1)."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urljoin, urlsplit

from .._errors import SourceError
from .._secrets import MASK

# How the name of an image in a registry begins.
REGISTRY = "docker://"
# the only text that may follow an @
_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")
_URL = re.compile(r"https?://", re.IGNORECASE)
_NOT_IN_HOST = re.compile(r"[^a-z0-9._:\[\]%-]")
# What the domain name system allows.
_LONGEST_HOST = 253
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_registry(src: str) -> bool:
    """Return whether ``src`` names an image in a registry."""
    return src.startswith(REGISTRY)


def masked_name(src: str) -> str:
    """Return the name of an image in a registry as it may be shown: without anything that may be a password."""
    rest, at, digest = src.partition("@")
    return src if not at or _DIGEST.match(digest) else REGISTRY + MASK


def is_url(src: str) -> bool:
    """Whether ``src`` is to be fetched rather than opened."""
    return _URL.match(src) is not None


@dataclass(frozen=True)
class Url:
    """An ``http`` or ``https`` URL.

    ``text`` is what is asked for, without user and fragment; ``shown`` what a message may hold, without
    the query, which may be a signature. ``origin`` is scheme, host and port.
    """

    text: str
    shown: str
    origin: tuple[str, str, int]
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def redirected(self, location: str) -> Url:
        """Return the URL a redirect leads to. Raises ``SourceError`` if it must not be followed."""
        # headers come as latin-1, and must be escaped by the bytes that they were
        escaped = quote(location, safe=string.punctuation, encoding="latin-1")
        try:
            target = urljoin(self.text, escaped)
        except ValueError:
            target = ""
        if not is_url(target):
            raise SourceError(
                f"'{self.shown}' redirects to something other than an http or https URL; give the archive's own URL"
            )
        url = parse_url(target, f"what '{self.shown}' redirects to")
        if self.origin[0] == "https" and url.origin[0] != "https":
            raise SourceError(
                f"'{self.shown}' redirects from https to '{url.shown}', which is not protected; give a URL that stays"
                " with https"
            )
        return url


def parse_url(text: str, what: str = "src") -> Url:
    """Take a URL apart. Raises ``SourceError``, which quotes nothing of it: it may be a password."""
    try:
        parts = urlsplit(text)
        port = parts.port
        host = parts.hostname or ""
        if len(host) > _LONGEST_HOST:
            # older Pythons need time by the square of its length to encode it
            raise _invalid_url(what, "its host is too long")
        host = host.encode("idna").decode("ascii")
    except ValueError:
        raise _invalid_url(what, "invalid host or port") from None
    if not host or _NOT_IN_HOST.search(host):
        raise _invalid_url(what, "it names no host")
    scheme = parts.scheme.lower()
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != _DEFAULT_PORTS[scheme]:
        netloc += f":{port}"
    path = _escaped(parts.path) or "/"
    query = f"?{_escaped(parts.query)}" if parts.query else ""
    return Url(
        text=f"{scheme}://{netloc}{path}{query}",
        shown=f"{scheme}://{netloc}{path}{'?...' if query else ''}",
        origin=(scheme, host, port or _DEFAULT_PORTS[scheme]),
        username=_unquoted(parts.username),
        password=_unquoted(parts.password),
    )


def masked(src: str) -> str:
    """A URL as it may be shown among a task's arguments: without its user and password, and without its query."""
    try:
        parse_url(src)
    except SourceError:
        # whatever is wrong with it may be a part of a password
        return MASK
    parts = urlsplit(src)
    _user, found, host = parts.netloc.rpartition("@")
    if found:
        parts = parts._replace(netloc=f"{MASK}@{host}")
    if parts.query:
        parts = parts._replace(query=MASK)
    if parts.fragment:
        parts = parts._replace(fragment=MASK)
    return parts.geturl()


def secrets_of(src: str) -> tuple[str | None, ...]:
    """What ``masked`` hides, in the forms in which it may turn up elsewhere."""
    try:
        url = parse_url(src)
    except SourceError:
        return (src,)
    parts = urlsplit(src)
    user = parts.netloc.rpartition("@")[0]
    return (user, url.password, parts.password, parts.query, _escaped(parts.query), parts.fragment)


def _escaped(text: str) -> str:
    return quote(text, safe=string.punctuation)


def _unquoted(text: str | None) -> str | None:
    return None if text is None else unquote(text)


def _invalid_url(what: str, why: str) -> SourceError:
    return SourceError(f"{what} is not a valid URL: {why}; check it")
