# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which keys have signed a document (docs/behaviour.md, section 12)."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import random
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._image.digest import Digest, sha256_of
from ansible_collections.hypervisor.oci.plugins.module_utils._signature import verify as verify_room
from ansible_collections.hypervisor.oci.plugins.module_utils._signature.identity import parse_identity
from ansible_collections.hypervisor.oci.plugins.module_utils._signature.keys import PublicKey, parse_keys
from ansible_collections.hypervisor.oci.plugins.module_utils._signature.payload import Document
from ansible_collections.hypervisor.oci.plugins.module_utils._signature.policy import Policy, merge_signers
from ansible_collections.hypervisor.oci.plugins.module_utils._signature.verify import (
    Bundle,
    Classic,
    Findings,
    Signature,
    Unjudged,
    Verifier,
    explain,
)

from ansible_collections.hypervisor.oci.tests.images.builder import ABSENT

pytest.importorskip("cryptography", reason="signatures need the Python library cryptography")

from ansible_collections.hypervisor.oci.tests.images import (
    signatures,
)  # noqa: E402 pylint: disable=wrong-import-position

MANIFEST = b'{"schemaVersion":2}'
DOCUMENT = Document(sha256_of(MANIFEST), MANIFEST)
OTHER = sha256_of(b"another")
BY = signatures.signer()
MADE = "OCI_SIGNATURES"


def keys_of(*by: signatures.Signer) -> tuple[PublicKey, ...]:
    return parse_keys([("a key", one.public_pem) for one in by])


def verify(document: Document, given: t.Iterable[Signature], keys: t.Sequence[PublicKey]) -> Findings:
    """What the signatures of a document prove."""
    findings, verifier = Findings(), Verifier(keys)
    for signature in given:
        findings.add(signature, document, verifier)
    return findings


def classic(
    by: signatures.Signer = BY, digest: str = DOCUMENT.digest, reference: str = signatures.REFERENCE
) -> Classic:
    layer = signatures.classic_layer(by, signatures.payload(digest, reference))
    return Classic(layer.data, layer.annotations[signatures.ANNOTATION])


def signed(data: bytes, by: signatures.Signer = BY) -> Classic:
    return Classic(data, base64.b64encode(by.sign(data)).decode())


def bundle(by: signatures.Signer = BY, digest: str = DOCUMENT.digest) -> Bundle:
    return Bundle(signatures.bundle(by, signatures.statement(digest)))


def judged(signature: Signature, *by: signatures.Signer) -> Findings:
    return verify(DOCUMENT, [signature], keys_of(*(by or (BY,))))


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "rsa2048", "ed25519"])
def test_every_kind_of_key_signs_both_forms(kind: str) -> None:
    by = signatures.signer(kind)
    (key,) = keys_of(by)
    assert judged(classic(by), by).signers == {key.fingerprint: [signatures.REFERENCE]}
    assert judged(bundle(by), by).signers == {key.fingerprint: []}


def test_other_keys_and_other_digests() -> None:
    other = signatures.signer("p256", 1)
    for make in (classic, bundle):
        assert judged(make(other)).by_other_keys == 1
        findings = judged(make(BY, OTHER))
        assert findings.of_others == [OTHER] and not findings.signers


