# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blobs, layers, images and indexes of the builder (docs/behaviour.md, sections 1 to 3)."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import typing as t

import pytest
from ansible_collections.hypervisor.oci.tests.images.builder import (
    ABSENT,
    Blob,
    Image,
    Index,
    Layer,
    Manifest,
    append,
    artifact,
    attestation,
    cut,
    digest,
    file,
    flip,
)


def sha256(data: bytes) -> str:
    """The digest, computed here."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def document(blob: Blob) -> dict[str, t.Any]:
    """A JSON document."""
    return t.cast("dict[str, t.Any]", json.loads(blob.data))


def test_layer() -> None:
    """Section 3: digest and size are of the compressed bytes, the diff_id of the tar."""
    layer = Layer(file("a", "b"))
    assert gzip.decompress(layer.data) == layer.tar
    with tarfile.open(fileobj=io.BytesIO(layer.tar)) as archive:
        assert archive.getnames() == ["a"]
    assert layer.diff_id == sha256(layer.tar)
    assert layer.descriptor() == {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": sha256(layer.data),
        "size": len(layer.data),
    }
    assert layer.files() == {"blobs/sha256/" + sha256(layer.data)[7:]: layer.data}


@pytest.mark.parametrize(
    "compression, oci, docker",
    [
        ("none", "layer.v1.tar", "diff.tar"),
        ("gzip-members", "layer.v1.tar+gzip", "diff.tar.gzip"),
        ("zstd-stored", "layer.v1.tar+zstd", "diff.tar.zstd"),
    ],
)
def test_media_types_of_layers(compression: t.Any, oci: str, docker: str) -> None:
    """Section 2: OCI's and Docker's, by the compression."""
    layer = Layer(file("a"), compression=compression)
    assert layer.descriptor()["mediaType"] == "application/vnd.oci.image." + oci
    assert layer.descriptor("docker")["mediaType"] == "application/vnd.docker.image.rootfs." + docker


def test_image() -> None:
    """Section 2: the documents of an image, and what a test wants to know of it."""
    layers = [Layer(file("a")), Layer(file("b"), compression="none")]
    image = Image(layers, {"User": "app", "Cmd": ABSENT}, platform="linux/arm/v7")
    assert document(image) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": sha256(image.config.data),
            "size": len(image.config.data),
        },
        "layers": [layer.descriptor() for layer in layers],
    }
    config = document(image.config)
    assert config["rootfs"] == {"type": "layers", "diff_ids": [sha256(layer.tar) for layer in layers]}
    assert (config["os"], config["architecture"], config["variant"]) == ("linux", "arm", "v7")
    assert config["config"]["User"] == "app" and "Cmd" not in config["config"]
    assert config["config"]["Env"][0].startswith("PATH=/")
    assert len(config["history"]) == 2
    assert image.manifest_digest == image.digest == sha256(image.data)
    assert image.config_digest == sha256(image.config.data)
    assert image.diff_ids == [layer.diff_id for layer in layers]
    assert image.descriptor()["platform"] == {"os": "linux", "architecture": "arm", "variant": "v7"}
    assert set(image.files()) == {
        "blobs/" + name.replace(":", "/") for name in (image.digest, image.config_digest, *[la.digest for la in layers])
    }


def test_docker_media_types() -> None:
    """Section 2: interchangeable with OCI's."""
    image = Image([Layer(file("a"))], media="docker")
    found = document(image)
    assert found["mediaType"] == image.descriptor()["mediaType"]
    assert [
        found["mediaType"],
        found["config"]["mediaType"],
        found["layers"][0]["mediaType"],
        document(Index(image, media="docker"))["mediaType"],
    ] == [
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ]


