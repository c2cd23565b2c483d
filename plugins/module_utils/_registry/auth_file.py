# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Credentials for registries, as docker and podman keep them (containers-auth.json(5), docker's config.json)."""

from __future__ import annotations

import base64
import binascii
import json
import typing as t
from dataclasses import dataclass, field

from .._errors import SourceError, os_phrase, show
from .._source.range_reader import open_regular
from .name import normalise_host

# The most bytes that a file with credentials may have.
_LIMIT = 1024 * 1024

_Entries = t.Dict[str, t.Any]


@dataclass(frozen=True)
class Credentials:
    """A user and password, or a token that stands for both and is exchanged for others."""

    username: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def find_credentials(path: str, registry: str, repository: str) -> Credentials | None:
    """Return what a file has for a repository: of its keys, the longest that covers it. Raises ``SourceError``.

    Credentials that only a helper program can give are an error: which program a module finds, and whose keyring it
    would open, depends on who runs it.
    """
    content = _read(path)
    entries = {_normalise(key): value for key, value in _section(content, "auths", path).items()}
    helpers = {_normalise(key) for key in _section(content, "credHelpers", path)}
    if registry in helpers:
        raise _needs_helper(path, registry, "credHelpers")
    names = f"{registry}/{repository}".split("/")
    for length in range(len(names), 0, -1):
        entry = entries.get("/".join(names[:length]))
        if entry is None:
            continue
        found = _parse(entry, path, registry)
        if found is None and content.get("credsStore"):
            raise _needs_helper(path, registry, "credsStore")
        return found
    return None


def has_entry(path: str, host: str) -> bool:
    """Return whether a file has credentials for a host by name. Raises ``SourceError``."""
    return normalise_host(host) in map(_normalise, _section(_read(path), "auths", path))


def _read(path: str) -> _Entries:
    fd = _open(path)
    try:
        with open(fd, "rb") as file:
            data = file.read(_LIMIT + 1)
        content = json.loads(data) if len(data) <= _LIMIT else None
    except OSError as error:
        raise _unusable(path, os_phrase(error)) from error
    except (ValueError, RecursionError):
        # the reason would quote it
        raise _unusable(path, "it is not valid JSON") from None
    if not isinstance(content, dict):
        raise _unusable(path, f"it is not a JSON object of at most {_LIMIT} bytes")
    return content


def _open(path: str) -> int:
    try:
        return open_regular(path)
    except ValueError as error:
        raise _unusable(path, "it contains a NUL or undecodable characters") from error
    except SourceError as error:
        raise SourceError(f"registry_auth_file: {error.message}") from error


def _section(content: _Entries, name: str, path: str) -> _Entries:
    found = content.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _unusable(path, f"its {name} is not an object")
    return found


def _normalise(key: str) -> str:
    """Return a key as containers/image writes it: docker's may be URLs, of which only the host counts."""
    for scheme in ("https://", "http://"):
        if key.startswith(scheme):
            key = key[len(scheme) :].partition("/")[0]
    host, slash, rest = key.rstrip("/").partition("/")
    return f"{normalise_host(host)}{slash}{rest}"


def _parse(entry: t.Any, path: str, registry: str) -> Credentials | None:
    """Return the credentials of an entry; ``None`` when it is empty."""
    values = entry if isinstance(entry, dict) else {}
    texts = {name: values.get(name) or "" for name in ("auth", "username", "password", "identitytoken")}
    if not isinstance(entry, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise _unusable(path, f"its entry for {show(registry)} has the wrong type")
    username, password = texts["username"], texts["password"]
    if texts["auth"]:
        try:
            plain = base64.b64decode(texts["auth"], validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            raise _unusable(path, f"the auth of its entry for {show(registry)} is not valid base64") from None
        username, colon, password = plain.partition(":")
        if not colon:
            raise _unusable(path, f"the auth of its entry for {show(registry)} has no colon")
        # docker pads with NUL
        password = password.rstrip("\0")
    if not username and not texts["identitytoken"]:
        return None
    return Credentials(username, password, texts["identitytoken"])


def _unusable(path: str, why: str) -> SourceError:
    return SourceError(f"registry_auth_file {show(path)} cannot be used: {why}; give an auth.json or a config.json")


def _needs_helper(path: str, registry: str, key: str) -> SourceError:
    return SourceError(
        f"registry_auth_file {show(path)} leaves {show(registry)} to a helper program ({key}), which a module cannot run;"
        " give url_username and url_password, for example with lookup('ansible.builtin.pipe', …)"
    )
