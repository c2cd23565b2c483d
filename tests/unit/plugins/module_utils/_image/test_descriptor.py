# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Descriptors and verified documents (docs/behaviour.md, section 1)."""

from __future__ import annotations

import contextlib
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import ImageError, SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.descriptor import (
    blob_size,
    check_kind,
    parse_descriptor,
    read_document,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._image.platform import Platform
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.tests.images.builder import ABSENT, Blob, append, cut, flip, write_oci_archive

if t.TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"

TEXT = b'{"a": 1}'


def read(tmp_path: Path, blob: Blob) -> bytes:
    """The document behind a blob's descriptor."""
    path = write_oci_archive(tmp_path / "archive", blob)
    with contextlib.closing(open_source(path)) as source:
        descriptor = parse_descriptor(blob.descriptor(), "it")
        data = read_document(source, descriptor, "the document")
        assert blob_size(source, descriptor) == len(data)
    return data


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_document(tmp_path: Path, algorithm: str, inline: bool) -> None:
    assert read(tmp_path, Blob(TEXT, algorithm=algorithm, inline=inline)) == TEXT


def test_inline_data_needs_no_blob(tmp_path: Path) -> None:
    assert read(tmp_path, Blob(TEXT, inline=True, missing=True)) == TEXT


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (Blob(TEXT, edit_stored=append(b" ")), "has 9 bytes, but its descriptor says 8; fetch the image again"),
        (Blob(TEXT, edit_stored=cut(3)), "has 3 bytes, but its descriptor says 8; fetch"),
        (Blob(TEXT, descriptor={"size": 7}), "has 8 bytes, but its descriptor says 7; build the image again"),
        (Blob(TEXT, edit_stored=flip(2)), "has content with the digest sha256:"),
        (Blob(TEXT, algorithm="sha512", edit_stored=flip(2)), "has content with the digest sha512:"),
        (Blob(TEXT, inline=b"{}"), "has 2 bytes, but its descriptor says 8; build the image again"),
        (Blob(TEXT, inline=b'{"b": 1}'), "has content with the digest sha256:"),
        (Blob(TEXT, descriptor={"size": 2**22 + 1}), "has 4194305 bytes, more than 4194304, a fixed limit"),
    ],
)
def test_size_and_digest_are_verified(tmp_path: Path, blob: Blob, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        read(tmp_path, blob)
    assert caught.value.message.startswith(f"the document {blob.digest} {message}")


def test_a_missing_document(tmp_path: Path) -> None:
    blob = Blob(TEXT, missing=True)
    with pytest.raises(SourceError, match=f"holds no '{blob.path}'; fetch or save it"):
        read(tmp_path, blob)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digest": ABSENT}, "it has no digest"),
        ({"digest": None}, "it has no digest"),
        ({"digest": 5}, "it: the field 'digest' is not a string"),
        ({"digest": "sha256:../x"}, "it has an invalid digest: 'sha256:../x'"),
        ({"digest": "blake3:" + "0" * 64}, "it has a digest of the unsupported algorithm 'blake3'"),
        ({"size": ABSENT}, "the invalid size None"),
        ({"size": -1}, "the invalid size -1"),
        ({"size": "8"}, "it: the field 'size' is not an integer"),
        ({"size": 8.0}, "it: the field 'size' is not an integer"),
        ({"mediaType": 1}, "it: the field 'mediaType' is not a string"),
        ({"platform": "linux"}, "it: the field 'platform' is not an object"),
        ({"platform": {"os": 1}}, "it has a platform that is not a string"),
        ({"annotations": []}, "it: the field 'annotations' is not an object"),
        ({"annotations": {"a": 1}}, "'annotations' is not an object of strings"),
        ({"data": 1}, "it: the field 'data' is not a string"),
        ({"data": "!"}, "inline data that is not valid base64"),
        ({"data": "e30\n="}, "inline data that is not valid base64"),
        ({"data": "\u00e9"}, "inline data that is not valid base64"),
    ],
)
def test_descriptors_are_checked(change: dict[str, t.Any], message: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse_descriptor(Blob(TEXT, descriptor=change).descriptor(), "it")
    assert message in caught.value.message
    assert caught.value.message.startswith("it")


def test_fields_of_a_descriptor() -> None:
    blob = Blob(TEXT, MANIFEST, platform="linux/arm64/v8", annotations={"a": "b"})
    descriptor = parse_descriptor(blob.descriptor(), "it")
    assert descriptor.media_type == MANIFEST
    assert descriptor.platform == Platform("linux", "arm64")
    assert descriptor.annotations == {"a": "b"}
    nulls = {"mediaType": None, "platform": None, "annotations": None, "data": None}
    bare = parse_descriptor(Blob(TEXT, descriptor=nulls).descriptor(), "it")
    assert (bare.media_type, bare.platform, bare.annotations) == ("", None, {})
    assert bare.data is None


# -- CVE-2021-41190


@pytest.mark.parametrize(
    ("says", "own"),
    [
        (MANIFEST, None),
        (MANIFEST, ""),
        (MANIFEST, MANIFEST),
        (MANIFEST, DOCKER_MANIFEST),
        (DOCKER_MANIFEST, MANIFEST),
        (INDEX, DOCKER_INDEX),
        (DOCKER_INDEX, INDEX),
    ],
)
def test_types_that_agree(says: str, own: str | None) -> None:
    descriptor = parse_descriptor(Blob(TEXT, says).descriptor(), "it")
    check_kind({"mediaType": own, "layers": [], "manifests": None}, descriptor, "it")


@pytest.mark.parametrize(("says", "own"), [(MANIFEST, INDEX), (INDEX, MANIFEST), (MANIFEST, "x")])
def test_types_that_contradict(says: str, own: str) -> None:
    descriptor = parse_descriptor(Blob(TEXT, says).descriptor(), "it")
    with pytest.raises(ImageError) as caught:
        check_kind({"mediaType": own}, descriptor, "it")
    assert caught.value.message == (
        f"it {descriptor.digest} has the mediaType '{own}', but its descriptor says '{says}';" " do not use this image"
    )


def test_a_document_of_two_kinds() -> None:
    descriptor = parse_descriptor(Blob(TEXT, MANIFEST).descriptor(), "it")
    with pytest.raises(ImageError, match="has both manifests and layers; do not"):
        check_kind({"manifests": [], "layers": []}, descriptor, "it")
