# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blobs, layers, images and indexes, and the descriptors that point at them (OCI image-spec).

All of them are ``Blob``: bytes that are made at once, with a ``digest``, a ``size``, a ``descriptor()`` and the
``files()`` that an image layout needs for them. So each can stand in an index, be left out, or be lied about.
"""

from __future__ import annotations

import base64
import copy
import json
import typing as t

from .compression import Compression, compress, digest
from .tarfiles import Dialect, Member, check_options, tar

if t.TYPE_CHECKING:
    from typing_extensions import Unpack

Media = t.Literal["oci", "docker"]

Json = t.Mapping[str, t.Any]
# A change to a document: fields over the made ones, or bytes in its place.
Change = t.Union[Json, bytes]
Edit = t.Callable[[bytes], bytes]

CREATED = "2024-01-02T03:04:05Z"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"


class _Absent:
    """See ``ABSENT``."""

    def __repr__(self) -> str:
        return "ABSENT"


# As a value in a change: the field is taken out. (None is JSON's null.)
ABSENT = _Absent()


# -- edits: small functions from bytes to bytes, for edit_tar, edit_blob, edit_stored and edit


def cut(length: int) -> Edit:
    """Keep only so many bytes; a negative number cuts so many off."""
    return lambda data: data[:length]


def append(tail: bytes) -> Edit:
    """Put bytes behind."""
    return lambda data: data + tail


def flip(offset: int) -> Edit:
    """Invert the byte at that offset; a negative one counts from the end."""

    def edit(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[offset] ^= 0xFF
        return bytes(changed)

    return edit


# -- blobs


class BlobOptions(t.TypedDict, total=False):
    """What every blob can be given by keyword.

    ``algorithm``: of its digest, sha256 where not given. ``annotations``: of its descriptor.
    ``descriptor``: fields over those of the descriptor (a wrong digest, size or media type, junk).
    ``inline``: the descriptor carries the bytes as ``data``, or other bytes where given.
    ``edit_stored``: what is stored under the digest is something else.
    ``missing``: it is not stored; nor is anything of a manifest that is missing, as in a partial save.
    """

    algorithm: str
    annotations: t.Mapping[str, t.Any]
    descriptor: Json
    inline: bool | bytes
    edit_stored: Edit
    missing: bool


class ListedOptions(BlobOptions, total=False):
    """What can be given to all that stands in an index.

    ``ref``: the annotation org.opencontainers.image.ref.name. ``name``: io.containerd.image.name.
    ``media``: with OCI's or with Docker's media types.
    """

    ref: str
    name: str
    media: Media


class Blob:
    """Bytes under their digest; ``data``, ``digest``, ``size``, ``media_type``, ``path`` in an image layout."""

    def __init__(
        self,
        data: bytes,
        media_type: str = "application/octet-stream",
        *,
        platform: str | None = None,
        **options: Unpack[BlobOptions],
    ) -> None:
        check_options(options, BlobOptions)
        self.data = data
        self.media_type = media_type
        self.digest = digest(data, options.get("algorithm", "sha256"))
        # that of a layer which is not compressed; Layer knows better
        self.diff_id = self.digest
        self.size = len(data)
        self.path = "blobs/" + self.digest.replace(":", "/")
        self.annotations = dict(options.get("annotations", {}))
        self.missing = options.get("missing", False)
        self._platform = platform
        self._changes = dict(options.get("descriptor", {}))
        self._inline = options.get("inline", False)
        self._edit_stored = options.get("edit_stored")

    @property
    def stored(self) -> bytes:
        """The bytes that are stored under the digest."""
        return self._edit_stored(self.data) if self._edit_stored else self.data

    def media_type_as(self, media: Media) -> str:
        """The media type of this blob in an OCI or in a Docker document."""
        return self.media_type

    def descriptor(self, media: Media = "oci") -> dict[str, t.Any]:
        """The descriptor of this blob."""
        document: dict[str, t.Any] = {"mediaType": self.media_type_as(media), "digest": self.digest, "size": self.size}
        if self._platform is not None:
            document["platform"] = platform_document(self._platform)
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self._inline is not False:
            data = self.data if self._inline is True else self._inline
            document["data"] = base64.b64encode(data).decode()
        return changed(document, self._changes)

    def files(self) -> dict[str, bytes]:
        """What an image layout holds of it: content by name."""
        return {} if self.missing else {self.path: self.stored}

    def listed(
        self: _B,
        *,
        ref: str | None = None,
        name: str | None = None,
        annotations: t.Mapping[str, t.Any] | None = None,
        platform: str | None = None,
        descriptor: Json | None = None,
    ) -> _B:
        """The same thing once more, for an index that lists it under another ref, name or platform."""
        other = copy.copy(self)
        other.annotations = {**self.annotations, **_names(ref, name), **(annotations or {})}
        if platform is not None:
            other._platform = platform
        other._changes = {**self._changes, **(descriptor or {})}
        return other


_B = t.TypeVar("_B", bound=Blob)


class Layer(Blob):
    """A layer, of entries; ``tar`` are its bytes before the compression, ``data`` those after it.

    Edits in order: ``edit_tar`` (then the diff_id is made), ``compression``, ``edit_blob`` (then the digest is
    made), ``edit_stored``. ``diff_id`` and ``media_type`` are what the image says of it, true or not.
    """

    def __init__(
        self,
        *members: Member,
        compression: Compression = "gzip",
        dialect: Dialect = "pax",
        end_blocks: int = 2,
        edit_tar: Edit | None = None,
        edit_blob: Edit | None = None,
        diff_id: str | None = None,
        diff_id_algorithm: str = "sha256",
        media_type: str | None = None,
        **options: Unpack[BlobOptions],
    ) -> None:
        content = tar(members, dialect=dialect, end_blocks=end_blocks)
        self.tar = edit_tar(content) if edit_tar else content
        self._own_media_type = media_type
        kind = "" if callable(compression) else compression.partition("-")[0]
        self._suffix = kind if kind in ("gzip", "zstd", "xz", "bzip2") else ""
        blob = compress(self.tar, compression)
        super().__init__(edit_blob(blob) if edit_blob else blob, self.media_type_as("oci"), **options)
        self.diff_id = diff_id or digest(self.tar, diff_id_algorithm)

    def media_type_as(self, media: Media) -> str:
        """The media type, by the compression, if none was given."""
        if self._own_media_type is not None:
            return self._own_media_type
        base, separator = (LAYER, "+") if media == "oci" else (DOCKER_LAYER, ".")
        return base + separator + self._suffix if self._suffix else base

    @property
    def stored_tar(self) -> bytes:
        """What is stored where layers are not compressed."""
        return self._edit_stored(self.tar) if self._edit_stored else self.tar


class Manifest(Blob):
    """A manifest of any config and any layers: artifacts, attestations, and what Image is made of.

    ``manifest``: fields over those of the manifest, or its bytes.
    """

    def __init__(
        self,
        config: Blob,
        layers: t.Iterable[Blob],
        *,
        manifest: Change | None = None,
        platform: str | None = None,
        **options: Unpack[ListedOptions],
    ) -> None:
        self.config = config
        self.layers = tuple(layers)
        media = options.get("media", "oci")
        media_type = DOCKER_MANIFEST if media == "docker" else MANIFEST
        document = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config.descriptor(media),
            "layers": [layer.descriptor(media) for layer in self.layers],
        }
        super().__init__(to_json(document, manifest), media_type, platform=platform, **_blob_options(options))

    @property
    def manifest_digest(self) -> str:
        """The same as ``digest``, for tests that speak of several."""
        return self.digest

    @property
    def config_digest(self) -> str:
        """The digest of the config blob."""
        return self.config.digest

    def files(self) -> dict[str, bytes]:
        """The manifest, its config and its layers; nothing where it is missing."""
        if self.missing:
            return {}
        files = super().files()
        for blob in (self.config, *self.layers):
            files.update(blob.files())
        return files


class Image(Manifest):
    """An image of layers.

    ``config``: fields of the config's inner ``config`` object (Entrypoint, Env, ...) over a PATH and a shell.
    ``config_document``: fields over those of the whole config document, or its bytes.
    ``config_media_type``, ``config_options``: of the config's descriptor, and as of any blob.
    ``platform``: what config and descriptor say, ``os/architecture[/variant]``.
    ``diff_ids``: those that the config lists, in place of the layers' own.
    """

    def __init__(
        self,
        layers: t.Iterable[Blob],
        config: Json | None = None,
        *,
        platform: str = "linux/amd64",
        config_document: Change | None = None,
        config_media_type: str | None = None,
        config_options: BlobOptions | None = None,
        diff_ids: t.Sequence[str] | None = None,
        manifest: Change | None = None,
        **options: Unpack[ListedOptions],
    ) -> None:
        layers = tuple(layers)
        if diff_ids is None:
            diff_ids = [layer.diff_id for layer in layers]
        self.diff_ids = list(diff_ids)
        document = {
            "created": CREATED,
            **platform_document(platform),
            "config": changed({"Env": [PATH], "Cmd": ["/bin/sh"]}, config or {}),
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
            "history": [{"created": CREATED, "created_by": f"layer {number}"} for number in range(1, len(layers) + 1)],
        }
        own_type = DOCKER_CONFIG if options.get("media") == "docker" else CONFIG
        super().__init__(
            Blob(to_json(document, config_document), config_media_type or own_type, **(config_options or {})),
            layers,
            manifest=manifest,
            platform=platform,
            **options,
        )


class Index(Blob):
    """An index of images, artifacts, other indexes or any blobs.

    ``document``: fields over those of the index, or its bytes. ``missing`` leaves out the index itself alone.
    """

    def __init__(self, *contents: Blob, document: Change | None = None, **options: Unpack[ListedOptions]) -> None:
        self.contents = contents
        media_type = DOCKER_INDEX if options.get("media") == "docker" else INDEX
        super().__init__(index_json(contents, media_type, document), media_type, **_blob_options(options))

    @property
    def index_digest(self) -> str:
        """The same as ``digest``, for tests that speak of several."""
        return self.digest

    def files(self) -> dict[str, bytes]:
        """The index and all that it lists."""
        files = super().files()
        for blob in self.contents:
            files.update(blob.files())
        return files


# -- manifests that are no image


def artifact(
    data: bytes = b"an artifact",
    artifact_type: str = "application/vnd.example.thing",
    *,
    config_media_type: str = EMPTY,
    **options: Unpack[ListedOptions],
) -> Manifest:
    """An artifact: its config is no image's."""
    return Manifest(
        Blob(b"{}", config_media_type), [Blob(data, artifact_type)], manifest={"artifactType": artifact_type}, **options
    )


