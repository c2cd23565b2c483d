# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keys and their schemes (docs/behaviour.md, section 12)."""

from __future__ import annotations

import base64
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import MissingLibraryError, OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._signature import keys
from ansible_collections.hypervisor.oci.plugins.module_utils._signature.fingerprint import fingerprint_of

pytest.importorskip("cryptography", reason="signatures need the Python library cryptography")

from ansible_collections.hypervisor.oci.tests.images import (
    signatures,
)  # noqa: E402 pylint: disable=wrong-import-position
from cryptography.hazmat.primitives import hashes  # noqa: E402 pylint: disable=wrong-import-position
from cryptography.hazmat.primitives.serialization import (  # noqa: E402 pylint: disable=wrong-import-position
    Encoding,
    PublicFormat,
)

DATA = b"signed bytes"


def key_of(by: signatures.Signer) -> keys.PublicKey:
    return keys.parse_key(by.public_pem, "the key")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("p256", "ECDSA P-256"),
        ("p384", "ECDSA P-384"),
        ("p521", "ECDSA P-521"),
        ("rsa2048", "RSA 2048"),
        ("rsa3072", "RSA 3072"),
        ("ed25519", "Ed25519"),
    ],
)
def test_every_kind_verifies_its_own_scheme(kind: str, words: str) -> None:
    by = signatures.signer(kind)
    key = key_of(by)
    signature = by.sign(DATA)
    assert key.kind == words
    assert key.verifies(signature, DATA, False) and key.verifies(signature, DATA, True)
    assert not key.verifies(signature, DATA + b".", True)
    assert not key.verifies(bytes([signature[0] ^ 1]) + signature[1:], DATA, True)
    assert not key.verifies(b"", DATA, True)
    assert not key.verifies(signature * 100, DATA, True)


@pytest.mark.parametrize(("kind", "classic"), [("p384", True), ("p521", True), ("p256", True), ("rsa2048", True)])
def test_sha256_is_for_classic_payloads(kind: str, classic: bool) -> None:
    by = signatures.signer(kind)
    signature = by.sign(DATA, hashes.SHA256())
    key = key_of(by)
    assert key.verifies(signature, DATA, True)
    assert key.verifies(signature, DATA, False) is (kind in ("p256", "rsa2048"))


@pytest.mark.parametrize(
    ("kind", "digest"),
    [("p256", hashes.SHA384()), ("p256", hashes.SHA512()), ("p384", hashes.SHA512()), ("rsa2048", hashes.SHA512())],
)
def test_no_other_hash(kind: str, digest: t.Any) -> None:
    by = signatures.signer(kind)
    assert not key_of(by).verifies(by.sign(DATA, digest), DATA, True)


def test_rsa_pss_is_not_a_scheme() -> None:
    from cryptography.hazmat.primitives.asymmetric import padding

    by = signatures.signer("rsa2048")
    signature = by.key.sign(DATA, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    assert not key_of(by).verifies(signature, DATA, True)


def spellings(by: signatures.Signer) -> list[str]:
    """One key, written in several ways."""
    pem = by.public_pem
    lines = pem.split("\n")
    body = "".join(lines[1:-2])
    rewrapped = "\n".join([lines[0], *(body[at : at + 20] for at in range(0, len(body), 20)), lines[-2]])
    texts = [pem, pem.replace("\n", "\r\n"), f"# a comment\n\n{pem}\n\n", rewrapped, pem.rstrip()]
    public = by.key.public_key()
    if by.kind.startswith("rsa"):
        texts.append(public.public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode())
    elif by.kind == "p256":
        # the same SubjectPublicKeyInfo around a compressed point
        point = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        algorithm = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
        content = algorithm + b"\x03" + bytes([len(point) + 1]) + b"\x00" + point
        text = base64.b64encode(b"\x30" + bytes([len(content)]) + content).decode()
        texts.append(f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    return texts


@pytest.mark.parametrize("kind", ["p256", "rsa2048", "ed25519"])
def test_one_key_in_any_spelling_is_one_key(kind: str) -> None:
    texts = spellings(signatures.signer(kind))
    assert len(set(texts)) >= 5
    parsed = keys.parse_keys([(text, text) for text in texts])
    assert len(parsed) == 1
    assert fingerprint_of(parsed[0].pem) == parsed[0].fingerprint
    assert len(keys.parse_keys([("a", texts[0]), ("b", signatures.signer(kind, 1).public_pem)])) == 2


@pytest.mark.parametrize("kind", ["rsa1024", "secp256k1", "p224"])
def test_other_kinds_and_sizes(kind: str) -> None:
    with pytest.raises(OciError, match="kind or size that is not supported"):
        key_of(signatures.signer(kind))


def test_dsa_and_ed448() -> None:
    from cryptography.hazmat.primitives.asymmetric import dsa, ed448

    for key in (dsa.generate_private_key(1024), ed448.Ed448PrivateKey.generate()):
        with pytest.raises(OciError, match="kind or size that is not supported"):
            key_of(signatures.Signer("other", key))


@pytest.mark.parametrize(
    "label",
    ["PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "ENCRYPTED SIGSTORE PRIVATE KEY", "OPENSSH PRIVATE KEY"],
)
def test_a_private_key_is_refused_and_not_shown(label: str) -> None:
    pem = signatures.signer().private_pem.replace("PRIVATE KEY", label)
    for text in (pem, signatures.signer().public_pem + pem, pem.rstrip()[:80]):
        with pytest.raises(OciError, match="the key is a private key") as caught:
            keys.parse_key(text, "the key")
        assert pem.split("\n")[1][:10] not in caught.value.message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not exactly one public key"),
        ("nothing", "not exactly one public key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a valid public key"),
        ("-----BEGIN PUBLIC KEY-----\nA!\n-----END PUBLIC KEY-----\n", "not exactly one public key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----\n", "not exactly one public key"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is a certificate"),
        ("-----BEGIN PUBLIC KEY-----\n" + "A" * 100_000, "more than 65536 characters"),
    ],
)
def test_what_is_no_key(text: str, reason: str) -> None:
    with pytest.raises(OciError, match=reason):
        keys.parse_key(text, "the key")


def test_two_keys_in_one_text() -> None:
    with pytest.raises(OciError, match="not exactly one public key"):
        keys.parse_key(signatures.signer().public_pem + signatures.signer("p256", 1).public_pem, "the key")


def test_the_number_of_keys_is_bounded() -> None:
    pem = signatures.signer().public_pem
    assert len(keys.parse_keys([("a", pem)] * 16)) == 1
    with pytest.raises(OciError, match="17 keys, more than 16"):
        keys.parse_keys([("a", pem)] * 17)
    with pytest.raises(OciError, match="signature_keys is empty"):
        keys.parse_keys([])


def test_without_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("cryptography.exceptions", "cryptography"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingLibraryError, match="cryptography is missing"):
        keys.parse_key(signatures.signer().public_pem, "the key")
