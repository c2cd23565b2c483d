# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures as tools store them in archives and layouts (docs/behaviour.md, section 12)."""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._image.candidates import find_candidates
from ansible_collections.hypervisor.oci.plugins.module_utils._image.loading import load
from ansible_collections.hypervisor.oci.plugins.module_utils._signature.verify import Bundle, Classic, Unjudged
from ansible_collections.hypervisor.oci.plugins.module_utils._signed.layout import find_signatures
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Blob,
    Image,
    Index,
    Layer,
    artifact,
    file,
    write_oci_archive,
)

pytest.importorskip("cryptography", reason="signatures need the Python library cryptography")

from ansible_collections.hypervisor.oci.tests.images import (
    signatures,
)  # noqa: E402 pylint: disable=wrong-import-position

BY = signatures.signer()
IMAGE = Image([Layer(file("f", "f"))], ref="web:1")
OTHER = Image([Layer(file("f", "g"))], ref="web:2")
INDEX = Index(IMAGE.listed(), ref="web:1")


def kinds(tmp_path: Path, *contents: t.Any, subject: Blob = IMAGE) -> list[t.Any]:
    """What is found for a subject: the kinds of what is judged, and the words of what is not."""
    with contextlib.closing(open_source(write_oci_archive(tmp_path / "i.tar", *contents))) as source:
        found = find_signatures(source).of(subject.digest)
    return [item.kind if isinstance(item, Unjudged) else type(item) for item in found]


def images_in(tmp_path: Path, *contents: t.Any) -> set[str]:
    """The digests of the images that may be installed."""
    with contextlib.closing(open_source(write_oci_archive(tmp_path / "c.tar", *contents))) as source:
        return {str(item.identity) for item in load(source, find_candidates(source))}


def test_tags_referrers_fallback_tags_and_cosign_save(tmp_path: Path) -> None:
    saved = signatures.signature_manifest(signatures.classic_layer(BY, signatures.payload(IMAGE.digest)))
    stored: dict[str, list[t.Any]] = {
        "tag": [signatures.tagged(IMAGE, BY)],
        "referrers": signatures.bundled(IMAGE, BY),
        "fallback": [signatures.fallback(IMAGE, *signatures.bundled(IMAGE, BY))],
        "save": [signatures.as_cosign_saves("sigs", saved)],
    }
    for name, contents in stored.items():
        kind = Classic if name in ("tag", "save") else Bundle
        folder = tmp_path / name
        folder.mkdir()
        assert kinds(folder, IMAGE, *contents) == [kind]
        # none of them is an image
        assert images_in(folder, IMAGE, *contents) == {IMAGE.digest}
        # whose they are is known, unless there is only one image
        assert kinds(folder, IMAGE, OTHER, *contents, subject=OTHER) == ([kind] if name == "save" else [])
    everything = [item for contents in stored.values() for item in contents]
    assert kinds(tmp_path, INDEX, *everything) == [Bundle, Bundle, Classic, Classic]


def test_the_attestations_of_cosign_save_are_not_judged(tmp_path: Path) -> None:
    layer = Blob(b"{}", "application/vnd.dsse.envelope.v1+json")
    attestations = signatures.as_cosign_saves("atts", signatures.signature_manifest(layer))
    assert kinds(tmp_path, IMAGE, attestations) == ["attestations"]
    assert images_in(tmp_path, IMAGE, attestations) == {IMAGE.digest}


