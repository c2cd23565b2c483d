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
from .documents import Image, Index, Layer
from .tarfiles import Entry, directory, file, symlink, tar

# The times that the builds give to all members.
_EPOCH_OF_NIX = 315532800
_EPOCH_OF_BAZEL = 1672560000

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
    """``dockerTools.buildImage`` of Nix: GNU tar sorts a read-only folder, old names, compressed as a whole, all from 1980."""
    content: dict[str, bytes | None] = {}
    layers = []
    folder = ""
    for number, layer in enumerate(_layers(image)):
        folder = hashlib.sha256(f"nix {number} {layer.diff_id}".encode()).hexdigest()
        content[folder] = None
        content[f"{folder}/VERSION"] = b"1.0"
        content[f"{folder}/json"] = _json({"id": folder, "Size": len(layer.tar)})
        content[f"{folder}/layer.tar"] = layer.tar
        layers.append(f"{folder}/layer.tar")
    config = f"{_hex(image.config.digest)}.json"
    content[config] = image.config.data
    content["manifest.json"] = _json([{"RepoTags": [name], "Layers": layers, "Config": config}])
    repository, _colon, tag = name.rpartition(":")
    content["repositories"] = _json({repository: {tag: folder}})
    members = [directory("./", 0o555, mtime=_EPOCH_OF_NIX)]
    for path in sorted(content):
        data = content[path]
        if data is None:
            members.append(directory(path, 0o555, mtime=_EPOCH_OF_NIX))
        else:
            members.append(file(path, data, 0o444, mtime=_EPOCH_OF_NIX))
    return gzip_member(tar(members, dialect="gnu"))


def nix_stream_layered_image(image: Image, name: str) -> bytes:
    """``dockerTools.streamLayeredImage`` of Nix: folders named after the digest of the tar, without entries of their own.

    A layer that comes twice is written twice; documents are indented.
    """
    layers = _layers(image)
    names = [f"{_hex(layer.diff_id)}/layer.tar" for layer in layers]
    config = f"{_hex(image.config.digest)}.json"
    members = [file(path, layer.tar, mtime=1) for path, layer in zip(names, layers)]
    members.append(file(config, image.config.data, mtime=1))
    document = [{"Config": config, "RepoTags": [name], "Layers": names}]
    members.append(file("manifest.json", json.dumps(document, indent=4).encode(), mtime=1))
    return tar(members)


def nix_build_layered_image(image: Image, name: str) -> bytes:
    """``dockerTools.buildLayeredImage`` of Nix: the same, compressed as a whole."""
    return gzip_member(nix_stream_layered_image(image, name))


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
    """``ko build --tarball``, ``crane pull``, ``container_image`` of rules_docker with ``compressed``: one library.

    The config is named after its digest, and the list of the layers' origins is null.
    """
    members, layers = _compressed_layers(image)
    return _of_go(image, name, members, layers)


def kaniko_tarball(image: Image, name: str) -> bytes:
    """``kaniko --tar-path``: the same library, which calls layers ``.tar.gz`` when they are plain, too."""
    plain = {layer: layer.tar for layer in _layers(image)}
    members, layers = _compressed_layers(image, plain)
    return _of_go(image, name, members, layers)


def _of_go(image: Image, name: str, layers: list[Entry], names: list[str]) -> bytes:
    config = image.config.digest
    document = [{"Config": config, "RepoTags": [name], "Layers": names, "LayerSources": None}]
    members = [file(config, image.config.data, mtime=0), *layers, file("manifest.json", _json(document), mtime=0)]
    return tar(members, dialect="ustar")


def bazel_container_image(image: Image, name: str) -> bytes:
    """``container_image`` of Bazel's rules_docker, by default: the names of old ``docker save``, without directories."""
    members = [file(f"{_hex(image.config.digest)}.json", image.config.data, mtime=0)]
    layers = []
    parent = ""
    for layer in _layers(image):
        parent = hashlib.sha256(f"{parent} {layer.diff_id}".encode()).hexdigest()
        members += [
            file(f"{parent}/layer.tar", layer.tar, mtime=0),
            file(f"{parent}/json", _json({"id": parent}), mtime=0),
            file(f"{parent}/VERSION", b"1.0", mtime=0),
        ]
        layers.append(f"{parent}/layer.tar")
    config = f"{_hex(image.config.digest)}.json"
    document = [{"Config": config, "RepoTags": [name], "Layers": layers, "LayerSources": {}}]
    repository, _colon, tag = name.rpartition(":")
    members.append(file("manifest.json", _json(document), mtime=0))
    members.append(file("repositories", _json({repository: {tag: parent}}), mtime=0))
    return tar(members, dialect="ustar")


def old_bazel_container_image(image: Image, name: str) -> bytes:
    """The same before it was written in Go: ``./`` before each name, and folders with entries of their own."""
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
    config = f"blobs/sha256/{_hex(image.config.digest)}"
    members = [file(config, image.config.data, 0o755, mtime=_EPOCH_OF_BAZEL)]
    layers = []
    for layer in _layers(image):
        data = gzip_member(layer.tar)
        path = f"blobs/sha256/{hashlib.sha256(data).hexdigest()}.tar.gz"
        # each time that the manifest names it
        members.append(file(path, data, 0o755, mtime=_EPOCH_OF_BAZEL))
        layers.append(path)
    document = [{"Config": config, "RepoTags": [name], "Layers": layers}]
    members.append(file("manifest.json", json.dumps(document, indent=2).encode(), 0o755, mtime=_EPOCH_OF_BAZEL))
    return tar(members)


def bazel_oci_load_index(image: Image, name: str) -> bytes:
    """``oci_load`` with ``format = "oci"``, for several platforms: index.json names an index, and that the images."""
    return oci_archive(Index(image, ref=name))


SHAPES: dict[str, Shape] = {
    "podman, skopeo, buildah: docker-archive": podman_docker_archive,
    "podman, skopeo, buildah: oci-archive": podman_oci_archive,
    "nix: buildImage": nix_build_image,
    "nix: streamLayeredImage": nix_stream_layered_image,
    "nix: buildLayeredImage": nix_build_layered_image,
    "jib": jib_tar,
    "old jib": old_jib_tar,
    "ko, crane": ko_tarball,
    "kaniko": kaniko_tarball,
    "Bazel: rules_docker": bazel_container_image,
    "Bazel: old rules_docker": old_bazel_container_image,
    "Bazel: rules_oci": bazel_oci_load,
    "Bazel: rules_oci, format oci": bazel_oci_load_index,
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