def attestation(subject: Blob, *, platform: str | None = "unknown/unknown") -> Manifest:
    """What BuildKit adds about an image: a manifest with a platform and an annotation of its own."""
    algorithm, _colon, value = subject.digest.partition(":")
    statement = {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "subject": [{"name": "_", "digest": {algorithm: value}}],
        "predicate": {},
    }
    layer = Blob(to_json(statement), "application/vnd.in-toto+json")
    config = {
        **platform_document("unknown/unknown"),
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    }
    return Manifest(
        Blob(to_json(config), CONFIG),
        [layer],
        platform=platform,
        annotations={
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": subject.digest,
        },
    )


# -- documents


def to_json(document: Json, change: Change | None = None) -> bytes:
    """A document as bytes, changed before, or what stands in its place."""
    if isinstance(change, bytes):
        return change
    return json.dumps(changed(document, change or {}), separators=(",", ":")).encode()


def changed(document: Json, change: Json) -> dict[str, t.Any]:
    """The document with fields set, or taken out where they are ``ABSENT``."""
    fields = {**document, **change}
    return {key: value for key, value in fields.items() if value is not ABSENT}


def index_json(contents: t.Iterable[Blob], media_type: str = INDEX, change: Change | None = None) -> bytes:
    """An index that lists these."""
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [content.descriptor("docker" if media_type == DOCKER_INDEX else "oci") for content in contents],
    }
    return to_json(document, change)


def platform_document(platform: str) -> dict[str, str]:
    """``os/architecture[/variant]`` as the fields of a descriptor's platform and of a config."""
    system, architecture, *variant = platform.split("/")
    document = {"architecture": architecture, "os": system}
    if variant:
        document["variant"] = "/".join(variant)
    return document


def _names(ref: str | None, name: str | None) -> dict[str, str]:
    names = {REF_NAME: ref, IMAGE_NAME: name}
    return {key: value for key, value in names.items() if value is not None}


def _blob_options(options: ListedOptions) -> BlobOptions:
    """The options of the blob, with ref and name as annotations."""
    check_options(options, ListedOptions)
    blob_options: BlobOptions = {
        "algorithm": options.get("algorithm", "sha256"),
        "annotations": {**_names(options.get("ref"), options.get("name")), **options.get("annotations", {})},
        "descriptor": options.get("descriptor", {}),
        "inline": options.get("inline", False),
        "missing": options.get("missing", False),
    }
    if "edit_stored" in options:
        blob_options["edit_stored"] = options["edit_stored"]
    return blob_options
