# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a registry answers about signatures, by its client (distribution-spec, listing referrers)."""

from __future__ import annotations

import json
import re
from urllib.parse import urljoin, urlsplit

from .._errors import SourceError
from .._image import documents
from .._image.digest import Digest
from .._registry.client import MissingError, RegistryClient
from .._source.source import DOCUMENT_LIMIT
from .registry import Referrers

_INDEX = "application/vnd.oci.image.index.v1+json"
_NEXT = re.compile(r'<([^<>]{1,4096})>\s*;\s*rel="?next"?', re.IGNORECASE)
_MOST_PAGES = 10


class ClientSignatures:
    """A ``SignatureRegistry``. Mirrors are asked for digests only, since tags and lists change."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client

    def manifest(self, reference: str) -> bytes | None:
        """Return the manifest or index of a tag or digest, the latter verified; ``None`` if it does not exist."""
        try:
            return self._client.manifest(Digest(reference) if ":" in reference else reference).data
        except MissingError:
            return None

    def blob(self, digest: Digest, size: int) -> bytes:
        """Return a verified blob. Raises ``SourceError``."""
        return self._client.blob_data(digest, size)

    def referrers(self, digest: Digest) -> Referrers | None:
        """Return what refers to a digest, up to ten pages joined; ``None`` without the API (404).

        Raises ``ImageError`` and ``SourceError``.
        """
        path: str | None = f"referrers/{digest}"
        manifests: list[documents.Object] = []
        where = f"the referrers of {digest}"
        for _page in range(_MOST_PAGES):
            answer = self._client.ask(path, _INDEX, DOCUMENT_LIMIT) if path else None
            if answer is None:
                return Referrers(_index(manifests)) if manifests else None
            headers, data = answer
            manifests += documents.objects(documents.parse_object(data, where), "manifests", where)
            path = _next_page(headers.get("Link") or "", digest)
            if path is None:
                break
        return Referrers(_index(manifests), whole=path is None)


def _index(manifests: list[documents.Object]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}).encode("ascii")


def _next_page(link: str, digest: Digest) -> str | None:
    """Return the path of the next page below the repository, ``None`` at the end. Only its query is taken over."""
    match = _NEXT.search(link)
    if match is None:
        return None
    try:
        query = urlsplit(urljoin("https://registry.invalid/", match.group(1))).query
    except ValueError as error:
        raise SourceError(f"the registry lists the referrers of {digest} in pages with an invalid link") from error
    return f"referrers/{digest}?{query}" if query else None
