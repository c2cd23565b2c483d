# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A repository as a source: its documents and blobs under the names that they have in an image layout.

What is asked for stands in an ``index.json`` of one descriptor. Descriptors of documents that were read tell the sizes
of all others, so that nothing is asked for only to learn its size (docs/behaviour.md, section 11).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from .._errors import SourceError, show
from .._image import documents
from .._image.descriptor import Descriptor, parse_descriptor
from .._image.digest import Digest
from .._image.media_types import INDEXES, MANIFESTS
from .._source.range_reader import RangeReader
from .._source.source import Source, bound_document, bound_values, missing
from .client import Manifest, MissingError, RegistryClient
from .name import ImageName, parse_name
from .options import RegistryOptions

_INDEX = "index.json"
_REF = "org.opencontainers.image.ref.name"


@dataclass(frozen=True)
class _Known:
    """A blob that a document names; ``is_manifest`` says where the registry has it."""

    digest: Digest
    size: int
    is_manifest: bool


class RegistrySource:
    """The image that a name means. Nothing is asked for before the first document is read."""

    form = "registry"
    spooled_size: int | None = None

    def __init__(self, client: RegistryClient, digest: str | None = None) -> None:
        self.client = client
        self.path = f"docker://{client.name}"
        self.opened: list[str] = []
        self.documents_size = 0
        self._pinned = ""
        self._resolved: Digest | None = None
        self._digest = digest
        self._documents: dict[str, bytes] = {}
        self._known: dict[str, _Known] = {}

    @property
    def name(self) -> ImageName:
        """The name that was asked for."""
        return self.client.name

    @property
    def wanted_digest(self) -> Digest | None:
        """The digest that the name or the task gives. Raises ``ImageError``."""
        if self.name.digest is not None or self._digest is None:
            return self.name.digest
        return Digest(self._digest, "the option digest")

    @property
    def pinned(self) -> str:
        """The digest of the manifest or index that was asked for, once verified; else empty. Raises ``SourceError``."""
        self._index()
        return self._pinned

    @property
    def resolved(self) -> Digest | None:
        """The verified digest of the manifest or index that the name means. Raises ``SourceError``."""
        self._index()
        return self._resolved

    def size_of(self, name: str) -> int | None:
        """Return the size of a blob that a document names, or ``None``. Raises ``SourceError`` and ``ImageError``."""
        if name == _INDEX:
            return len(self._index())
        known = self._known.get(name)
        return None if known is None else known.size

    def open(self, name: str) -> RangeReader:
        """Open a blob; the request is made when it is read. Raises ``SourceError``."""
        known = self._known.get(name)
        if known is None:
            raise missing(self.path, name)
        self.opened.append(name)
        return RangeReader(self.client.blob(known.digest, known.size), 0, known.size, owned=True)

    def document(self, name: str) -> bytes:
        """Return a document, verified by its digest. Raises ``SourceError`` and ``ImageError``."""
        data = self._index() if name == _INDEX else self._documents.get(name)
        known = self._known.get(name)
        if data is None and known is None:
            raise missing(self.path, name)
        self.opened.append(name)
        bound_document(self, name, len(data or b"") if known is None else known.size)
        if data is None and known is not None:
            data = self._fetch(known)
            self._documents[name] = data
        data = data or b""
        bound_values(self, data)
        return data

    def spool(self, directory: int) -> Source:
        """Return the source itself: blobs are read as they come."""
        return self

    def close(self) -> None:
        """Do nothing: no connection is held between requests."""

    def _index(self) -> bytes:
        if _INDEX not in self._documents:
            manifest = self._resolve()
            self._resolved = manifest.digest
            self._documents[manifest.digest.blob_name] = manifest.data
            self._known[manifest.digest.blob_name] = _Known(manifest.digest, len(manifest.data), True)
            self._learn(manifest.data, f"the manifest {manifest.digest}")
            item = {
                "mediaType": manifest.media_type,
                "digest": str(manifest.digest),
                "size": len(manifest.data),
                "annotations": {_REF: str(self.name)},
            }
            self._documents[_INDEX] = json.dumps({"schemaVersion": 2, "manifests": [item]}).encode()
        return self._documents[_INDEX]

    def _resolve(self) -> Manifest:
        name = self.name
        digest = self.wanted_digest
        if digest is not None:
            try:
                found = self.client.manifest(digest)
                self._pinned = str(digest)
                return found
            except MissingError:
                if name.digest is not None:
                    raise
                # it may be a config's, and then the image is known by its tag
        return self.client.manifest(name.tag)

    def _fetch(self, known: _Known) -> bytes:
        if not known.is_manifest:
            return self.client.blob_data(known.digest, known.size)
        manifest = self.client.manifest(known.digest)
        self._learn(manifest.data, f"the manifest {known.digest}")
        return manifest.data

    def _learn(self, data: bytes, where: str) -> None:
        """Note what a manifest or index names. Raises ``ImageError``."""
        value = documents.parse_object(data, where)
        found = [*documents.objects(value, "manifests", where), *documents.objects(value, "layers", where)]
        config = documents.mapping(value, "config", where)
        for item in [*found, config] if config else found:
            self._note(parse_descriptor(item, f"a descriptor in {where}"))

    def _note(self, descriptor: Descriptor) -> None:
        is_manifest = descriptor.media_type in INDEXES or descriptor.media_type in MANIFESTS
        known = _Known(descriptor.digest, descriptor.size, is_manifest)
        self._known.setdefault(descriptor.digest.blob_name, known)


def open_registry(src: str, options: RegistryOptions, digest: str | None = None) -> RegistrySource:
    """Return the source of ``docker://…``; ``digest`` is the option of that name. Raises ``SourceError``, ``ImageError``."""
    name = parse_name(src)
    if digest is not None and name.digest is not None and digest != name.digest:
        raise SourceError(f"src {show(src)} and digest {show(digest)} name two digests; leave one out")
    return RegistrySource(RegistryClient(name, options), digest)
