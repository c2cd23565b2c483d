# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives as real tools write them: the same image under other names, in another order, with other lists.

Each function takes one image of layers and a name, and returns the archive's bytes. ``SHAPES`` has all of them.
"""

from __future__ import annotations

import hashlib
import json
import typing as t

from .archives import oci_archive
from .compression import gzip_member
from .documents import Image, Layer
from .tarfiles import Entry, directory, file, symlink, tar

Shape = t.Callable[[Image, str], bytes]


def podman_docker_archive(image: Image, name: str) -> bytes:
    """``podman save``, ``skopeo copy docker-archive:``, ``buildah push docker-archive:``: one writer.

    Layers are plain tars named after their diff_id, and links to them have the names of old ``docker save``.
    """
    members: list[Entry] = []
    layers = []
    parent = ""
    repositories: dict[str, dict[str, str]] = {}
    for layer in _layers(image):
        path = f"{_hex(layer.diff_id)}.tar"
        if path not in layers:
            members.append(file(path, layer.tar, 0o444))
        layers.append(path)
    members.append(file(f"{_hex(image.config.digest)}.json", image.config.data, 0o444))
    for layer in _layers(image):
        parent = hashlib.sha256(f"{parent} {layer.diff_id}".encode()).hexdigest()
        members += [
            symlink(f"{parent}/layer.tar", f"../{_hex(layer.diff_id)}.tar"),
            file(f"{parent}/VERSION", b"1.0", 0o444),
            file(f"{parent}/json", _json({"id": parent}), 0o444),
        ]
    repository, _colon, tag = name.rpartition(":")
    repositories[repository] = {tag: parent}
    members.append(file("repositories", _json(repositories), 0o444))
    members.append(_list(f"{_hex(image.config.digest)}.json", [name], layers))
    return tar(members)


def podman_oci_archive(image: Image, name: str) -> bytes:
    """``podman save --format oci-archive``, ``buildah push oci-archive:``, ``skopeo copy oci-archive:``."""
    return oci_archive(image.listed(ref=name))


def nix_build_image(image: Image, name: str) -> bytes:
    """``dockerTools.buildImage`` of Nix: old names, compressed as a whole, everything from 1980."""
    members: list[Entry] = []
    layers = []
    for number, layer in enumerate(_layers(image)):
        folder = hashlib.sha256(f"nix {number} {layer.diff_id}".encode()).hexdigest()
        members += [
            directory(folder, mtime=315532800),
            file(f"{folder}/VERSION", b"1.0", mtime=315532800),
            file(f"{folder}/json", _json({"id": folder}), mtime=315532800),
            file(f"{folder}/layer.tar", layer.tar, mtime=315532800),
        ]
        layers.append(f"{folder}/layer.tar")
    members.append(file(f"{_hex(image.config.digest)}.json", image.config.data, mtime=315532800))
    members.append(_list(f"{_hex(image.config.digest)}.json", [name], layers))
    return gzip_member(tar(members, dialect="gnu"))


def nix_stream_layered_image(image: Image, name: str) -> bytes:
    """``dockerTools.streamLayeredImage`` of Nix: folders named after the digest of the tar, without entries of their own."""
    layers = list(dict.fromkeys(_layers(image)))
    members = [file(f"{_hex(layer.diff_id)}/layer.tar", layer.tar) for layer in layers]
    members.append(file(f"{_hex(image.config.digest)}.json", image.config.data))
    members.append(
        _list(
            f"{_hex(image.config.digest)}.json",
            [name],
            [f"{_hex(layer.diff_id)}/layer.tar" for layer in _layers(image)],
        )
    )
    return tar(members)


def jib_tar(image: Image, name: str) -> bytes:
    """``jib:buildTar``: one config.json, and layers compressed and named after their blob."""
    members, layers = _compressed_layers(image)
    members.append(file("config.json", image.config.data, mtime=0))
    members.append(_list("config.json", [name], layers))
    return tar(members, dialect="gnu")


def old_jib_tar(image: Image, name: str) -> bytes:
    """What jib wrote at first: keys in lower case."""
    members, layers = _compressed_layers(image)
    members.append(file("config.json", image.config.data, mtime=0))
    document = [{"config": "config.json", "repoTags": [name], "layers": layers}]
    members.append(file("manifest.json", _json(document), mtime=0))
    return tar(members, dialect="gnu")


def ko_tarball(image: Image, name: str) -> bytes:
    """``ko build --tarball``, ``kaniko --tar-path``, ``crane pull``: one library, whose config is named after its digest."""
    members, layers = _compressed_layers(image)
    members.insert(0, file(image.config.digest, image.config.data, 0o555))
    members.append(_list(image.config.digest, [name], layers))
    return tar(members, dialect="ustar")


def kaniko_tarball(image: Image, name: str) -> bytes:
    """``kaniko --tar-path``: the same library, which calls layers ``.tar.gz`` when they are plain, too."""
    plain = {layer: layer.tar for layer in _layers(image)}
    members, layers = _compressed_layers(image, plain)
    members.insert(0, file(image.config.digest, image.config.data, 0o555))
    members.append(_list(image.config.digest, [name], layers))
    return tar(members, dialect="ustar")


def bazel_container_image(image: Image, name: str) -> bytes:
    """``container_image`` of Bazel's rules_docker: ``./`` before each name, and the old list of repositories."""
    members: list[Entry] = []
    for layer in dict.fromkeys(_layers(image)):
        members += [directory(f"./{_hex(layer.diff_id)}"), file(f"./{_hex(layer.diff_id)}/layer.tar", layer.tar, 0o555)]
    members.append(file(f"./{_hex(image.config.digest)}.json", image.config.data, 0o555))
    repository, _colon, tag = name.rpartition(":")
    members.append(file("./repositories", _json({repository: {tag: "0" * 64}}), 0o555))
    layers = [f"{_hex(layer.diff_id)}/layer.tar" for layer in _layers(image)]
    members.append(_list(f"{_hex(image.config.digest)}.json", [name], layers, "./"))
    return tar(members, dialect="gnu")


