# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Load the documents of candidates, and check the layers of one (docs/behaviour.md, section 2)."""

from __future__ import annotations

import typing as t

from .._errors import ImageError, SourceChangedError, SourceError, show
from . import documents
from .candidate import MANIFEST_JSON, Candidate, SavedImage
from .config import ImageConfig, parse_config
from .descriptor import Descriptor, blob_size, parse_descriptor, read_document
from .digest import Digest
from .image import Image, Layer
from .media_types import PLAIN_LAYER, is_encrypted, is_layer
from .names import matches
from .platform import Platform
from .._source.source import Source, clean

_MOST_LAYERS = 1000


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


def load(source: Source, candidates: t.Iterable[Candidate]) -> list[Loaded]:
    """Read the documents of all candidates that are present and images. Raises ``ImageError``, ``SourceError``."""
    loaded = []
    for candidate in candidates:
        if candidate.problem:
            raise ImageError(candidate.problem)
        if not candidate.present:
            continue
        if candidate.manifest is None:
            if candidate.saved is not None:
                digest, data = candidate.saved.read_config(source)
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


def to_image(source: Source, loaded: Loaded, ref: str | None = None) -> Image:
    """Check the layers of an image against its config and the source; ``ref`` is the name that was asked for.

    Raises ``ImageError``, ``SourceError``.
    """
    candidate = loaded.candidate
    config = loaded.config
    where = f"the config {loaded.config_digest}"
    if config.rootfs_type != "layers":
        raise ImageError(f"{where} has a rootfs of the unsupported type {show(config.rootfs_type)}: expected layers")
    warnings = list(config.warnings)
    layers = _any_layers(source, loaded, [Digest(diff_id, where) for diff_id in config.diff_ids], warnings)
    declared = candidate.platform
    own = config.platform
    if declared is not None and own.architecture and declared.rank_of(own) != 0:
        warnings.append(f"the image's index says {declared}, but its config says {own}; using the index")
    if not loaded.platform.is_complete:
        warnings.append(
            f"the image is for {own.in_words()}: its config does not give both os and architecture, so nothing shows"
            " whether it runs on this node"
        )
    return Image(
        ref=_ref(candidate, ref),
        platform=loaded.platform,
        manifest_digest=(None if candidate.manifest is None else candidate.manifest.digest),
        config_digest=loaded.config_digest,
        layers=tuple(layers),
        config=config,
        warnings=tuple(warnings),
        indexes=candidate.via,
    )


def _ref(candidate: Candidate, ref: str | None) -> str | None:
    """Return the image's name that was asked for, otherwise its first one."""
    for loosely in (False, True):
        for name in candidate.refs:
            if ref is None or matches(ref, [name], loosely):
                return name
    return None


def _config(data: bytes, digest: str) -> ImageConfig:
    return parse_config(data, f"the config {digest}")


def _any_layers(source: Source, loaded: Loaded, diff_ids: list[Digest], warnings: list[str]) -> list[Layer]:
    """Return the layers by the manifest, or by manifest.json if only that lists them rightly.

    Both are compared with the diff_ids of the config, so either list gives the same image.
    """
    candidate = loaded.candidate
    saved = candidate.saved
    if candidate.manifest is None:
        return _saved_layers(source, loaded, saved, diff_ids)
    try:
        return _layers(source, loaded, candidate.manifest, diff_ids)
    except SourceChangedError:
        raise
    except (ImageError, SourceError) as error:
        if saved is None:
            raise
        try:
            layers = _saved_layers(source, loaded, saved, diff_ids)
        except (ImageError, SourceError):
            raise error from None
        warnings.append(f"{error.message}; using the layers that manifest.json lists")
        return layers


def _layers(source: Source, loaded: Loaded, manifest: Descriptor, diff_ids: list[Digest]) -> list[Layer]:
    where = f"the manifest {manifest.digest}"
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


def _saved_layers(source: Source, loaded: Loaded, saved: SavedImage | None, diff_ids: list[Digest]) -> list[Layer]:
    names = saved.layers if saved is not None else ()
    _check_count(len(names), loaded, MANIFEST_JSON)
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
            f"the layer {descriptor.digest} {kind}: {show(media_type)}; use an image whose layers are tars, plain or"
            " compressed"
        )
    size = blob_size(source, descriptor)
    if size is None:
        raise ImageError(f"{show(source.path)} does not hold the layer {descriptor.digest}; save the image as a whole")
    if size != descriptor.size:
        raise ImageError(
            f"the layer {descriptor.digest} has {size} bytes, but its descriptor says {descriptor.size};"
            " fetch the image again or, if that does not help, build it again"
        )
