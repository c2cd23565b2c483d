# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Find all images of a source: in nested indexes and in Docker's manifest.json (docs/behaviour.md, sections 1 and 2)."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, replace

from .._errors import ImageError, show
from . import documents
from .descriptor import Descriptor, blob_size, check_kind, parse_descriptor, read_document
from .digest import Digest, sha256_of
from .media_types import CONFIGS, INDEXES, MANIFESTS
from .platform import Platform
from .._source.source import Source
from .._source.tar_index import clean

_LAYOUT_VERSION = "1.0.0"
_MOST_INDEXES = 32
_MOST_MANIFESTS = 10_000

_REF = "org.opencontainers.image.ref.name"
_CONTAINERD_REF = "io.containerd.image.name"
_ATTESTATION = "vnd.docker.reference.type"

_Names = t.Tuple[str, ...]
_Digests = t.Tuple[Digest, ...]

_HEX_NAME = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?\Z")


@dataclass(frozen=True)
class Candidate:
    """An image that may be selected.

    ``manifest`` is its descriptor. In archives of old ``docker save`` it is None, and ``saved`` is the image's item of
    ``manifest.json``. ``via`` are the digests of the indexes that list the image. ``present`` is false if the manifest
    is not in the source.
    """

    refs: tuple[str, ...]
    platform: Platform | None
    manifest: Descriptor | None
    saved: documents.Object | None
    via: tuple[Digest, ...]
    present: bool

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
        if not value:
            return None
        descriptor = parse_descriptor(value, where)
        return descriptor if descriptor.media_type in CONFIGS else None

    def saved_config(self, source: Source) -> tuple[Digest, bytes]:
        """Read the config that manifest.json names, with its digest. Raises ``ImageError``, ``SourceError``."""
        name = documents.text(self.saved or {}, "Config", "manifest.json")
        if not name:
            raise ImageError("manifest.json has an image without Config; save the image again")
        data = source.document(clean(name))
        found = sha256_of(data)
        match = _HEX_NAME.match(clean(name))
        if match is not None and found != f"sha256:{match.group(1)}":
            raise ImageError(f"the config {show(name)} has content with the digest {found}; save the image again")
        return found, data


def find_candidates(source: Source) -> list[Candidate]:
    """Return all images in the order of the archive, each once. Raises ``ImageError``, ``SourceError``."""
    found: list[Candidate] = []
    if source.size_of("index.json") is not None:
        _check_layout(source)
        found = _Walk(source).candidates()
    if source.size_of("manifest.json") is not None:
        found = _join_saved(source, found)
    elif not found and source.size_of("index.json") is None:
        raise ImageError(f"{show(source.path)} is not an image archive: it has neither index.json nor manifest.json")
    return found


def _check_layout(source: Source) -> None:
    if source.size_of("oci-layout") is None:
        return
    value = documents.parse_object(source.document("oci-layout"), "oci-layout")
    version = documents.text(value, "imageLayoutVersion", "oci-layout")
    if version != _LAYOUT_VERSION:
        raise ImageError(f"oci-layout has the unsupported version {show(version or '')}: expected {_LAYOUT_VERSION}")


# An item of an index, the names and digests of the indexes above it, and the index's name for errors.
_Item = t.Tuple[documents.Object, _Names, _Digests, str]


def _items(index: documents.Object, refs: _Names, via: _Digests, where: str) -> list[_Item]:
    """Return the items of an index in reverse, to be taken from the end of a list."""
    items = documents.objects(index, "manifests", where)
    return [(item, refs, via, where) for item in items[::-1]]


