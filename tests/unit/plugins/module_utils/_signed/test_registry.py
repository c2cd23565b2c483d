# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures of a registry: what is asked, in which order, and how often (docs/behaviour.md, section 12)."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import ImageError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.digest import Digest
from ansible_collections.hypervisor.oci.plugins.module_utils._signature.verify import Bundle, Classic, Unjudged
from ansible_collections.hypervisor.oci.plugins.module_utils._signed.registry import Referrers, registry_signatures
from ansible_collections.hypervisor.oci.tests.images.builder import Blob, Image, Index, Layer, artifact, file

pytest.importorskip("cryptography", reason="signatures need the Python library cryptography")

from ansible_collections.hypervisor.oci.tests.images import (
    signatures,
)  # noqa: E402 pylint: disable=wrong-import-position

BY = signatures.signer()
IMAGE = Image([Layer(file("f", "f"))])
OTHER = Image([Layer(file("f", "g"))])


class Registry:
    """A registry that holds these manifests by tag, and notes what it is asked."""

    def __init__(self, *tagged: tuple[str, Blob], referrers: Index | None = None) -> None:
        self.asked: list[str] = []
        self._tags = {tag: manifest.data for tag, manifest in tagged}
        self._referrers = referrers
        self._blobs: dict[str, bytes] = {}
        for content in [*(manifest for _tag, manifest in tagged), *([referrers] if referrers else [])]:
            for name, data in content.files().items():
                self._blobs[name[len("blobs/") :].replace("/", ":")] = data

    def manifest(self, reference: str) -> bytes | None:
        self.asked.append(f"manifest {reference}")
        return self._tags.get(reference) or self._blobs.get(reference)

    def blob(self, digest: Digest, size: int) -> bytes:
        self.asked.append(f"blob {digest}")
        if str(digest) not in self._blobs:
            raise ImageError("no such blob")
        return self._blobs[str(digest)]

    def referrers(self, digest: Digest) -> Referrers | None:
        self.asked.append(f"referrers {digest}")
        return Referrers(self._referrers.data) if self._referrers else None


def found(registry: Registry, batches: int = 2) -> list[t.Any]:
    """The kinds of the first batches of what is found."""
    answers = registry_signatures(registry, Digest(IMAGE.digest))
    items = [item for _number, batch in zip(range(batches), answers) for item in batch]
    return [item.kind if isinstance(item, Unjudged) else type(item) for item in items]


SIGNATURE = (signatures.signature_tag(IMAGE.digest), signatures.tagged(IMAGE, BY))


def test_nothing_costs_three_requests_a_document() -> None:
    registry = Registry()
    assert found(registry) == []
    tag = signatures.signature_tag(IMAGE.digest, "")
    assert registry.asked == [f"referrers {IMAGE.digest}", f"manifest {tag}", f"manifest {tag}.sig"]


def test_classic_signatures_cost_four_requests() -> None:
    registry = Registry(SIGNATURE)
    assert found(registry) == [Classic]
    assert len(registry.asked) == 4


def test_bundles_come_first_and_nothing_else_is_asked_when_they_suffice() -> None:
    registry = Registry(SIGNATURE, referrers=Index(*signatures.bundled(IMAGE, BY)))
    assert found(registry, 1) == [Bundle]
    assert len(registry.asked) == 3
    assert found(registry) == [Bundle, Classic]


def test_the_fallback_tag() -> None:
    fallback = signatures.fallback(IMAGE, *signatures.bundled(IMAGE, BY))
    registry = Registry((signatures.signature_tag(IMAGE.digest, ""), fallback))
    assert found(registry) == [Bundle]


def test_lists_that_are_wrong() -> None:
    """Other artifacts cost nothing, and a bundle of another image is not this one's, whatever the list says."""
    listed = [
        artifact().listed(descriptor={"artifactType": "application/vnd.example.thing"}),
        signatures.referrer(IMAGE, b"{}", "application/vnd.cncf.notary.signature").listed(
            descriptor={"artifactType": "application/vnd.cncf.notary.signature"}
        ),
        *signatures.bundled(OTHER, BY),
        Blob(b"x", "application/octet-stream"),
    ]
    registry = Registry(referrers=Index(*listed))
    assert found(registry) == ["notation", "referrers to another manifest"]
    assert len(registry.asked) == 3


def test_a_manifest_or_blob_that_is_missing() -> None:
    (missing,) = signatures.bundled(IMAGE, BY)
    missing.missing = True
    assert found(Registry(referrers=Index(missing))) == ["referrers that are missing"]
    without = signatures.signature_manifest(
        Blob(b"{}", signatures.SIMPLE_SIGNING, annotations={signatures.ANNOTATION: "AAAA"}, missing=True)
    )
    registry = Registry((signatures.signature_tag(IMAGE.digest), without))
    assert found(registry) == ["payloads that do not match their digest"]


def test_a_flood_of_referrers_is_bounded() -> None:
    bundles = [signatures.referrer(IMAGE, b"{%d}" % number) for number in range(70)]
    registry = Registry(referrers=Index(*bundles))
    kinds = found(registry)
    assert kinds.count(Bundle) == 64
    assert len(registry.asked) == 1 + 2 * 64 + 1


def test_inline_payloads_are_verified() -> None:
    layer = signatures.classic_layer(BY, signatures.payload(IMAGE.digest))
    for inline, kind in ((True, Classic), (b"other", "payloads that do not match their digest")):
        stored = Blob(layer.data, signatures.SIMPLE_SIGNING, annotations=layer.annotations, inline=inline)
        manifest = signatures.signature_manifest(stored)
        assert found(Registry((signatures.signature_tag(IMAGE.digest), manifest))) == [kind]
