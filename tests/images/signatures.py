# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signatures of images, made by keys of the tests' own, as cosign writes and stores them."""

from __future__ import annotations

import base64
import functools
import typing as t
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from .documents import CONFIG, EMPTY, Blob, Index, Json, Manifest, to_json

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
CERTIFICATE = "dev.sigstore.cosign/certificate"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE = "https://sigstore.dev/cosign/sign/v1"
REFERENCE = "registry.example.org/web"

_CURVES: dict[str, tuple[t.Any, t.Any]] = {
    "p256": (ec.SECP256R1(), hashes.SHA256()),
    "p384": (ec.SECP384R1(), hashes.SHA384()),
    "p521": (ec.SECP521R1(), hashes.SHA512()),
    "secp256k1": (ec.SECP256K1(), hashes.SHA256()),
    "p224": (ec.SECP224R1(), hashes.SHA256()),
}


@dataclass(frozen=True)
class Signer:
    """A private key of a ``kind``: a curve's name, ``ed25519`` or ``rsa`` with a number of bits."""

    kind: str
    key: t.Any

    @property
    def public_pem(self) -> str:
        """The public key as a PEM text."""
        return str(self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())

    @property
    def private_pem(self) -> str:
        """The private key as a PEM text."""
        pem = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return str(pem.decode())

    def sign(self, data: bytes, digest: t.Any = None) -> bytes:
        """Sign data, with the digest of the key's own kind where none is given."""
        if self.kind == "ed25519":
            return bytes(self.key.sign(data))
        if self.kind.startswith("rsa"):
            return bytes(self.key.sign(data, padding.PKCS1v15(), digest or hashes.SHA256()))
        return bytes(self.key.sign(data, ec.ECDSA(digest or _CURVES[self.kind][1])))


@functools.lru_cache(maxsize=None)
def signer(kind: str = "p256", number: int = 0) -> Signer:
    """A key of a kind; each number is another one."""
    if kind == "ed25519":
        return Signer(kind, ed25519.Ed25519PrivateKey.generate())
    if kind.startswith("rsa"):
        return Signer(kind, rsa.generate_private_key(65537, int(kind[3:])))
    return Signer(kind, ec.generate_private_key(_CURVES[kind][0]))


def payload(digest: str, reference: str = REFERENCE, change: Json | None = None) -> bytes:
    """What cosign signs in its classic form; ``change``: fields over those of the whole."""
    document = {
        "critical": {
            "identity": {"docker-reference": reference},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    return to_json(document, change)


def classic_layer(by: Signer, signed: bytes, digest: t.Any = None, certificate: bool = False) -> Blob:
    """A payload as a layer with its signature. cosign hashes with SHA-256, whatever the curve."""
    hashed = digest if by.kind == "ed25519" else digest or hashes.SHA256()
    annotations = {ANNOTATION: base64.b64encode(by.sign(signed, hashed)).decode()}
    if certificate:
        annotations[CERTIFICATE] = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    return Blob(signed, SIMPLE_SIGNING, annotations=annotations)


def signature_manifest(*layers: Blob, **options: t.Any) -> Manifest:
    """The manifest that holds classic signatures, with the config that cosign gives it."""
    config = {
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
    }
    return Manifest(Blob(to_json(config), CONFIG), layers, **options)


def signature_tag(digest: str, suffix: str = ".sig") -> str:
    """The tag that signatures of a digest have."""
    return digest.replace(":", "-") + suffix


def tagged(subject: Blob, *by: Signer, reference: str = REFERENCE) -> Manifest:
    """Classic signatures of an image or index under their tag, as ``cosign sign`` and ``regctl`` store them."""
    layers = [classic_layer(one, payload(subject.digest, reference)) for one in by]
    return signature_manifest(*layers, ref=signature_tag(subject.digest))


def statement(digest: str, change: Json | None = None) -> bytes:
    """The in-toto statement that cosign signs in a bundle; ``change``: fields over those of the whole."""
    algorithm, _colon, value = digest.partition(":")
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {algorithm: value}}],
        "predicateType": PREDICATE,
        "predicate": {},
    }
    return to_json(document, change)


def bundle(by: Signer, signed: bytes, change: Json | None = None, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """A bundle of version 0.3 with a DSSE envelope; ``change``: fields over those of the whole."""
    encoding = b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(signed), signed)
    document = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": "a hint"}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(signed).decode(),
            "payloadType": payload_type,
            "signatures": [{"sig": base64.b64encode(by.sign(encoding)).decode()}],
        },
    }
    return to_json(document, change)


def referrer(subject: Blob, data: bytes, artifact_type: str = BUNDLE, **options: t.Any) -> Manifest:
    """A manifest that refers to an image or index and holds a bundle."""
    reference = {"mediaType": subject.media_type, "digest": subject.digest, "size": subject.size}
    return Manifest(
        Blob(b"{}", EMPTY),
        [Blob(data, artifact_type)],
        manifest={"artifactType": artifact_type, "subject": reference},
        **options,
    )


def bundled(subject: Blob, *by: Signer) -> list[Manifest]:
    """Bundles that refer to an image or index, as ``oras copy -r`` stores them in a layout."""
    return [referrer(subject, bundle(one, statement(subject.digest))) for one in by]


def fallback(subject: Blob, *referrers: Manifest) -> Index:
    """Referrers under their fallback tag, as ``regctl image copy --referrers`` stores them in a layout."""
    return Index(*referrers, ref=signature_tag(subject.digest, ""))


def as_cosign_saves(kind: str, blob: Blob) -> t.Any:
    """An image, index or signatures in the layout of ``cosign save``: ``image``, ``imageIndex`` or ``sigs``."""
    return blob.listed(annotations={"kind": f"dev.cosignproject.cosign/{kind}"})
