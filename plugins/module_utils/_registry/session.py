# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a repository's client proves who it is, from the first challenge on (docs/behaviour.md, section 11)."""

from __future__ import annotations

import ipaddress
import typing as t

from .._errors import SourceError, show
from .._remote.exchange import Handlers
from .._remote.url import Url
from .auth_file import Credentials, find_credentials, has_entry
from .challenge import Challenge, parse_challenges
from .options import RegistryOptions
from .token import Token, TokenKey, Tokens, ask_token, basic_headers, realm_of

# Second-level names below which others register, as co.uk: the last two labels do not make a domain of one owner.
_SHARED_LABELS = frozenset(["ac", "co", "com", "edu", "gov", "net", "org"])


class Session:
    """What requests to one repository of one registry share. ``known_realm`` is the origin of an earlier run's realm.

    ``realm`` is the origin of a realm on another domain than the registry's that got credentials in this run.
    """

    def __init__(
        self, registry: Url, repository: str, options: RegistryOptions, who: Credentials | None, tokens: Tokens
    ) -> None:
        self.registry = registry
        self.options = options
        self.credentials = who
        self.known_realm = ""
        self.realm = ""
        self._last_realm = ""
        self._scope = f"repository:{repository}:pull"
        self._tokens = tokens
        self._bearer: Challenge | None = None
        self.uses_basic = who is not None and options.force_basic_auth and not who.identity_token

    @property
    def account(self) -> str:
        """Who asks, in a message."""
        who = self.credentials
        return "an anonymous client" if who is None else f"the user {show(who.username)}"

    def current(self) -> Token | None:
        """Return a token that may be used, or ``None``."""
        return None if self._bearer is None else self._tokens.current(self._key(self._bearer))

    @property
    def needs_token(self) -> bool:
        """Whether the registry has asked for a token before."""
        return self._bearer is not None

    def obtain(self, refused: Token | None) -> Token:
        """Return a token other than the ``refused`` one. Raises ``SourceError``."""
        challenge = t.cast(Challenge, self._bearer)
        key = self._key(challenge)
        realm = realm_of(challenge, self.registry, self.options)
        if self.credentials is not None:
            self._require_known(realm)
        return self._tokens.obtain(key, refused, lambda: ask_token(realm, key, self.options, self.credentials))

    def answer(self, challenges: t.Sequence[Challenge]) -> str:
        """Choose a challenge that can be answered; return its scheme, or an empty string."""
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                self._bearer = challenge
                return "bearer"
        who = self.credentials
        if who is not None and not who.identity_token and any(found.scheme == "basic" for found in challenges):
            return "basic"
        return ""

    def _key(self, challenge: Challenge) -> TokenKey:
        parameters = challenge.parameters
        # what a challenge asks for beyond this is not granted
        return TokenKey(
            self.registry.origin, parameters["realm"], parameters.get("service", ""), self._scope, self.credentials
        )

    def _require_known(self, realm: Url) -> None:
        """Refuse to show credentials to a realm elsewhere if another one got them before. Raises ``SourceError``."""
        found = origin_in_words(realm)
        known = self._last_realm or self.known_realm
        if same_domain(realm.origin[1], self.registry.origin[1]):
            self._last_realm = found
            return
        file = self.options.auth_file
        if known and found not in (known, self.known_realm) and not (file and has_entry(file, _netloc(realm))):
            raise SourceError(
                f"the registry {self.registry.origin[1]} sends credentials to {show(found)} now, and sent them to"
                f" {show(known)} before; if that is right, add an entry for {show(_netloc(realm))} to"
                " registry_auth_file"
            )
        self.realm = self._last_realm = found


class SessionLogin:
    """The login of one request: it knows which token that request used."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._used: Token | None = None

    def authorize(self) -> bool:
        """Obtain a token if the registry wants one, and return whether that took a request. Raises ``SourceError``."""
        session = self._session
        if session.options.has_own_authorization or not session.needs_token:
            return False
        self._used = session.current()
        if self._used is not None:
            return False
        self._used = session.obtain(None)
        return True

    def prepare(self, url: Url) -> tuple[dict[str, str], Handlers]:
        """Return the header Authorization, if there is anything to show."""
        session = self._session
        if session.options.has_own_authorization:
            return {}, []
        if self._used is not None:
            return {"Authorization": f"Bearer {self._used.value}"}, []
        return (basic_headers(session.credentials) if session.uses_basic else {}), []

    def renew(self, headers: t.Any) -> bool:
        """Answer a 401, and return whether a second request may succeed. Raises ``SourceError``."""
        session = self._session
        if session.options.has_own_authorization:
            return False
        scheme = session.answer(parse_challenges(headers.get_all("WWW-Authenticate") or []))
        if scheme == "bearer":
            self._used = session.obtain(self._used)
            return True
        known = session.uses_basic
        session.uses_basic = scheme == "basic"
        return session.uses_basic and not known


def credentials_for(registry: str, repository: str, options: RegistryOptions) -> Credentials | None:
    """Return the credentials of the task for a registry, or of its file. Raises ``SourceError``."""
    if options.username:
        return Credentials(options.username, options.password or "")
    if options.auth_file:
        return find_credentials(options.auth_file, registry, repository)
    return None


def origin_in_words(url: Url) -> str:
    """Return the scheme, host and port of a URL."""
    return f"{url.origin[0]}://{_netloc(url)}"


def same_domain(host: str, other: str) -> bool:
    """Return whether two hosts are likely one owner's: the same, or below one registrable domain."""
    if host == other:
        return True
    ends = [_domain(name) for name in (host, other)]
    return ends[0] is not None and ends[0] == ends[1]


def _domain(host: str) -> str | None:
    try:
        ipaddress.ip_address(host)
        return None
    except ValueError:
        pass
    labels = host.rstrip(".").split(".")
    is_shared = len(labels) > 1 and len(labels[-1]) == 2 and labels[-2] in _SHARED_LABELS
    count = 3 if is_shared else 2
    return ".".join(labels[-count:]) if len(labels) >= count else None


def _netloc(url: Url) -> str:
    return url.text.split("/")[2]
