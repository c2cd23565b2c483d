# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Walk index.json and its nested indexes (image-spec, image-index.md; docs/behaviour.md, section 2)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, replace

from .._errors import ImageError, SourceChangedError, SourceError
from . import documents
from .candidate import INDEX_JSON, Candidate
from .descriptor import Descriptor, blob_size, check_kind, parse_descriptor, read_document
from .digest import Digest, digest_of_tag
from .media_types import INDEXES, MANIFESTS, kind_of_descriptor
from .._source.source import Source

_MOST_INDEXES = 32
_MOST_MANIFESTS = 10_000
_MOST_PASSED_OVER = 20

_REF = "org.opencontainers.image.ref.name"
_CONTAINERD_REF = "io.containerd.image.name"
_ATTESTATION = "vnd.docker.reference.type"


@dataclass(frozen=True)
class _Item:
    """An item of an index, with the names and digests of the indexes above it; ``where`` names its index in errors."""

    value: documents.Object
    refs: tuple[str, ...]
    via: tuple[Digest, ...]
    where: str


def _items(index: documents.Object, refs: tuple[str, ...], via: tuple[Digest, ...], where: str) -> list[_Item]:
    """Return the items of an index in reverse, to be taken from the end of a list."""
    return [_Item(value, refs, via, where) for value in documents.objects(index, "manifests", where)[::-1]]


class IndexWalk:
    """A walk through index.json and its nested indexes, without recursion.

    An item or nested index that is damaged becomes a candidate with a ``problem``; it does not hide the others.
    ``passed_over`` says, for messages, what is listed beside images.
    """

    def __init__(self, source: Source) -> None:
        self.passed_over: dict[str, int] = {}
        self._source = source
        self._found: dict[str, Candidate] = {}
        # dictionaries serve as ordered sets: an image may be listed under very many names
        self._names: dict[str, dict[str, None]] = {}
        self._vias: dict[str, dict[Digest, None]] = {}
        self._indexes = 0

    def candidates(self) -> list[Candidate]:
        """Return the images found, each once with all of its names. Raises ``ImageError``, ``SourceError``."""
        value = documents.parse_object(self._source.document(INDEX_JSON), INDEX_JSON)
        if value.get("manifests") is not None and value.get("layers") is not None:
            raise ImageError("index.json has both manifests and layers; do not use this image")
        pending = _items(value, (), (), INDEX_JSON)
        while pending:
            item = pending.pop()
            try:
                pending += self._visit(item)
            except _LimitError as error:
                raise ImageError(str(error)) from None
            except SourceChangedError:
                raise
            except (ImageError, SourceError) as error:
                self._add_damaged(item, error.message)
        return [
            replace(candidate, refs=tuple(self._names[key]), via=tuple(self._vias[key]))
            for key, candidate in self._found.items()
        ]

    def _visit(self, item: _Item) -> list[_Item]:
        """Add a manifest, or return the items of a nested index. Raises ``ImageError``, ``SourceError``."""
        where = f"a descriptor in {item.where}"
        media_type = documents.text(item.value, "mediaType", where) or ""
        if media_type not in MANIFESTS and media_type not in INDEXES:
            self._pass_over(kind_of_descriptor(media_type))
            return []
        descriptor = parse_descriptor(item.value, where)
        if _is_attestation(descriptor):
            self._pass_over("an attestation")
            return []
        own = list(_refs(descriptor.annotations))
        if any(map(digest_of_tag, own)):
            self._pass_over("what belongs to another image by its tag")
            return []
        refs = tuple(dict.fromkeys([*item.refs, *own]))
        is_there = blob_size(self._source, descriptor) is not None
        if media_type in MANIFESTS or not is_there:
            self._add(descriptor.digest, item, Candidate(refs, descriptor.platform, descriptor, present=is_there))
            return []
        if descriptor.digest in item.via:
            return []
        self._indexes += 1
        if self._indexes > _MOST_INDEXES:
            raise _LimitError(
                f"the image has more than {_MOST_INDEXES} nested indexes, a fixed limit; save fewer images"
            )
        value = documents.parse_object(read_document(self._source, descriptor, "the index"), "the index")
        check_kind(value, descriptor, "the index")
        return _items(value, refs, (*item.via, descriptor.digest), f"the index {descriptor.digest}")

    def _add(self, key: str, item: _Item, candidate: Candidate) -> None:
        self._names.setdefault(key, {}).update(dict.fromkeys(candidate.refs))
        self._vias.setdefault(key, {}).update(dict.fromkeys(item.via))
        known = self._found.get(key)
        if known is not None:
            self._found[key] = replace(known, platform=known.platform or candidate.platform)
            return
        if len(self._found) >= _MOST_MANIFESTS:
            raise _LimitError(f"the image has more than {_MOST_MANIFESTS} manifests, a fixed limit; save fewer images")
        self._found[key] = candidate

    def _add_damaged(self, item: _Item, problem: str) -> None:
        annotations = item.value.get("annotations")
        refs = (*item.refs, *_refs(annotations if isinstance(annotations, dict) else {}))
        self._add(f"damaged {len(self._found)}", item, Candidate(refs, problem=problem))

    def _pass_over(self, what: str) -> None:
        if what in self.passed_over or len(self.passed_over) < _MOST_PASSED_OVER:
            self.passed_over[what] = self.passed_over.get(what, 0) + 1


class _LimitError(Exception):
    """A fixed limit on all items together is exceeded; the text is a sentence."""


def _refs(annotations: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    # containerd's name comes first, because it is the full one
    for key in (_CONTAINERD_REF, _REF):
        name = annotations.get(key)
        if name and isinstance(name, str):
            yield name


def _is_attestation(descriptor: Descriptor) -> bool:
    if _ATTESTATION in descriptor.annotations:
        return True
    return descriptor.platform is not None and descriptor.platform.is_unknown