def test_sha512_digests() -> None:
    digest = Digest("sha512:" + "0" * 128).of(MANIFEST)
    document = Document(digest, MANIFEST)
    for signature in (classic(BY, digest), bundle(BY, digest)):
        assert verify(document, [signature], keys_of(BY)).signers
        assert not judged(signature).signers
    for signature in (classic(), bundle()):
        assert not verify(document, [signature], keys_of(BY)).signers


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"optional": []},
        {"optional": "x"},
        {"optional": ABSENT},
        {"critical": None},
        {"critical": {}},
        {"critical": {**json.loads(signatures.payload(DOCUMENT.digest))["critical"], "extra": 1}},
        {
            "critical": {
                **json.loads(signatures.payload(DOCUMENT.digest))["critical"],
                "type": "atomic container signature",
            }
        },
        {
            "critical": {
                **json.loads(signatures.payload(DOCUMENT.digest))["critical"],
                "image": {"docker-manifest-digest": DOCUMENT.digest, "extra": 1},
            }
        },
        {
            "critical": {
                **json.loads(signatures.payload(DOCUMENT.digest))["critical"],
                "image": {"docker-manifest-digest": [DOCUMENT.digest]},
            }
        },
        {
            "critical": {
                **json.loads(signatures.payload(DOCUMENT.digest))["critical"],
                "image": {"docker-manifest-digest": DOCUMENT.digest.upper()},
            }
        },
        {
            "critical": {
                **json.loads(signatures.payload(DOCUMENT.digest))["critical"],
                "identity": {"docker-reference": signatures.REFERENCE, "extra": 1},
            }
        },
        {
            "critical": {
                **json.loads(signatures.payload(DOCUMENT.digest))["critical"],
                "identity": {"docker-reference": f"{signatures.REFERENCE}@{OTHER}"},
            }
        },
    ],
)
def test_payloads_that_are_signed_and_malformed(change: t.Any) -> None:
    findings = judged(signed(signatures.payload(DOCUMENT.digest, change=change)))
    assert not findings.signers and len(findings.malformed) == 1


def test_payloads_that_are_well_formed() -> None:
    for optional in (None, {}, {"creator": "x", "timestamp": 1, "deep": {"a": [1.5]}}):
        assert judged(signed(signatures.payload(DOCUMENT.digest, change={"optional": optional}))).signers
    with_digest = f"{signatures.REFERENCE}:1@{DOCUMENT.digest}"
    assert judged(classic(BY, reference=with_digest)).signers


@pytest.mark.parametrize(
    ("change", "judgement"),
    [
        ({"extra": 1}, "malformed"),
        ({"_type": "https://in-toto.io/Statement/v2"}, "malformed"),
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "signed"),
        ({"predicate": None}, "signed"),
        ({"predicate": []}, "malformed"),
        ({"predicateType": "https://slsa.dev/provenance/v1"}, "skipped"),
        ({"predicateType": None}, "malformed"),
        ({"subject": []}, "malformed"),
        ({"subject": [{"digest": {"sha256": DOCUMENT.digest.hex}}] * 2}, "malformed"),
        ({"subject": {"digest": {"sha256": DOCUMENT.digest.hex}}}, "malformed"),
        ({"subject": [{"digest": {"sha256": DOCUMENT.digest.hex}, "extra": 1}]}, "malformed"),
        ({"subject": [{"digest": {"sha256": DOCUMENT.digest.hex}, "name": 1}]}, "malformed"),
        ({"subject": [{"digest": {"sha256": DOCUMENT.digest.hex}, "name": "x", "annotations": {"a": "b"}}]}, "signed"),
        ({"subject": [{"digest": {"sha256": DOCUMENT.digest.hex.upper()}}]}, "malformed"),
        ({"subject": [{"digest": {"sha256": DOCUMENT.digest}}]}, "malformed"),
        ({"subject": [{"digest": {"SHA256": DOCUMENT.digest.hex}}]}, "others"),
        ({"subject": [{"digest": {}}]}, "others"),
        ({"subject": [{"digest": {"sha256": DOCUMENT.digest.hex, "gitCommit": "00"}}]}, "signed"),
        ({"subject": [{"digest": {"sha256": DOCUMENT.digest.hex, "sha512": "00" * 64}}]}, "others"),
        ({"subject": [{"digest": {"sha512": Digest("sha512:" + "0" * 128).of(MANIFEST).hex}}]}, "others"),
        (
            {
                "subject": [
                    {
                        "digest": {
                            "sha256": DOCUMENT.digest.hex,
                            "sha512": Digest("sha512:" + "0" * 128).of(MANIFEST).hex,
                        }
                    }
                ]
            },
            "signed",
        ),
    ],
)
def test_statements(change: t.Any, judgement: str) -> None:
    findings = judged(Bundle(signatures.bundle(BY, signatures.statement(DOCUMENT.digest, change))))
    found = {
        "signed": bool(findings.signers),
        "malformed": bool(findings.malformed),
        "skipped": bool(findings.skipped),
        "others": bool(findings.of_others),
    }
    assert [name for name, value in found.items() if value] == [judgement]


