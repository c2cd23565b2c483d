# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Select one image, and load its documents (docs/behaviour.md, section 2)."""

from __future__ import annotations

import typing as t

from .._errors import ImageError, show
from . import documents
from .candidates import Candidate, find_candidates
from .config import ImageConfig, parse_config
from .descriptor import Descriptor, blob_size, parse_descriptor, read_document
from .digest import Digest
from .image import Image, Layer
from .media_types import PLAIN_LAYER, is_encrypted, is_layer
from .names import matches
from .platform import Platform, node_platform
from .._source.source import Source
from .._source.tar_index import clean

_MOST_LAYERS = 1000
_MOST_LISTED = 20
_MOST_NAMES = 5


class Loaded(t.NamedTuple):
    """A candidate with its verified documents; its layers are not checked yet."""

    candidate: Candidate
    manifest: documents.Object
    config_digest: Digest
    config: ImageConfig

    @property
    def platform(self) -> Platform:
        """The platform of the descriptor if it has one, otherwise that of the config."""
        return self.candidate.platform or self.config.platform

    @property
    def identity(self) -> Digest:
        """The digest of the manifest, or of the config in archives without manifests."""
        manifest = self.candidate.manifest
        return self.config_digest if manifest is None else manifest.digest

    @property
    def digests(self) -> tuple[Digest, ...]:
        """All digests that the option digest may select the image by."""
        return (self.identity, self.config_digest, *self.candidate.via)

    def in_words(self) -> str:
        """Return the image's names, platform and digest for a message."""
        names = _names(self.candidate)
        return f"{names} for {self.platform} with the digest {self.identity}"


def select_image(source: Source, ref: str | None, digest: str | None, platform: Platform | None) -> Image:
    """Select an image, and check that the source has all of its blobs. Raises ``ImageError``, ``SourceError``."""
    candidates = find_candidates(source)
    return to_image(source, select(source, candidates, ref, digest, platform))


def select(
    source: Source, candidates: list[Candidate], ref: str | None, digest: str | None, platform: Platform | None
) -> Loaded:
    """Select one candidate, without checking its layers. Raises ``ImageError``, ``SourceError``."""
    wanted = platform or node_platform()
    chosen = by_ref(candidates, ref)
    if digest is None:
        # documents are read only of candidates whose descriptor allows the platform
        chosen = [
            candidate
            for candidate in chosen
            if candidate.platform is None or wanted.rank_of(candidate.platform) is not None
        ]
    else:
        digest = Digest(digest, "the option digest")
    loaded = load(source, chosen)
    if digest is not None:
        loaded = [item for item in loaded if digest in item.digests]
    ranked = [(wanted.rank_of(item.platform), item) for item in loaded]
    served = [(rank, item) for rank, item in ranked if rank is not None]
    best = min((rank for rank, _item in served), default=0)
    finalists = {item.identity: item for rank, item in served if rank == best}
    if len(finalists) == 1:
        return next(iter(finalists.values()))
    asked = asked_in_words(ref, digest, wanted)
    if finalists:
        options = "ref, digest or platform" if platform is None else "ref or digest"
        raise ImageError(
            f"{show(source.path)} holds {len(finalists)} images {asked}: {_listed(finalists.values())};"
            f" choose one by {options}"
        )
    raise no_image(source, candidates, asked)


def no_image(source: Source, candidates: list[Candidate], asked: str) -> ImageError:
    """Return the error for a source without a matching image."""
    return ImageError(f"{show(source.path)} holds no image {asked}; it holds {_all_in_words(source, candidates)}")


def load(source: Source, candidates: t.Iterable[Candidate]) -> list[Loaded]:
    """Read the documents of all candidates that are present and images. Raises ``ImageError``, ``SourceError``."""
    loaded = []
    for candidate in candidates:
        if not candidate.present:
            continue
        if candidate.manifest is None:
            digest, data = candidate.saved_config(source)
            loaded.append(Loaded(candidate, {}, digest, _config(data, digest)))
            continue
        manifest = candidate.manifest_document(source)
        descriptor = candidate.config_descriptor(manifest)
        if descriptor is None:
            continue
        if blob_size(source, descriptor) is None:
            raise ImageError(
                f"{show(source.path)} does not hold the config {descriptor.digest} of the manifest"
                f" {candidate.manifest.digest}; save the image as a whole"
            )
        data = read_document(source, descriptor, "the config")
        loaded.append(Loaded(candidate, manifest, descriptor.digest, _config(data, descriptor.digest)))
    return loaded


def to_image(source: Source, loaded: Loaded) -> Image:
    """Check the layers of an image against its config and the source. Raises ``ImageError``, ``SourceError``."""
    candidate = loaded.candidate
    config = loaded.config
    if config.rootfs_type != "layers":
        raise ImageError(
            f"the config {loaded.config_digest} has a rootfs of the unsupported type {show(config.rootfs_type)}:"
            " expected layers"
        )
    where = f"the config {loaded.config_digest}"
    diff_ids = [Digest(diff_id, where) for diff_id in config.diff_ids]
    layers_of = _saved_layers if candidate.manifest is None else _layers
    layers = layers_of(source, loaded, diff_ids)
    warnings = list(config.warnings)
    declared = candidate.platform
    own = config.platform
    if declared is not None and own.architecture and declared.rank_of(own) != 0:
        warnings.append(f"the image's index says {declared}, but its config says {own}; using the index")
    return Image(
        ref=candidate.refs[0] if candidate.refs else None,
        platform=loaded.platform,
        manifest_digest=(None if candidate.manifest is None else candidate.manifest.digest),
        config_digest=loaded.config_digest,
        layers=tuple(layers),
        config=config,
        warnings=tuple(warnings),
    )