def test_index() -> None:
    """Section 2: nested indexes, refs, names, the same manifest listed twice."""
    image = Image([Layer(file("a"))], ref="1.0", name="docker.io/library/a:1.0")
    again = image.listed(ref="2.0", platform="linux/arm64", descriptor={"annotations": {"only": "this"}})
    inner = Index(image, image.listed(ref="latest"), again)
    outer = Index(inner, Blob(b"?", "application/vnd.unknown"))
    first, second, third = document(inner)["manifests"]
    assert first["annotations"] == {
        "org.opencontainers.image.ref.name": "1.0",
        "io.containerd.image.name": "docker.io/library/a:1.0",
    }
    assert second["annotations"]["org.opencontainers.image.ref.name"] == "latest"
    assert first["digest"] == second["digest"] == third["digest"] == image.digest
    assert third["platform"]["architecture"] == "arm64"
    assert third["annotations"] == {"only": "this"}
    assert image.descriptor()["platform"]["architecture"] == "amd64"
    assert document(outer)["manifests"] == [
        {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": inner.index_digest, "size": inner.size},
        {"mediaType": "application/vnd.unknown", "digest": sha256(b"?"), "size": 1},
    ]
    assert set(outer.files()) == {outer.path, inner.path, "blobs/sha256/" + sha256(b"?")[7:]} | set(image.files())


def test_attestation_and_artifact() -> None:
    """Section 2: what is never chosen."""
    image = Image([Layer(file("a"))])
    described = attestation(image).descriptor()
    assert described["platform"] == {"os": "unknown", "architecture": "unknown"}
    assert described["annotations"] == {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image.digest,
    }
    assert "platform" not in attestation(image, platform=None).descriptor()
    thing = artifact(ref="thing")
    assert document(thing)["artifactType"] == "application/vnd.example.thing"
    assert document(thing)["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert "platform" not in thing.descriptor()


# -- deliberate faults


def test_edits_of_a_layer() -> None:
    """Section 3: before the diff_id, before the digest, after the digest."""
    plain = Layer(file("a"))
    tail = Layer(file("a"), edit_tar=append(b"tail"))
    assert tail.tar == plain.tar + b"tail" and tail.diff_id == sha256(tail.tar)
    short = Layer(file("a"), edit_blob=cut(-1))
    assert short.data == plain.data[:-1] and short.digest == sha256(plain.data[:-1])
    assert short.diff_id == plain.diff_id
    broken = Layer(file("a"), edit_stored=flip(-1))
    assert (broken.data, broken.digest) == (plain.data, plain.digest)
    (stored,) = broken.files().values()
    assert stored[:-1] == plain.data[:-1] and stored[-1] == plain.data[-1] ^ 0xFF


def test_what_a_layer_claims() -> None:
    """Sections 1 to 3: wrong digest, size, media type and diff_id; other algorithms."""
    plain = Layer(file("a"))
    liar = Layer(
        file("a"),
        media_type="application/vnd.oci.image.layer.v1.tar+zstd",
        diff_id=digest(b"other"),
        descriptor={"size": -1, "digest": "sha256:../../x", "urls": None, "mediaType": 1},
    )
    assert liar.data == plain.data
    assert liar.descriptor() == {"mediaType": 1, "digest": "sha256:../../x", "size": -1, "urls": None}
    assert liar.descriptor("docker") == liar.descriptor()
    assert Image([liar]).diff_ids == [sha256(b"other")]
    long = Layer(file("a"), algorithm="sha512", diff_id_algorithm="sha512")
    assert long.digest == "sha512:" + hashlib.sha512(long.data).hexdigest()
    assert long.diff_id == "sha512:" + hashlib.sha512(long.tar).hexdigest()
    assert long.path == "blobs/sha512/" + long.digest[7:]


def test_inline_data() -> None:
    """Section 1: inline data, right or wrong."""
    right = Layer(file("a"), inline=True)
    assert base64.b64decode(right.descriptor()["data"]) == right.data
    wrong = Layer(file("a"), inline=b"other")
    assert base64.b64decode(wrong.descriptor()["data"]) == b"other"
    image = Image([right], config_options={"inline": True})
    assert base64.b64decode(document(image)["config"]["data"]) == image.config.data


def test_what_is_missing() -> None:
    """Section 2: a blob of the chosen image, or all of another one as in a partial save."""
    layer = Layer(file("a"), missing=True)
    image = Image([layer])
    assert set(image.files()) == {image.path, image.config.path}
    gone = Image([Layer(file("a"))], missing=True)
    assert gone.files() == {}
    index = Index(image, gone)
    assert set(index.files()) == {index.path, *image.files()}
    assert len(document(index)["manifests"]) == 2
    no_config = Image([], config_options={"missing": True})
    assert set(no_config.files()) == {no_config.path}


def test_changed_documents() -> None:
    """Section 1: junk, nulls, fields taken out, and anything at all in a document's place."""
    image = Image(
        [Layer(file("a"))],
        config_document={"history": None, "junk": {"a": 1}, "created": ABSENT},
        manifest={"annotations": None, "manifests": []},
        descriptor={"platform": ABSENT},
        diff_ids=["sha256:0"],
    )
    config = document(image.config)
    assert config["history"] is None and config["junk"] == {"a": 1}
    assert "created" not in config and config["rootfs"]["diff_ids"] == ["sha256:0"]
    assert document(image)["manifests"] == [] and document(image)["annotations"] is None
    assert "platform" not in image.descriptor()
    odd = Image([], config_document=b"[", manifest=b"{")
    assert (odd.data, odd.config.data) == (b"{", b"[")
    assert odd.digest == sha256(b"{")
    assert Index(odd, document=b"null").data == b"null"


def test_misspelt_keywords() -> None:
    """A fault that is not made would be a test that cannot fail."""
    wrong: t.Any = {"mising": True}
    makers: list[t.Callable[..., Blob]] = [Blob, Layer, Image, Index]
    arguments: list[tuple[t.Any, ...]] = [(b"",), (), ([],), ()]
    for make, positional in zip(makers, arguments):
        with pytest.raises(TypeError, match="mising"):
            make(*positional, **wrong)
    with pytest.raises(TypeError, match="mising"):
        Manifest(Blob(b""), [], **wrong)
