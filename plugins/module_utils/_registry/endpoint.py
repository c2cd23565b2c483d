# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One server of a repository, the registry or a mirror: its URLs, its session, and its errors in words."""

from __future__ import annotations

import typing as t

from .._errors import SourceError
from .._remote.exchange import Exchange, RefusedError, Request
from .._remote.retries import patiently
from .._remote.url import parse_url
from .answer import read_bounded, said_by_registry
from .name import ImageName
from .options import Mirror, RegistryOptions, base_url, mirrored
from .session import Session, SessionLogin, credentials_for
from .token import Tokens


class Endpoint:
    """A server that has a repository; ``name`` stands for it in messages."""

    def __init__(self, name: str, repository: str, session: Session, is_mirror: bool) -> None:
        self.name = name
        self.session = session
        self.is_mirror = is_mirror
        self._repository = repository

    def exchange(self, path: str) -> Exchange:
        """Return an exchange for a path below the repository, such as ``blobs/sha256:…``."""
        session = self.session
        url = parse_url(f"{session.registry.text}{self._repository}/{path}")
        advice = "check the mirror" if self.is_mirror else "check the name of the registry"
        return Exchange(url, session.options, url.shown, SessionLogin(session), advice)

    def ask(self, path: str, request: Request, limit: int) -> tuple[t.Any, bytes]:
        """Return headers and body of a document. Raises ``RefusedError`` and ``SourceError``."""
        exchange = self.exchange(path)
        return patiently(exchange, lambda: read_bounded(exchange, request, limit))

    def refused(self, error: RefusedError, what: str) -> SourceError:
        """Return the error for a request that the server refused; ``what`` names what was asked for."""
        said = f"{error.phrase}{said_by_registry(error.body)}"
        where = f"{what} of {self.name}"
        if error.redirected:
            return SourceError(f"{where} cannot be fetched: {said}; check what the registry redirects to")
        if error.status in (401, 403):
            return SourceError(
                f"{self.session.account} may not pull {where}, which is private or missing: {said}; give"
                " url_username and url_password, or registry_auth_file"
            )
        if error.status == 404:
            return SourceError(f"{where} does not exist, or {self.session.account} may not see it: {said}; check src")
        if error.status == 407:
            return SourceError(
                f"{where} cannot be fetched: {said}; give the proxy's user and password in the environment, or set"
                " use_proxy: false"
            )
        return SourceError(f"{where} cannot be fetched: {said}; check the registry")


def registry_endpoint(name: ImageName, options: RegistryOptions, tokens: Tokens) -> Endpoint:
    """Return the registry's own endpoint. Raises ``SourceError``."""
    who = credentials_for(name.registry, name.repository, options)
    session = Session(parse_url(base_url(name.host, options)), name.repository, options, who, tokens)
    return Endpoint(f"{name.registry}/{name.repository}", name.repository, session, False)


def mirror_endpoint(mirror: Mirror, name: ImageName, options: RegistryOptions, tokens: Tokens) -> Endpoint:
    """Return the endpoint of a mirror, which has credentials of its own or none. Raises ``SourceError``."""
    repository = mirrored(mirror, name)
    # what it does not give at once comes from elsewhere
    own = options.for_strangers(retries=0)
    who = credentials_for(mirror.host, repository, own)
    session = Session(parse_url(base_url(mirror.host, own)), repository, own, who, tokens)
    return Endpoint(f"{mirror.host}/{repository}", repository, session, True)