def bazel_oci_load(image: Image, name: str) -> bytes:
    """``oci_load`` of Bazel's rules_oci: Docker's list over blobs of a layout, whose layers end in .tar.gz."""
    members = [file(f"blobs/sha256/{_hex(image.config.digest)}", image.config.data, 0o755)]
    layers = []
    for layer in _layers(image):
        data = gzip_member(layer.tar)
        path = f"blobs/sha256/{hashlib.sha256(data).hexdigest()}.tar.gz"
        if path not in layers:
            members.append(file(path, data, 0o755))
        layers.append(path)
    members.append(_list(f"blobs/sha256/{_hex(image.config.digest)}", [name], layers))
    return tar(members)


SHAPES: dict[str, Shape] = {
    "podman, skopeo, buildah: docker-archive": podman_docker_archive,
    "podman, skopeo, buildah: oci-archive": podman_oci_archive,
    "nix: buildImage": nix_build_image,
    "nix: streamLayeredImage": nix_stream_layered_image,
    "jib": jib_tar,
    "old jib": old_jib_tar,
    "ko, crane": ko_tarball,
    "kaniko": kaniko_tarball,
    "Bazel: rules_docker": bazel_container_image,
    "Bazel: rules_oci": bazel_oci_load,
}


def _compressed_layers(image: Image, content: t.Mapping[Layer, bytes] | None = None) -> tuple[list[Entry], list[str]]:
    """The layers, each once, as ``DIGEST.tar.gz``, and the names of all in order."""
    members: list[Entry] = []
    names = []
    for layer in _layers(image):
        data = gzip_member(layer.tar) if content is None else content[layer]
        path = f"{hashlib.sha256(data).hexdigest()}.tar.gz"
        if path not in names:
            members.append(file(path, data, mtime=0))
        names.append(path)
    return members, names


def _layers(image: Image) -> list[Layer]:
    return [layer for layer in image.layers if isinstance(layer, Layer)]


def _list(config: str, names: list[str], layers: list[str], prefix: str = "") -> Entry:
    document = [{"Config": config, "RepoTags": names, "Layers": layers}]
    return file(f"{prefix}manifest.json", _json(document), 0o444)


def _json(document: t.Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _hex(digest: str) -> str:
    return digest.partition(":")[2]
