# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""The media types that an image is made of, one by one; OCI's and Docker's mean the same.

See image-spec, media-types.md, and docs/behaviour.md, section 2.
"""

from __future__ import annotations

INDEXES = frozenset(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ]
)
MANIFESTS = frozenset(
    [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)
CONFIGS = frozenset(
    [
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.docker.container.image.v1+json",
    ]
)

# What the type says that the bytes are; the bytes decide, this is only compared with them.
_LAYERS = {
    "application/vnd.oci.image.layer.v1.tar": "none",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "none",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "none",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": "none",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd": "zstd",
}

PLAIN_LAYER = "application/vnd.oci.image.layer.v1.tar"


def is_layer(media_type: str) -> bool:
    """Whether a blob of this type is a layer that can be applied."""
    return media_type in _LAYERS


def is_encrypted(media_type: str) -> bool:
    """Whether a layer's type says that it needs a key (ocicrypt)."""
    return media_type.endswith("+encrypted") or ".encrypted" in media_type


def declared_compression(media_type: str) -> str | None:
    """``none``, ``gzip`` or ``zstd`` as the type says; ``None`` for a type that says nothing."""
    return _LAYERS.get(media_type)
