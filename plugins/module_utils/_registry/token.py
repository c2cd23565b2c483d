# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tokens of registries: how one is asked for, and which requests may share it (distribution-spec, auth/token)."""

from __future__ import annotations

import threading
import time
import typing as t
import urllib.parse
from dataclasses import dataclass, field, replace

from ansible.module_utils.urls import basic_auth_header

from .._errors import ImageError, SourceError, show
from .._image import documents
from .._remote.exchange import Exchange, Handlers, RefusedError, Request
from .._remote.options import is_header_value
from .._remote.retries import patiently
from .._remote.url import Url, is_url, parse_url
from .answer import read_bounded, said_by_registry
from .auth_file import Credentials
from .challenge import Challenge
from .options import RegistryOptions

# The most bytes of an answer with a token, and of the token itself.
_LIMIT = 256 * 1024
_LONGEST_TOKEN = 64 * 1024
# Seconds that a token lives when its server does not say.
_LIFE = 60
# A token is renewed when less than this part of its life is left, or so many seconds.
_REST, _MOST_REST = 0.1, 10.0
_CLIENT = "hypervisor.oci"


@dataclass(frozen=True)
class TokenKey:
    """What a token is good for: nothing is shared between two of these that differ."""

    origin: tuple[str, str, int]
    realm: str
    service: str
    scope: str
    account: Credentials | None


@dataclass(frozen=True)
class Token:
    """A token; ``renew_at`` is a time of the monotonic clock from which on a new one is asked for."""

    value: str = field(repr=False)
    renew_at: float

    @property
    def is_old(self) -> bool:
        """Whether it is better renewed before it is used."""
        return time.monotonic() >= self.renew_at


class Tokens:
    """The tokens of a run, for any number of threads: those that need the same one wait for a single request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[TokenKey, Token] = {}
        self._locks: dict[TokenKey, threading.Lock] = {}

    def current(self, key: TokenKey) -> Token | None:
        """Return a token that may be used, or ``None``."""
        with self._lock:
            token = self._tokens.get(key)
        return None if token is None or token.is_old else token

    def obtain(self, key: TokenKey, refused: Token | None, ask: t.Callable[[], Token]) -> Token:
        """Return a token other than the ``refused`` one, asking for it if no other thread has."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            token = self.current(key)
            if token is None or token is refused:
                token = ask()
                with self._lock:
                    self._tokens[key] = token
            return token


def realm_of(challenge: Challenge, registry: Url, options: RegistryOptions) -> Url:
    """Return the URL that gives tokens. Raises ``SourceError`` for one that must get no credentials."""
    text = challenge.parameters.get("realm", "")
    where = f"the registry {registry.origin[1]} sends its clients for tokens to a realm that"
    if not is_url(text) or "#" in text:
        raise SourceError(f"{where} is not an absolute http or https URL; check the registry")
    url = parse_url(text, f"the realm of the registry {registry.origin[1]}")
    if url.username is not None or url.password is not None:
        raise SourceError(f"{where} names a user or password; check the registry")
    if url.origin[0] != "https" and not (options.plain_http and url.origin[1] == registry.origin[1]):
        raise SourceError(f"{where} is not protected by https: {show(url.shown)}; check the registry")
    return url


def ask_token(realm: Url, key: TokenKey, options: RegistryOptions, credentials: Credentials | None) -> Token:
    """Ask a realm for a token. Raises ``SourceError``."""
    values = {"service": key.service, "scope": key.scope}
    values = {name: value for name, value in values.items() if value}
    request = Request({"Accept": "application/json"}, stays=True)
    sent = credentials
    if credentials is not None and credentials.identity_token:
        values.update(grant_type="refresh_token", client_id=_CLIENT, refresh_token=credentials.identity_token)
        headers = {**request.headers, "Content-Type": "application/x-www-form-urlencoded"}
        data = urllib.parse.urlencode(values).encode("ascii")
        request, sent = replace(request, method="POST", headers=headers, data=data), None
    else:
        separator = "&" if "?" in realm.text else "?"
        realm = replace(realm, text=realm.text + separator + urllib.parse.urlencode(values))
    own = options if realm.origin == key.origin else options.for_strangers()
    login = _BasicLogin(sent)
    exchange = Exchange(realm, own, realm.shown, login, "check the registry and its token server")
    try:
        data, received = patiently(exchange, lambda: (read_bounded(exchange, request, _LIMIT)[1], time.monotonic()))
    except RefusedError as error:
        who = show(credentials.username) if credentials is not None and credentials.username else "an anonymous client"
        raise SourceError(
            f"the token server {show(realm.shown)} gives {who} no token: {error.phrase}{said_by_registry(error.body)};"
            " check url_username and url_password, or registry_auth_file"
        ) from error
    return _parse(data, received, realm)


def _parse(data: bytes, received: float, realm: Url) -> Token:
    where = f"the answer of the token server {show(realm.shown)}"
    try:
        value = documents.parse_object(data, where)
        text = documents.text(value, "token", where) or documents.text(value, "access_token", where)
        life = documents.number(value, "expires_in", where)
    except ImageError as error:
        raise SourceError(f"{error.message}; check the token server") from None
    if not text or len(text) > _LONGEST_TOKEN or not is_header_value(text) or not text.isascii():
        raise SourceError(f"{where} does not hold a usable token; check the token server")
    seconds = _LIFE if life is None or life <= 0 else min(life, 24 * 60 * 60)
    return Token(text, received + seconds - min(seconds * _REST, _MOST_REST))


class _BasicLogin:
    """A user and password, sent at once, for the token server alone."""

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials

    def authorize(self) -> bool:
        """Return false: nothing has to be obtained."""
        return False

    def prepare(self, url: Url) -> tuple[dict[str, str], Handlers]:
        """Return the header with user and password."""
        return basic_headers(self._credentials), []

    def renew(self, headers: t.Any) -> bool:
        """Return false: nothing else can be tried."""
        return False


def basic_headers(credentials: Credentials | None) -> dict[str, str]:
    """Return the header that shows a user and password."""
    if credentials is None:
        return {}
    return {"Authorization": basic_auth_header(credentials.username, credentials.password).decode("ascii")}