ENVELOPE = json.loads(signatures.bundle(BY, signatures.statement(DOCUMENT.digest)))["dsseEnvelope"]


@pytest.mark.parametrize(
    ("change", "judgement"),
    [
        ({"mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.3"}, "signed"),
        ({"mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.2"}, "skipped"),
        ({"mediaType": "application/vnd.dev.sigstore.bundle.v0.4+json"}, "skipped"),
        ({"mediaType": None}, "malformed"),
        ({"verificationMaterial": {"certificate": {"rawBytes": "AAAA"}}}, "skipped"),
        ({"verificationMaterial": {"publicKey": {}, "certificate": {"rawBytes": "AAAA"}}}, "signed"),
        ({"verificationMaterial": {"publicKey": {"hint": "of another key"}, "tlogEntries": [{"x": 1}]}}, "signed"),
        ({"verificationMaterial": {"publicKey": "x"}}, "malformed"),
        ({"verificationMaterial": ABSENT}, "malformed"),
        ({"dsseEnvelope": ABSENT, "messageSignature": {"signature": "AAAA"}}, "skipped"),
        ({"messageSignature": {"signature": "AAAA"}}, "malformed"),
        ({"dsseEnvelope": ABSENT}, "malformed"),
        ({"dsseEnvelope": [ENVELOPE]}, "malformed"),
        ({"dsseEnvelope": {**ENVELOPE, "signatures": []}}, "malformed"),
        ({"dsseEnvelope": {**ENVELOPE, "signatures": ENVELOPE["signatures"] * 2}}, "malformed"),
        (
            {"dsseEnvelope": {**ENVELOPE, "signatures": [{"sig": ENVELOPE["signatures"][0]["sig"], "keyid": "x"}]}},
            "signed",
        ),
        ({"dsseEnvelope": {**ENVELOPE, "payload": ENVELOPE["payload"] + "\n"}}, "malformed"),
        ({"dsseEnvelope": {**ENVELOPE, "payload": ENVELOPE["payload"].rstrip("=") + "===="}}, "malformed"),
        ({"dsseEnvelope": {**ENVELOPE, "payloadType": "application/json"}}, "skipped"),
        ({"unknown": 1}, "signed"),
    ],
)
def test_bundles(change: t.Any, judgement: str) -> None:
    findings = judged(Bundle(signatures.bundle(BY, signatures.statement(DOCUMENT.digest), change)))
    found = {
        "signed": bool(findings.signers),
        "malformed": bool(findings.malformed),
        "skipped": bool(findings.skipped),
        "others": bool(findings.of_others or findings.by_other_keys),
    }
    assert [name for name, value in found.items() if value] == [judgement]


def test_the_payload_type_is_signed() -> None:
    data = signatures.bundle(BY, signatures.statement(DOCUMENT.digest), payload_type="application/vnd.in-toto+jsom")
    value = json.loads(data)
    value["dsseEnvelope"]["payloadType"] = signatures.PAYLOAD_TYPE
    assert judged(Bundle(json.dumps(value).encode())).by_other_keys == 1


def test_keyless_beside_keyed() -> None:
    keyless = signatures.signer("p256", 7)
    plain = classic(keyless)
    certified = Classic(plain.payload, plain.signature, True)
    own = classic()
    findings = verify(
        DOCUMENT, [certified, Classic(own.payload, own.signature, True), Unjudged("notation")], keys_of(BY)
    )
    assert list(findings.signers) == [keys_of(BY)[0].fingerprint]
    assert findings.skipped == {"certificates": 1, "notation": 1}


def test_at_most_64_signatures() -> None:
    other = classic(signatures.signer("p256", 1))
    assert verify(DOCUMENT, [other] * 63 + [classic()], keys_of(BY)).signers
    findings = verify(DOCUMENT, [other] * 64 + [classic()], keys_of(BY))
    assert not findings.signers and findings.found == 65