def test_what_cannot_be_judged_is_counted(tmp_path: Path) -> None:
    good = signatures.payload(IMAGE.digest)
    tag = signatures.signature_tag(IMAGE.digest)
    made = signatures.classic_layer(BY, good)
    cases: list[tuple[Blob, str]] = [
        (signatures.signature_manifest(Blob(good, signatures.SIMPLE_SIGNING), ref=tag), "payloads without a signature"),
        (
            signatures.signature_manifest(made.listed(descriptor={"size": 2**21}), ref=tag),
            "payloads of more than 1048576",
        ),
        (
            signatures.signature_manifest(
                Blob(good, signatures.SIMPLE_SIGNING, annotations=made.annotations, missing=True), ref=tag
            ),
            "payloads that are missing",
        ),
        (
            signatures.signature_manifest(
                Blob(
                    good, signatures.SIMPLE_SIGNING, annotations=made.annotations, edit_stored=lambda data: data[::-1]
                ),
                ref=tag,
            ),
            "payloads that do not match their digest",
        ),
        (
            signatures.referrer(IMAGE, b"{}", "application/vnd.dev.sigstore.bundle+json;version=0.2"),
            "another version of bundles",
        ),
        (signatures.referrer(IMAGE, b"{}", "application/vnd.cncf.notary.signature"), "notation"),
    ]
    for number, (content, words) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        (found,) = kinds(folder, IMAGE, content)
        assert found.startswith(words)


def test_a_manifest_says_itself_what_it_refers_to(tmp_path: Path) -> None:
    """A list of referrers, or a tag, does not make a bundle one of another image."""
    bundles = signatures.bundled(OTHER, BY)
    assert kinds(tmp_path, IMAGE, signatures.fallback(IMAGE, *bundles)) == []


@pytest.mark.parametrize(
    "ref",
    [
        "sha256-" + "0" * 64,
        "sha256-" + "0" * 64 + ".sig",
        "sha256-" + "0" * 64 + ".att",
        "sha512-" + "0" * 128 + ".sbom",
        "registry.example.org/web:sha256-" + "0" * 64 + ".sig",
    ],
)
def test_a_tag_of_a_digest_names_no_image(tmp_path: Path, ref: str) -> None:
    assert images_in(tmp_path, IMAGE, OTHER.listed(ref=ref)) == {IMAGE.digest}
    assert images_in(tmp_path, IMAGE, Index(OTHER, ref=ref)) == {IMAGE.digest}
    assert images_in(tmp_path, IMAGE, OTHER.listed(name=ref)) == {IMAGE.digest}


@pytest.mark.parametrize(
    "ref", ["sha256-abc", "sha256-" + "0" * 64 + ".tar", "sha1-" + "0" * 40, "x-sha256-" + "0" * 64]
)
def test_other_tags_name_images(tmp_path: Path, ref: str) -> None:
    assert images_in(tmp_path, IMAGE, OTHER.listed(ref=ref)) == {IMAGE.digest, OTHER.digest}


@pytest.mark.parametrize(
    "media_type",
    [
        signatures.SIMPLE_SIGNING,
        signatures.BUNDLE,
        "application/vnd.in-toto+json",
        "text/spdx+json",
        "application/vnd.cyclonedx+json",
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        "application/vnd.wasm.content.layer.v1+wasm",
    ],
)
def test_a_layer_that_no_image_has(tmp_path: Path, media_type: str) -> None:
    """Also with the config of an image."""
    posing = Image([Layer(file("f", "h")), Blob(b"x", media_type)], ref="web:3")
    assert images_in(tmp_path, IMAGE, posing) == {IMAGE.digest}


def test_a_subject_makes_no_image(tmp_path: Path) -> None:
    reference = {"mediaType": IMAGE.media_type, "digest": IMAGE.digest, "size": IMAGE.size}
    posing = Image([Layer(file("f", "h"))], manifest={"subject": reference}, ref="web:3")
    assert images_in(tmp_path, IMAGE, posing, artifact()) == {IMAGE.digest}


def test_a_source_without_an_index(tmp_path: Path) -> None:
    from ansible_collections.hypervisor.oci.tests.images.builder import write_docker_archive

    path = write_docker_archive(tmp_path / "old.tar", IMAGE, style="old")
    with contextlib.closing(open_source(path)) as source:
        assert find_signatures(source).of(IMAGE.digest) == []