class _Walk:
    """A walk through index.json and its nested indexes, without recursion."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._found: dict[Digest, Candidate] = {}
        # dictionaries serve as ordered sets: an image may be listed under very many names
        self._names: dict[Digest, dict[str, None]] = {}
        self._vias: dict[Digest, dict[Digest, None]] = {}
        self._indexes = 0

    def candidates(self) -> list[Candidate]:
        """Return the images found, each once with all of its names."""
        value = documents.parse_object(self._source.document("index.json"), "index.json")
        if value.get("manifests") is not None and value.get("layers") is not None:
            raise ImageError("index.json has both manifests and layers; do not use this image")
        pending = _items(value, (), (), "index.json")
        while pending:
            item, refs, via, where = pending.pop()
            descriptor = parse_descriptor(item, f"a descriptor in {where}")
            if _is_attestation(descriptor):
                continue
            names = tuple(dict.fromkeys([*refs, *_refs(descriptor)]))
            if descriptor.media_type in MANIFESTS:
                self._add(descriptor, names, via)
            elif descriptor.media_type in INDEXES:
                nested = self._open(descriptor)
                if nested is None:
                    self._add(descriptor, names, via, False)
                elif descriptor.digest not in via:
                    further = (*via, descriptor.digest)
                    where = f"the index {descriptor.digest}"
                    pending += _items(nested, names, further, where)
        return [
            replace(candidate, refs=tuple(self._names[digest]), via=tuple(self._vias[digest]))
            for digest, candidate in self._found.items()
        ]

    def _open(self, descriptor: Descriptor) -> documents.Object | None:
        if blob_size(self._source, descriptor) is None:
            return None
        self._indexes += 1
        if self._indexes > _MOST_INDEXES:
            raise ImageError(
                f"the image has more than {_MOST_INDEXES} nested indexes, a fixed limit; save fewer images"
            )
        where = "the index"
        value = documents.parse_object(read_document(self._source, descriptor, where), where)
        check_kind(value, descriptor, where)
        return value

    def _add(self, descriptor: Descriptor, refs: _Names, via: _Digests, present: bool = True) -> None:
        digest = descriptor.digest
        self._names.setdefault(digest, {}).update(dict.fromkeys(refs))
        self._vias.setdefault(digest, {}).update(dict.fromkeys(via))
        known = self._found.get(digest)
        if known is not None:
            platform = known.platform or descriptor.platform
            self._found[digest] = replace(known, platform=platform)
            return
        if len(self._found) >= _MOST_MANIFESTS:
            raise ImageError(f"the image has more than {_MOST_MANIFESTS} manifests, a fixed limit; save fewer images")
        present = present and blob_size(self._source, descriptor) is not None
        self._found[digest] = Candidate((), descriptor.platform, descriptor, None, (), present)


def _join_saved(source: Source, found: list[Candidate]) -> list[Candidate]:
    """Add the images of Docker's manifest.json; images that the layout has too only add their names."""
    value = documents.parse_json(source.document("manifest.json"), "manifest.json")
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ImageError("manifest.json is not a list of images; save the image again")
    saved: dict[Digest, Candidate] = {}
    names: dict[Digest, list[str]] = {}
    for item in value:
        candidate = Candidate((), None, None, item, (), True)
        digest, _data = candidate.saved_config(source)
        saved.setdefault(digest, candidate)
        tags = documents.strings(item, "RepoTags", "manifest.json")
        names.setdefault(digest, []).extend(tags)
    saved = {digest: replace(candidate, refs=tuple(names[digest])) for digest, candidate in saved.items()}
    joined = []
    for candidate in found:
        config = _config_digest(source, candidate)
        twin = None if config is None else saved.pop(config, None)
        if twin is not None:
            # Docker writes full names
            refs = tuple(dict.fromkeys([*twin.refs, *candidate.refs]))
            candidate = replace(candidate, refs=refs)
        joined.append(candidate)
    return [*joined, *saved.values()]


def _config_digest(source: Source, candidate: Candidate) -> Digest | None:
    """Return None for an artifact, and for an image that is not in the source."""
    if not candidate.present:
        return None
    descriptor = candidate.config_descriptor(candidate.manifest_document(source))
    return None if descriptor is None else descriptor.digest


def _refs(descriptor: Descriptor) -> t.Iterator[str]:
    # containerd's name comes first, because it is the full one
    for key in (_CONTAINERD_REF, _REF):
        name = descriptor.annotations.get(key)
        if name:
            yield name


def _is_attestation(descriptor: Descriptor) -> bool:
    if _ATTESTATION in descriptor.annotations:
        return True
    return descriptor.platform is not None and descriptor.platform.is_unknown
