# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The media types of the parts of an image; those of OCI and Docker mean the same.

See image-spec, media-types.md, and docs/behaviour.md, section 2.
"""

from __future__ import annotations

from .._errors import show

INDEXES = frozenset(
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"]
)
MANIFESTS = frozenset(
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"]
)
CONFIGS = frozenset(["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"])

_SCHEMA_1 = frozenset(
    [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ]
)

# The declared compression. Decompression follows the bytes; a difference is only reported. The specification has no types
# for xz and bzip2, which are written like the others.
_COMPRESSIONS = {"": "none", "gzip": "gzip", "zstd": "zstd", "xz": "xz", "bzip2": "bzip2"}
_BASES = {
    "application/vnd.oci.image.layer.v1.tar": "+",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "+",
    "application/vnd.docker.image.rootfs.diff.tar": ".",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": ".",
}
_LAYERS = {
    f"{base}{separator}{suffix}" if suffix else base: compression
    for base, separator in _BASES.items()
    for suffix, compression in _COMPRESSIONS.items()
}

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
_BUNDLE = "application/vnd.dev.sigstore.bundle"
# Layers of signatures, attestations, bills of materials and other artifacts, some of which have an image's config.
_NOT_IMAGES = frozenset(
    [
        SIMPLE_SIGNING,
        "application/cose",
        "application/jose+json",
        "application/spdx+json",
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        "application/vnd.cyclonedx",
        "application/vnd.cyclonedx+json",
        "application/vnd.cyclonedx+xml",
        "application/vnd.dsse.envelope.v1+json",
        "application/vnd.in-toto+json",
        "application/vnd.oci.empty.v1+json",
        "application/vnd.syft+json",
        "application/vnd.wasm.content.layer.v1+wasm",
        "application/wasm",
        "text/spdx",
        "text/spdx+json",
        "text/spdx+xml",
    ]
)
# What else registries and layouts hold, by a part of the media type.
_ARTIFACTS = {
    "cncf.helm.config": "a Helm chart",
    "cncf.helm.chart": "a Helm chart",
    "in-toto": "an attestation",
    "cosign": "a signature",
    "sigstore": "a signature",
    "notary": "a signature",
    "wasm": "a WebAssembly module",
    "spdx": "a bill of materials",
    "cyclonedx": "a bill of materials",
}

PLAIN_LAYER = "application/vnd.oci.image.layer.v1.tar"


def is_layer(media_type: str) -> bool:
    """Return whether a blob of this type is a layer that can be applied."""
    return media_type in _LAYERS


def is_bundle(media_type: str) -> bool:
    """Return whether this is the type of a sigstore bundle, of any version."""
    return media_type.startswith(_BUNDLE)


def is_artifact(media_type: str) -> bool:
    """Return whether a layer of this type belongs to an artifact that is known not to be an image."""
    return media_type in _NOT_IMAGES or is_bundle(media_type)


def is_encrypted(media_type: str) -> bool:
    """Return whether this is the type of an encrypted layer (ocicrypt)."""
    return media_type.endswith("+encrypted") or ".encrypted" in media_type


def declared_compression(media_type: str) -> str | None:
    """Return the compression that a type declares, as ``detect`` names it or ``none``; None for other types."""
    return _LAYERS.get(media_type)


def kind_of_descriptor(media_type: str) -> str:
    """Return what a descriptor of an unknown type describes, for a message."""
    if media_type in _SCHEMA_1:
        return f"a manifest of Docker's obsolete schema 1 ({show(media_type)})"
    return f"a descriptor of the type {show(media_type)}" if media_type else "a descriptor without a media type"


def kind_of_artifact(media_type: str) -> str:
    """Return what an artifact of this type is, for a message."""
    for part, kind in _ARTIFACTS.items():
        if part in media_type:
            return f"{kind} ({show(media_type)})"
    return f"an artifact of the type {show(media_type)}" if media_type else "an artifact without a type"
