# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One image that a source lists, before its documents are read (docs/behaviour.md, section 2)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .._errors import ImageError, show
from . import documents
from .descriptor import Descriptor, check_kind, parse_descriptor, read_document
from .digest import Digest, sha256_of
from .media_types import CONFIGS, is_artifact, kind_of_artifact
from .platform import Platform
from .._source.source import Source, clean

# The two documents that list images.
INDEX_JSON = "index.json"
MANIFEST_JSON = "manifest.json"

_HEX_NAME = re.compile(r"(?:blobs/sha256/|sha256:)?([0-9a-f]{64})(?:\.json)?\Z")


@dataclass(frozen=True)
class SavedImage:
    """An item of ``manifest.json``: the names of its config and its layers in the source."""

    config: str
    layers: tuple[str, ...]

    @property
    def named_digest(self) -> Digest | None:
        """The digest that the config's name gives it, which is not verified here."""
        match = _HEX_NAME.match(clean(self.config))
        return None if match is None else Digest(f"sha256:{match.group(1)}")

    def read_config(self, source: Source) -> tuple[Digest, bytes]:
        """Read the config and return it with its digest. Raises ``ImageError``, ``SourceError``."""
        data = source.document(clean(self.config))
        found = sha256_of(data)
        if self.named_digest not in (None, found):
            raise ImageError(
                f"the config {show(self.config)} has content with the digest {found}; save the image" " again"
            )
        return found, data


@dataclass(frozen=True)
class Candidate:
    """An image that may be selected.

    ``listed_in`` is the document that lists it, or whose indexes do. ``manifest`` is its descriptor; an image that only
    ``manifest.json`` lists does not have one. ``saved`` is its item there. ``via`` are the digests of the indexes that
    list it. ``present`` is false if its manifest, or config in ``manifest.json``, is not in the source. ``problem`` says
    why an item of a list cannot be understood; nothing more is known of it then.
    """

    refs: tuple[str, ...]
    platform: Platform | None = None
    manifest: Descriptor | None = None
    saved: SavedImage | None = None
    via: tuple[Digest, ...] = ()
    present: bool = True
    listed_in: str = INDEX_JSON
    problem: str = ""

    def manifest_document(self, source: Source) -> documents.Object:
        """Read the manifest and verify it. Raises ``ImageError``, ``SourceError``."""
        if self.manifest is None:
            return {}
        where = "the manifest"
        value = documents.parse_object(read_document(source, self.manifest, where), where)
        check_kind(value, self.manifest, where)
        return value

    def config_descriptor(self, manifest: documents.Object) -> Descriptor | None:
        """Return the config of a manifest, or None if it is an artifact. Raises ``ImageError``."""
        where = f"the config descriptor of {self.manifest.digest if self.manifest else 'the image'}"
        value = documents.mapping(manifest, "config", where)
        if not value or manifest.get("subject") or _artifact_layer(manifest):
            return None
        descriptor = parse_descriptor(value, where)
        return descriptor if descriptor.media_type in CONFIGS else None

    def artifact_in_words(self, manifest: documents.Object) -> str:
        """Return what an artifact is, for a message. Raises ``ImageError``."""
        where = "the manifest"
        config = documents.mapping(manifest, "config", where)
        own_type = documents.text(manifest, "artifactType", where)
        types = (own_type, _artifact_layer(manifest), documents.text(config, "mediaType", where))
        own = next((media_type for media_type in types if media_type), "")
        return kind_of_artifact(own)

    def config_digest(self, source: Source) -> Digest | None:
        """Return the digest of the config, None for an artifact. Raises ``ImageError``, ``SourceError``."""
        if self.manifest is None and self.saved is not None:
            return self.saved.named_digest or self.saved.read_config(source)[0]
        descriptor = self.config_descriptor(self.manifest_document(source))
        return None if descriptor is None else descriptor.digest


def _artifact_layer(manifest: documents.Object) -> str:
    """Return the type of the first layer that no image has, otherwise an empty text."""
    layers = manifest.get("layers")
    types = [item.get("mediaType") for item in layers if isinstance(item, dict)] if isinstance(layers, list) else []
    return next((kind for kind in types if isinstance(kind, str) and is_artifact(kind)), "")
