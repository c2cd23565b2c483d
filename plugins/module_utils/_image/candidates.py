# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""All images that a source speaks of: indexes walked, Docker's list joined in (docs/behaviour.md, sections 1 and 2)."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, replace

from .._errors import ImageError, show
from . import documents
from .descriptor import Descriptor, blob_size, check_kind, parse_descriptor, read_document
from .digest import digest_of
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

_HEX_NAME = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?\Z")


@dataclass(frozen=True)
class Candidate:
    """An image that may be chosen.

    ``manifest`` is its descriptor, ``None`` in an old Docker archive, which has ``saved`` instead: its item
    of ``manifest.json``. ``via`` are the digests of the indexes on the way. ``present`` is false where the
    manifest itself is not in the archive.
    """

    refs: tuple[str, ...]
    platform: Platform | None
    manifest: Descriptor | None
    saved: documents.Object | None
    via: tuple[str, ...]
    present: bool

    def manifest_document(self, source: Source) -> documents.Object:
        """The verified manifest. Raises ``ImageError``, ``SourceError``."""
        if self.manifest is None:
            return {}
        where = "the manifest"
        value = documents.parse_object(read_document(source, self.manifest, where), where)
        check_kind(value, self.manifest, where)
        return value

    def config_descriptor(self, manifest: documents.Object) -> Descriptor | None:
        """The config of a manifest; ``None`` where this is an artifact, no image. Raises ``ImageError``."""
        where = f"the config descriptor of {self.manifest.digest if self.manifest else 'the image'}"
        value = documents.mapping(manifest, "config", where)
        if not value:
            return None
        descriptor = parse_descriptor(value, where)
        return descriptor if descriptor.media_type in CONFIGS else None

    def saved_config(self, source: Source) -> tuple[str, bytes]:
        """Digest and bytes of an old Docker archive's config. Raises ``ImageError``, ``SourceError``."""
        name = documents.text(self.saved or {}, "Config", "manifest.json")
        if not name:
            raise ImageError("manifest.json names no Config; save the image again")
        data = source.document(clean(name))
        found = digest_of(data, "sha256:")
        match = _HEX_NAME.match(clean(name))
        if match is not None and found != f"sha256:{match.group(1)}":
            raise ImageError(f"the config {show(name)} has content of the digest {found}; save the image again")
        return found, data


def find_candidates(source: Source) -> list[Candidate]:
    """All images, in the archive's order, each once. Raises ``ImageError``, ``SourceError``."""
    found: list[Candidate] = []
    if source.size_of("index.json") is not None:
        _check_layout(source)
        found = _Walk(source).candidates()
    if source.size_of("manifest.json") is not None:
        found = _join_saved(source, found)
    elif not found and source.size_of("index.json") is None:
        raise ImageError(
            f"{show(source.path)} holds neither index.json nor manifest.json, so it is no image archive;"
            " give what a tool has saved as an OCI or docker archive"
        )
    return found


def _check_layout(source: Source) -> None:
    if source.size_of("oci-layout") is None:
        return
    value = documents.parse_object(source.document("oci-layout"), "oci-layout")
    version = documents.text(value, "imageLayoutVersion", "oci-layout")
    if version != _LAYOUT_VERSION:
        raise ImageError(
            f"oci-layout is of version {show(version or '')}, and only {_LAYOUT_VERSION} is known; save the image again"
        )


# What an index lists, with the names and the indexes above it, and where it stands.
_Item = t.Tuple[documents.Object, _Names, _Names, str]


def _items(index: documents.Object, refs: _Names, via: _Names, where: str) -> list[_Item]:
    """The items of an index, the first one last, as a stack needs them."""
    items = documents.objects(index, "manifests", where)
    return [(item, refs, via, where) for item in items[::-1]]


class _Walk:
    """Through index.json and the indexes below it, without recursion."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._found: dict[str, Candidate] = {}
        # dictionaries for sets in order: one image may be listed under very many names
        self._names: dict[str, dict[str, None]] = {}
        self._vias: dict[str, dict[str, None]] = {}
        self._indexes = 0

    def candidates(self) -> list[Candidate]:
        """What the walk finds, by digest, names of repeated ones joined."""
        value = documents.parse_object(self._source.document("index.json"), "index.json")
        if value.get("manifests") is not None and value.get("layers") is not None:
            raise ImageError("index.json carries both manifests and layers; do not use this image")
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

    def _add(self, descriptor: Descriptor, refs: tuple[str, ...], via: tuple[str, ...], present: bool = True) -> None:
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
    """The images of Docker's manifest.json; those that the layout has too only lend it their names."""
    value = documents.parse_json(source.document("manifest.json"), "manifest.json")
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ImageError("manifest.json is not a list of images; save the image again")
    saved: dict[str, Candidate] = {}
    names: dict[str, list[str]] = {}
    for item in value:
        candidate = Candidate((), None, None, item, (), True)
        digest, _data = candidate.saved_config(source)
        saved.setdefault(digest, candidate)
        tags = documents.strings(item, "RepoTags", "manifest.json")
        names.setdefault(digest, []).extend(tags)
    saved = {digest: replace(candidate, refs=tuple(names[digest])) for digest, candidate in saved.items()}
    joined = []
    for candidate in found:
        twin = saved.pop(_config_digest(source, candidate), None)
        if twin is not None:
            # Docker's names are the full ones
            refs = tuple(dict.fromkeys([*twin.refs, *candidate.refs]))
            candidate = replace(candidate, refs=refs)
        joined.append(candidate)
    return [*joined, *saved.values()]


def _config_digest(source: Source, candidate: Candidate) -> str:
    """Empty where the candidate is not there, or no image."""
    if not candidate.present:
        return ""
    descriptor = candidate.config_descriptor(candidate.manifest_document(source))
    return "" if descriptor is None else descriptor.digest


def _refs(descriptor: Descriptor) -> t.Iterator[str]:
    # containerd's name is the full one where both are there
    for key in (_CONTAINERD_REF, _REF):
        name = descriptor.annotations.get(key)
        if name:
            yield name


def _is_attestation(descriptor: Descriptor) -> bool:
    if _ATTESTATION in descriptor.annotations:
        return True
    return descriptor.platform is not None and descriptor.platform.is_unknown