def by_ref(candidates: list[Candidate], ref: str | None) -> list[Candidate]:
    """Return the candidates with a name. A bare tag matches only if no full name does."""
    if ref is None:
        return candidates
    for loosely in (False, True):
        found = [item for item in candidates if matches(ref, item.refs, loosely)]
        if found:
            return found
    return []


def _config(data: bytes, digest: str) -> ImageConfig:
    return parse_config(data, f"the config {digest}")


def _layers(source: Source, loaded: Loaded, diff_ids: list[Digest]) -> list[Layer]:
    manifest = loaded.candidate.manifest
    where = f"the manifest {manifest.digest}" if manifest else "the manifest"
    items = documents.objects(loaded.manifest, "layers", where)
    _check_count(len(items), loaded, where)
    layers = []
    for item, diff_id in zip(items, diff_ids):
        descriptor = parse_descriptor(item, f"a layer of {where}")
        _check_layer(source, descriptor)
        layers.append(
            Layer(
                digest=descriptor.digest,
                size=descriptor.size,
                media_type=descriptor.media_type,
                diff_id=diff_id,
                name=descriptor.digest.blob_name,
                data=descriptor.data,
            )
        )
    return layers


def _saved_layers(source: Source, loaded: Loaded, diff_ids: list[Digest]) -> list[Layer]:
    where = "manifest.json"
    names = documents.strings(loaded.candidate.saved or {}, "Layers", where)
    _check_count(len(names), loaded, where)
    layers = []
    for name, diff_id in zip(names, diff_ids):
        size = source.size_of(clean(name))
        if size is None:
            raise ImageError(f"{show(source.path)} does not hold the layer {show(name)}; save the image as a whole")
        layers.append(
            Layer(
                digest=diff_id,
                size=size,
                media_type=PLAIN_LAYER,
                diff_id=diff_id,
                name=clean(name),
                digest_is_diff_id=True,
            )
        )
    return layers


def _check_count(number: int, loaded: Loaded, where: str) -> None:
    if number > _MOST_LAYERS:
        raise ImageError(
            f"{where} has {number} layers, more than {_MOST_LAYERS}, a fixed limit; build the image with fewer"
        )
    if number != len(loaded.config.diff_ids):
        raise ImageError(
            f"{where} has {number} layers, but the config {loaded.config_digest} has"
            f" {len(loaded.config.diff_ids)} diff_ids"
        )


def _check_layer(source: Source, descriptor: Descriptor) -> None:
    media_type = descriptor.media_type
    if not is_layer(media_type):
        kind = "is encrypted" if is_encrypted(media_type) else "is of an unknown type"
        raise ImageError(
            f"the layer {descriptor.digest} {kind}: {show(media_type)}; use an image of plain, gzip or zstd layers"
        )
    size = blob_size(source, descriptor)
    if size is None:
        raise ImageError(f"{show(source.path)} does not hold the layer {descriptor.digest}; save the image as a whole")
    if size != descriptor.size:
        raise ImageError(
            f"the layer {descriptor.digest} has {size} bytes, but its descriptor says {descriptor.size};"
            " fetch the image again"
        )


def asked_in_words(ref: str | None, digest: str | None, platform: Platform | None) -> str:
    """Return the selection criteria for a message."""
    words = [f"for {platform}"] if platform is not None else []
    if ref is not None:
        words.append(f"with the name {show(ref)}")
    if digest is not None:
        words.append(f"with the digest {digest}")
    return " ".join(words)


def _listed(items: t.Iterable[Loaded]) -> str:
    words = [item.in_words() for item in items]
    shown = "; ".join(words[:_MOST_LISTED])
    rest = len(words) - _MOST_LISTED
    return f"{shown}; and {rest} more" if rest > 0 else shown


def _names(candidate: Candidate) -> str:
    shown = ", ".join(map(show, candidate.refs[:_MOST_NAMES])) or "an image without a name"
    rest = len(candidate.refs) - _MOST_NAMES
    return f"{shown} (and {rest} more names)" if rest > 0 else shown


def _all_in_words(source: Source, candidates: list[Candidate]) -> str:
    words = []
    for candidate in candidates:
        names = _names(candidate)
        platform = candidate.platform
        if platform is None and candidate.present:
            items = load(source, [candidate])
            if not items:
                continue
            platform = items[0].platform
        place = "" if candidate.present else " (not in this archive)"
        shown = str(platform or "") or "an unknown platform"
        words.append(f"{names} for {shown}{place}")
    shown = "; ".join(words[:_MOST_LISTED]) or "none"
    rest = len(words) - _MOST_LISTED
    return f"{shown}; and {rest} more" if rest > 0 else shown