def test_each_signature_is_verified_once_and_not_too_many() -> None:
    """However many documents a stored signature may be about."""
    calls: list[bytes] = []
    (key,) = keys_of(BY)

    def count(signature: bytes, _data: bytes) -> bool:
        calls.append(signature)
        return False

    counting = dataclasses.replace(key, _verifiers=(count,))
    verifier = Verifier([counting])
    for _turn in range(3):
        Findings().add(Classic(b"{}", "AAAA"), DOCUMENT, verifier)
    assert len(calls) == 1
    for number in range(verify_room.MOST_VERIFIED + 5):
        findings = Findings()
        findings.add(Classic(b"%d" % number, "AAAA"), DOCUMENT, verifier)
    assert len(calls) == verify_room.MOST_VERIFIED and findings.skipped


def test_one_key_counts_once() -> None:
    fingerprint = keys_of(BY)[0].fingerprint
    other = keys_of(signatures.signer("p256", 1))[0].fingerprint
    findings = verify(DOCUMENT, [classic(), bundle(), classic(reference="other.example.org/x")], keys_of(BY))
    policy = Policy((fingerprint, other), 2)
    assert policy.count(findings.signers) == 1 and not policy.is_met_by(findings.signers)
    assert policy.is_met_by(merge_signers(findings.signers, {other: []}))
    # a signer whose key is no longer among the task's does not count
    assert not Policy((other,)).is_met_by(findings.signers)


@pytest.mark.parametrize(
    ("given", "identity", "threshold", "message"),
    [
        ([], None, 1, "it has no signature; sign it"),
        (
            [Unjudged("notation")],
            None,
            1,
            "none of its signatures is by a key of signature_keys (1 not judged: notation)",
        ),
        (
            [classic(signatures.signer("p256", 1))],
            None,
            1,
            "none of its signatures is by a key of signature_keys (1 by other",
        ),
        ([classic(BY, OTHER)], None, 1, f"signed is another manifest: {OTHER}; do not use"),
        ([classic(BY, OTHER), signed(b"{}")], None, 1, f"signed is another manifest: {OTHER} (1 malformed)"),
        ([signed(b"{}")], None, 1, "its signatures are malformed: the payload has no field critical"),
        ([Classic(b"{}", "-")], None, 1, "its signatures are malformed: its signature is not valid base64"),
        ([classic()], None, 2, "only 1 of the 2 keys that signature_threshold demands signed it"),
        (
            [classic()],
            "registry.example.org/db",
            1,
            "its signatures name registry.example.org/web, and not registry.example.org/db",
        ),
        ([bundle()], "registry.example.org/web", 1, "its signatures are bundles, which name no image"),
    ],
)
def test_why_not(given: list[Signature], identity: str | None, threshold: int, message: str) -> None:
    keys = keys_of(BY)
    policy = Policy((keys[0].fingerprint, "sha256:other"), threshold, parse_identity(identity) if identity else None)
    findings = verify(DOCUMENT, given, keys)
    assert not policy.is_met_by(findings.signers)
    assert message in explain([findings], policy, keys)


def test_ed25519ph_is_named() -> None:
    by = signatures.signer("ed25519")
    # cosign signs the SHA-512 of the payload by Ed25519ph, which no pure signature is equal to
    data = signatures.payload(DOCUMENT.digest)
    findings = judged(Classic(data, base64.b64encode(b"\x01" * 64).decode()), by)
    keys = keys_of(by)
    assert "Ed25519ph" in explain([findings], Policy((keys[0].fingerprint,)), keys)


def test_what_others_wrote_is_made_visible() -> None:
    findings = judged(classic(reference="registry.example.org/web\x1b[2J"))
    keys = keys_of(BY)
    text = explain([findings], Policy((keys[0].fingerprint,), 1, parse_identity("alpine")), keys)
    assert "\x1b" not in text


# -- mutations


def accepted(signature: Signature, keys: t.Sequence[PublicKey]) -> tuple[t.Any, ...]:
    findings = verify(DOCUMENT, [signature], keys)
    return tuple((key, tuple(names)) for key, names in findings.signers.items())


