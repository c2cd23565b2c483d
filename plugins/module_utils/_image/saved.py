# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read manifest.json, the list of images that ``docker save`` and many other tools write (docs/behaviour.md, section 2)."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from .._errors import ImageError, SourceChangedError, SourceError
from . import documents
from .candidate import MANIFEST_JSON, Candidate, SavedImage
from .digest import Digest
from .._source.source import Source, clean


def saved_candidates(source: Source) -> list[Candidate]:
    """Return the images of manifest.json, each item for itself. Raises ``ImageError``, ``SourceError``."""
    value = documents.parse_json(source.document(MANIFEST_JSON), MANIFEST_JSON)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ImageError(
            f"manifest.json is {_kind(value)}, not the list of images that docker save writes{_advice(source, value)}"
        )
    return [_candidate(source, item) for item in value]


def join(source: Source, found: list[Candidate], saved: t.Iterable[Candidate]) -> list[Candidate]:
    """Return the images of both lists, those with the same config once, with all names. Raises ``SourceChangedError``."""
    unjoined: list[Candidate] = []
    by_config: dict[Digest, Candidate] = {}
    # dictionaries serve as ordered sets: an image may be listed under very many names
    names: dict[Digest, dict[str, None]] = {}
    for candidate in saved:
        digest = _config_digest(source, candidate)
        if digest is None:
            unjoined.append(candidate)
        else:
            by_config.setdefault(digest, candidate)
            names.setdefault(digest, {}).update(dict.fromkeys(candidate.refs))
    joined = []
    for candidate in found:
        digest = _config_digest(source, candidate) if by_config else None
        twin = None if digest is None else by_config.pop(digest, None)
        if digest is not None and twin is not None:
            # Docker writes full names there, so they come first
            refs = tuple(dict.fromkeys([*names[digest], *candidate.refs]))
            candidate = replace(candidate, refs=refs, saved=twin.saved)
        joined.append(candidate)
    left = [replace(candidate, refs=tuple(names[digest])) for digest, candidate in by_config.items()]
    return [*joined, *left, *unjoined]


def _candidate(source: Source, item: documents.Object) -> Candidate:
    refs: tuple[str, ...] = ()
    try:
        refs = tuple(documents.strings(item, _key(item, "RepoTags"), MANIFEST_JSON))
        config = documents.text(item, _key(item, "Config"), MANIFEST_JSON)
        if not config:
            raise ImageError(f"manifest.json has an image without Config{_other_list(item)}")
        layers = documents.strings(item, _key(item, "Layers"), MANIFEST_JSON)
        present = source.size_of(clean(config)) is not None
        saved = SavedImage(config, tuple(layers))
        return Candidate(refs, saved=saved, present=present, listed_in=MANIFEST_JSON)
    except SourceChangedError:
        raise
    except (ImageError, SourceError) as error:
        return Candidate(refs, listed_in=MANIFEST_JSON, problem=error.message)


def _key(item: documents.Object, key: str) -> str:
    """Return how an item spells a key: old versions of jib write config, repoTags and layers, and Docker reads them."""
    if key in item:
        return key
    return next((own for own in item if own.lower() == key.lower()), key)


def _config_digest(source: Source, candidate: Candidate) -> Digest | None:
    """Return the digest of an image's config, None if it is not in the source, damaged or an artifact."""
    if not candidate.present or candidate.problem:
        return None
    try:
        return candidate.config_digest(source)
    except SourceChangedError:
        raise
    except (ImageError, SourceError):
        # told when the image is loaded
        return None


def _advice(source: Source, value: t.Any) -> str:
    if isinstance(value, dict) and source.size_of("version") is not None:
        return "; this is a folder that skopeo writes as dir:, convert it with: skopeo copy dir:FOLDER oci-archive:image.tar"
    return "; save the image again, for example with docker save"


def _other_list(item: documents.Object) -> str:
    if {"Image", "ImageIndex"} & {*item}:
        return "; this is imgpkg's list, save the image with: skopeo copy docker://NAME oci-archive:image.tar"
    return "; it is not a list that docker save writes"


def _kind(value: t.Any) -> str:
    if not isinstance(value, dict):
        return "JSON of another kind"
    if "fsLayers" in value:
        return "a manifest of Docker's obsolete schema 1"
    return "the manifest of one image" if "config" in value and "layers" in value else "an object"
