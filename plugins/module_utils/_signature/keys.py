# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Public keys: checked, identified by a fingerprint, and each with the schemes that it may sign by.

See docs/behaviour.md, section 12. A key's fingerprint is the SHA-256 of its SubjectPublicKeyInfo (RFC 5280), which is
made anew from the key's numbers: one key has one fingerprint, however its file spells it.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from .._errors import MissingLibraryError, OciError
from .fingerprint import MOST_KEYS, fingerprint_of_der

if t.TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

_LONGEST_TEXT = 64 * 1024
_BEGIN = "-----BEGIN "
_LABEL = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,64})-----")
_BLOCK = re.compile(r"-----BEGIN (PUBLIC KEY|RSA PUBLIC KEY)-----[ \t]*\r?\n[A-Za-z0-9+/=\s]+-----END \1-----")
_PUBLIC = ("PUBLIC KEY", "RSA PUBLIC KEY")
_RSA_BITS = (2048, 8192)
_ADVICE = "use a public key for ECDSA on P-256, P-384 or P-521, RSA of 2048 to 8192 bits, or Ed25519"


@dataclass(frozen=True)
class PublicKey:
    """A checked key: its ``fingerprint`` as ``sha256:HEX``, its ``kind`` in words, and its canonical PEM text."""

    fingerprint: str
    kind: str
    pem: str
    _verifiers: tuple[t.Callable[[bytes, bytes], bool], ...]
    _classic_verifiers: tuple[t.Callable[[bytes, bytes], bool], ...] = ()

    def verifies(self, signature: bytes, data: bytes, classic: bool) -> bool:
        """Return whether this key made the signature over data; ``classic`` allows the schemes of classic payloads too."""
        verifiers = self._verifiers + (self._classic_verifiers if classic else ())
        return any(verify(signature, data) for verify in verifiers)


def is_pem(text: str) -> bool:
    """Return whether an entry of signature_keys is a key itself, and not a path."""
    return _BEGIN in text


def parse_keys(texts: t.Sequence[tuple[str, str]]) -> tuple[PublicKey, ...]:
    """Parse keys, each with a name for errors; doubles are merged.

    Raises ``OciError``, which never quotes a key, and ``MissingLibraryError``.
    """
    if not texts:
        raise OciError("signature_keys is empty; give at least one public key, or leave the option out")
    if len(texts) > MOST_KEYS:
        raise OciError(f"signature_keys has {len(texts)} keys, more than {MOST_KEYS}, a fixed limit")
    keys: dict[str, PublicKey] = {}
    for where, text in texts:
        key = parse_key(text, where)
        keys.setdefault(key.fingerprint, key)
    return tuple(keys.values())


def parse_key(text: str, where: str) -> PublicKey:
    """Parse the PEM text of one public key; ``where`` names it in errors. Raises ``OciError``."""
    block = _only_block(text, where)
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise MissingLibraryError("cryptography", "signatures are verified with it", str(error)) from error
    try:
        loaded = load_pem_public_key(block.encode("ascii"))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise OciError(f"{where} is not a valid public key; {_ADVICE}") from error
    key = _checked(loaded)
    if key is None:
        raise OciError(f"{where} is a key of a kind or size that is not supported; {_ADVICE}")
    return key


def _only_block(text: str, where: str) -> str:
    labels = _LABEL.findall(text)
    if "PRIVATE" in text and any("PRIVATE" in label for label in labels):
        raise OciError(f"{where} is a private key, which signs and must stay secret; give its public key")
    if len(text) > _LONGEST_TEXT:
        raise OciError(
            f"{where} has more than {_LONGEST_TEXT} characters, a fixed limit; give a public key in PEM form"
        )
    if "CERTIFICATE" in labels:
        raise OciError(f"{where} is a certificate; give the public key alone, as openssl x509 -pubkey -noout writes it")
    match = _BLOCK.search(text)
    if match is None or len(labels) != 1 or text.count(_BEGIN) != 1 or labels[0] not in _PUBLIC:
        raise OciError(f"{where} is not exactly one public key in PEM form (-----BEGIN PUBLIC KEY-----)")
    return match.group(0) + "\n"


def _checked(loaded: PublicKeyTypes) -> PublicKey | None:
    """Return a key of a supported kind and size, made anew from its numbers, otherwise ``None``."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if isinstance(loaded, EllipticCurvePublicKey):
        return _elliptic(loaded)
    if isinstance(loaded, RSAPublicKey) and _RSA_BITS[0] <= loaded.key_size <= _RSA_BITS[1]:
        return _rsa(loaded)
    if isinstance(loaded, Ed25519PublicKey):
        return _key(loaded, "Ed25519", [_verifier(loaded)])
    return None


def _elliptic(loaded: t.Any) -> PublicKey | None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    own: dict[str, tuple[str, t.Any]] = {
        "secp256r1": ("ECDSA P-256", hashes.SHA256()),
        "secp384r1": ("ECDSA P-384", hashes.SHA384()),
        "secp521r1": ("ECDSA P-521", hashes.SHA512()),
    }
    if loaded.curve.name not in own:
        return None
    kind, digest = own[loaded.curve.name]
    numbers = loaded.public_numbers()
    key = ec.EllipticCurvePublicNumbers(numbers.x, numbers.y, loaded.curve).public_key()
    # cosign hashes classic payloads with SHA-256, whatever the curve
    classic = [] if kind == "ECDSA P-256" else [_verifier(key, ec.ECDSA(hashes.SHA256()))]
    return _key(key, kind, [_verifier(key, ec.ECDSA(digest))], classic)


def _rsa(loaded: t.Any) -> PublicKey:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    numbers = loaded.public_numbers()
    key = rsa.RSAPublicNumbers(numbers.e, numbers.n).public_key()
    return _key(key, f"RSA {loaded.key_size}", [_verifier(key, padding.PKCS1v15(), hashes.SHA256())])


_Verifier = t.Callable[[bytes, bytes], bool]


def _verifier(key: t.Any, *scheme: t.Any) -> _Verifier:
    from cryptography.exceptions import InvalidSignature

    def verify(signature: bytes, data: bytes) -> bool:
        try:
            key.verify(signature, data, *scheme)
        except InvalidSignature:
            return False
        return True

    return verify


def _key(key: t.Any, kind: str, verifiers: list[_Verifier], classic: t.Sequence[_Verifier] = ()) -> PublicKey:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    form = PublicFormat.SubjectPublicKeyInfo
    pem = key.public_bytes(Encoding.PEM, form).decode("ascii")
    return PublicKey(
        fingerprint_of_der(key.public_bytes(Encoding.DER, form)), kind, pem, tuple(verifiers), tuple(classic)
    )