def mutations(data: bytes, randomness: random.Random, number: int) -> t.Iterator[bytes]:
    """Bytes that differ from data: flipped, inserted, taken out, doubled, cut."""
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ (1 << randomness.randrange(8))]) + data[at + 1 :]
    for _turn in range(number):
        at, end = sorted(randomness.sample(range(len(data)), 2))
        yield data[:at] + data[end:]
        yield data[:end] + data[at:]
        yield data[:at] + randomness.choice(
            [b" ", b"\n", b"\\", b'"', b",", b"NaN", b"\xef\xbb\xbf", b"=", b"\0"]
        ) + data[at:]


def documents(value: t.Any) -> t.Iterator[t.Any]:
    """The JSON value with one field retyped, taken out, or an unknown one added, at every level."""
    if isinstance(value, dict):
        yield {**value, "unknown": 1}
        for key in value:
            yield {name: item for name, item in value.items() if name != key}
            for other in (None, [], {}, "", 1, True, [value[key]], {"a": value[key]}):
                if other != value[key]:
                    yield {**value, key: other}
            for item in documents(value[key]):
                yield {**value, key: item}
    elif isinstance(value, list):
        yield [*value, *value]
        for number, item in enumerate(value):
            for other in documents(item):
                yield [*value[:number], other, *value[number + 1 :]]


def test_no_mutation_of_a_payload_is_accepted() -> None:
    keys = keys_of(BY)
    genuine = classic()
    randomness = random.Random(0)
    assert accepted(genuine, keys)
    for data in mutations(genuine.payload, randomness, 200):
        if data != genuine.payload:
            assert not accepted(Classic(data, genuine.signature), keys)
    for text in mutations(genuine.signature.encode(), randomness, 200):
        mutated = text.decode("latin-1")
        if mutated != genuine.signature:
            assert not accepted(Classic(genuine.payload, mutated), keys)


def test_no_mutation_of_a_bundle_proves_more() -> None:
    keys = keys_of(BY, signatures.signer("p256", 1))
    genuine = bundle()
    before = accepted(genuine, keys)
    for data in mutations(genuine.data, random.Random(0), 300):
        assert accepted(Bundle(data), keys) in ((), before)
    for value in documents(json.loads(genuine.data)):
        assert accepted(Bundle(json.dumps(value).encode()), keys) in ((), before)


@pytest.mark.parametrize("form", ["payload", "statement"])
def test_no_mutation_of_signed_bytes_proves_more(form: str) -> None:
    """Whoever gets a mutated document signed proves no other digest and no other image by it."""
    keys = keys_of(BY)
    data = signatures.payload(OTHER) if form == "payload" else signatures.statement(OTHER)
    for value in documents(json.loads(data)):
        mutated = json.dumps(value).encode()
        made = signed(mutated) if form == "payload" else Bundle(signatures.bundle(BY, mutated))
        assert not accepted(made, keys)
    own = signatures.payload(DOCUMENT.digest) if form == "payload" else signatures.statement(DOCUMENT.digest)
    text = own.decode()
    for doubled in (text.replace("{", '{"optional":null,', 1), text[:-1] + "," + text[1:], "\ufeff" + text):
        mutated = doubled.encode()
        made = signed(mutated) if form == "payload" else Bundle(signatures.bundle(BY, mutated))
        assert not accepted(made, keys)


