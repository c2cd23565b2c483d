# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client of one repository: manifests by tag or digest, blobs by digest (docs/behaviour.md, section 11).

It knows neither images nor platforms. Bodies are hashed before anything believes them.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._errors import SourceError, show
from .._image import documents
from .._image.digest import Digest, sha256_of
from .._image.media_types import INDEXES, MANIFESTS
from .._remote.exchange import RefusedError, Request
from .._source.source import DOCUMENT_LIMIT
from .blob import RemoteBlob, read_blob
from .endpoint import Endpoint, mirror_endpoint, registry_endpoint
from .name import ImageName
from .options import RegistryOptions
from .token import Tokens

# always the same, since registries answer by it
_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ACCEPT = {"Accept": ", ".join(_TYPES)}
_SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
_LONGEST_DIGEST = 200


class MissingError(SourceError):
    """The registry does not have what was asked for, or does not show it."""


@dataclass(frozen=True)
class Manifest:
    """A manifest or index: its verified ``data``, the ``digest`` of that, and what it is."""

    digest: Digest
    media_type: str
    data: bytes


class RegistryClient:
    """A repository at a registry, with mirrors before it. ``tokens`` may be shared by clients."""

    def __init__(self, name: ImageName, options: RegistryOptions, tokens: Tokens | None = None) -> None:
        tokens = tokens or Tokens()
        self.name = name
        self.options = options
        self.registry = registry_endpoint(name, options, tokens)
        self._mirrors = [mirror_endpoint(mirror, name, options, tokens) for mirror in options.mirrors]

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells this client from others at the registry, without passwords: not to be shown."""
        options, who = self.options, self.registry.session.credentials
        account = () if who is None else (who.username, "token" if who.identity_token else "password")
        headers = [f"{name}: {options.headers[name]}" for name in sorted(options.headers)]
        return (*account, options.client_cert or "", *headers)

    def current_digest(self, tag: str) -> str | None:
        """Return the digest that the registry says a tag has, unverified; ``None`` if it does not say.

        Good for nothing but to learn that a tag has not moved. Raises ``SourceError``.
        """
        try:
            headers, _data = self.registry.ask(f"manifests/{tag}", Request(ACCEPT, "HEAD"), 0)
        except RefusedError as error:
            if error.status in (403, 404, 405):
                return None
            raise self.registry.refused(error, _in_words(tag)) from error
        return (headers.get("Docker-Content-Digest") or "").strip()[:_LONGEST_DIGEST] or None

    def manifest(self, reference: str) -> Manifest:
        """Return the manifest or index of a tag or digest, the latter verified.

        Raises ``MissingError`` if it does not exist, ``SourceError`` and ``ImageError``.
        """
        wanted = reference if isinstance(reference, Digest) else None
        if wanted is not None:
            for mirror in list(self._mirrors):
                try:
                    return self._manifest(mirror, reference, wanted)
                except SourceError as error:
                    self._leave(mirror, _in_words(reference), error)
        return self._manifest(self.registry, reference, wanted)

    def blob(self, digest: Digest, size: int) -> RemoteBlob:
        """Return a blob to be read and verified. Nothing is asked for before it is read."""
        return RemoteBlob([*self._mirrors, self.registry], digest, size, self._forget)

    def blob_data(self, digest: Digest, size: int) -> bytes:
        """Return a small blob, verified. Raises ``SourceError``."""
        for mirror in list(self._mirrors):
            try:
                return self._blob_data(mirror, digest, size)
            except SourceError as error:
                self._leave(mirror, f"the blob {digest}", error)
        return self._blob_data(self.registry, digest, size)

    def _blob_data(self, endpoint: Endpoint, digest: Digest, size: int) -> bytes:
        data = read_blob(RemoteBlob([endpoint], digest, size, self._forget))
        if digest.of(data) != digest:
            raise SourceError(
                f"{endpoint.name} serves the blob {digest} with content of the digest {digest.of(data)}; push the image again"
            )
        return data

    def distrust_mirrors(self) -> bool:
        """Ask the registry alone from now on, because something of a blob was wrong; return whether that may help."""
        mirrors, self._mirrors = self._mirrors, []
        for mirror in mirrors:
            self.options.notes.add(f"the mirror {show(mirror.name)} may have served wrong bytes, so it was left")
        return bool(mirrors)

    def ask(self, path: str, accept: str, limit: int) -> tuple[t.Any, bytes] | None:
        """Return headers and body of another document of the registry, ``None`` if it does not exist (404).

        ``path`` is below the repository, such as ``referrers/sha256:…``. Raises ``SourceError``.
        """
        try:
            return self.registry.ask(path, Request({"Accept": accept}), limit)
        except RefusedError as error:
            if error.status == 404:
                return None
            raise self.registry.refused(error, show(path)) from error

    def _manifest(self, endpoint: Endpoint, reference: str, wanted: Digest | None) -> Manifest:
        what = _in_words(reference)
        try:
            headers, data = endpoint.ask(f"manifests/{reference}", Request(ACCEPT), DOCUMENT_LIMIT)
        except RefusedError as error:
            problem = endpoint.refused(error, what)
            if error.status == 404 and not error.redirected:
                raise MissingError(problem.message) from error
            raise problem from error
        found = sha256_of(data) if wanted is None else wanted.of(data)
        if wanted is not None and found != wanted:
            raise SourceError(
                f"{endpoint.name} serves {what} with content of the digest {found}; do not use this registry"
            )
        return Manifest(found, _media_type(headers, data, f"{what} of {endpoint.name}"), data)

    def _leave(self, mirror: Endpoint, what: str, error: SourceError) -> None:
        self.options.notes.add(f"the mirror {show(mirror.name)} does not serve {what}: {error.message}")
        self._forget(mirror)

    def _forget(self, mirror: Endpoint) -> None:
        if mirror in self._mirrors:
            self._mirrors.remove(mirror)


def _in_words(reference: str) -> str:
    return f"the manifest {reference}" if isinstance(reference, Digest) else f"the tag {show(reference)}"


def _media_type(headers: t.Any, data: bytes, what: str) -> str:
    """Return what a body is: the header and the body's own field must not contradict each other. Raises errors."""
    said = (headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    value = documents.parse_object(data, what)
    own = documents.text(value, "mediaType", what) or ""
    if said in _SCHEMA_1 or own in _SCHEMA_1 or value.get("schemaVersion") == 1:
        raise SourceError(
            f"{what} is an image of Docker's schema 1, which was given up in 2017 and says nothing reliable; push it again with"
            " a current tool"
        )
    kinds = [kind for kind in (_kind(said), _kind(own)) if kind is not None]
    if len({id(kind) for kind in kinds}) > 1:
        raise SourceError(
            f"{what} comes with the Content-Type {show(said)}, but its own mediaType is {show(own)}; do not use this image"
        )
    if own:
        return own
    if kinds:
        return said
    # a server that does not say: the fields tell
    return _TYPES[0] if value.get("manifests") is not None else _TYPES[1]


def _kind(media_type: str) -> frozenset[str] | None:
    return next((kind for kind in (INDEXES, MANIFESTS) if media_type in kind), None)