def test_mutants_beside_a_signature_count_as_no_other_key_and_name_no_other_image() -> None:
    """Among them the twin that anybody can make of an ECDSA signature, which is valid, and by the same key."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

    keys = keys_of(BY, signatures.signer("p256", 1))
    genuine, whole = classic(), bundle()
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    r, s = decode_dss_signature(base64.b64decode(genuine.signature))
    twin = Classic(genuine.payload, base64.b64encode(encode_dss_signature(r, order - s)).decode())
    assert judged(twin).signers
    randomness = random.Random(2)
    mutants: list[Signature] = [Classic(data, genuine.signature) for data in mutations(genuine.payload, randomness, 20)]
    mutants += [Bundle(data) for data in mutations(whole.data, randomness, 20)]
    fingerprints = tuple(key.fingerprint for key in keys)
    two, another = Policy(fingerprints, 2), Policy(fingerprints, 1, parse_identity("registry.example.org/other"))
    for start in range(0, len(mutants), 60):
        findings = verify(DOCUMENT, [genuine, twin, whole, *mutants[start : start + 60]], keys)
        assert list(findings.signers) == [keys[0].fingerprint]
        assert not two.is_met_by(findings.signers) and not another.is_met_by(findings.signers)


def spellings(text: str) -> t.Iterator[str]:
    """What lenient readers take for the same base64."""
    yield text.replace("+", "-").replace("/", "_")
    yield text.rstrip("=")
    yield text + "="
    yield text + "\n"
    yield " " + text
    yield text[:8] + "\r\n" + text[8:]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    end = text.rstrip("=")
    # unused bits
    yield end[:-1] + letters[letters.index(end[-1]) ^ 1] + text[len(end) :]


def test_no_other_base64() -> None:
    """Neither of a payload, nor of a signature: each has all letters and an end with padding."""
    data = signatures.statement(DOCUMENT.digest, {"predicate": {"x": "?>~" * 9}})
    while len(data) % 3 != 1:
        data += b" "
    keys = keys_of(BY)
    whole = json.loads(signatures.bundle(BY, data))
    envelope = whole["dsseEnvelope"]
    while len(base64.b64decode(envelope["signatures"][0]["sig"])) % 3 == 0:
        whole = json.loads(signatures.bundle(BY, data))
        envelope = whole["dsseEnvelope"]
    assert accepted(Bundle(json.dumps(whole).encode()), keys)
    for text in spellings(envelope["payload"]):
        if text != envelope["payload"]:
            changed = {**whole, "dsseEnvelope": {**envelope, "payload": text}}
            assert not accepted(Bundle(json.dumps(changed).encode()), keys), text
    sig = envelope["signatures"][0]["sig"]
    for text in spellings(sig):
        if text != sig:
            changed = {**whole, "dsseEnvelope": {**envelope, "signatures": [{"sig": text}]}}
            assert not accepted(Bundle(json.dumps(changed).encode()), keys), text


# -- made by cosign


def made_by_cosign() -> Path:
    # the file is for ansible-test, which hides the environment
    file = Path(__file__).parents[4] / "signatures_folder.txt"
    folder = os.environ.get(MADE, "") or (file.read_text() if file.exists() else "")
    if not os.path.isdir(folder):
        pytest.skip(f"{MADE} names no folder of signatures that cosign made")
    return Path(folder)


@pytest.mark.parametrize(
    ("name", "threshold", "message"),
    [
        ("valid", 1, ""),
        ("valid-2", 1, ""),
        ("valid-2", 2, "only 1 of the 2 keys"),
        ("mixed", 1, ""),
        ("modified-manifest", 1, "another manifest"),
        ("manifest-digest-error", 1, "another manifest"),
    ],
)
def test_signatures_that_cosign_made(name: str, threshold: int, message: str) -> None:
    folder = made_by_cosign()
    data = (folder / name / "manifest.json").read_bytes()
    found: list[Signature] = []
    for payload in sorted((folder / name).glob("payload-*")):
        annotations = json.loads(
            (folder / name / payload.name.replace("payload", "annotations")).with_suffix(".json").read_text()
        )
        found.append(Classic(payload.read_bytes(), annotations[signatures.ANNOTATION]))
    texts = {key: (folder / f"{key}.pub").read_text() for key in ("cosign", "cosign2", "some-rsa-key")}
    keys = parse_keys([("cosign", texts["cosign"])])
    findings = verify(Document(sha256_of(data), data), found, keys)
    policy = Policy((keys[0].fingerprint, "sha256:another"), threshold)
    assert policy.is_met_by(findings.signers) is (message == "")
    if message:
        assert message in explain([findings], policy, keys)
    for other in ("cosign2", "some-rsa-key"):
        assert not verify(Document(sha256_of(data), data), found, parse_keys([(other, texts[other])])).signers
