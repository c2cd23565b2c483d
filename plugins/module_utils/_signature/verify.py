# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verify the signatures of one manifest or index (docs/behaviour.md, section 12).

A signature is verified over the bytes as they are, and only then are these bytes parsed.
"""

from __future__ import annotations

import typing as t
from collections import Counter
from dataclasses import dataclass, field

from .._errors import visible
from .bundle import NotJudgedError, parse_bundle, parse_statement
from .keys import PublicKey
from .payload import Claim, Document, parse_payload
from .policy import Policy, Signers, merge_signers
from .strict import PAYLOAD_LIMIT, MalformedError, decode_base64

# The most signatures that are verified for one document.
MOST_SIGNATURES = 64
# The most signatures that are verified for all documents of a run.
MOST_VERIFIED = 2000
_MOST_REASONS = 5
_LONGEST_DIGEST = 140


@dataclass(frozen=True)
class Classic:
    """A payload as cosign stores it in a layer, and its signature in base64 from the layer's annotation.

    ``certified`` is true if a certificate lies beside it, as for keyless signatures.
    """

    payload: bytes
    signature: str
    certified: bool = False


@dataclass(frozen=True)
class Bundle:
    """A sigstore bundle as it is stored."""

    data: bytes


@dataclass(frozen=True)
class Unjudged:
    """Something that may be a signature, of a ``kind`` that is not verified, in words."""

    kind: str


Signature = t.Union[Classic, Bundle, Unjudged]


@dataclass
class Findings:
    """What the signatures of one document are: its ``signers``, and how many were of no use, and why."""

    signers: dict[str, list[str]] = field(default_factory=dict)
    found: int = 0
    by_other_keys: int = 0
    of_others: list[str] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, signature: Signature, document: Document, verifier: Verifier) -> None:
        """Judge one more signature; those beyond 64 are only counted."""
        self.found += 1
        if self.found > MOST_SIGNATURES:
            self.skipped[f"signatures beyond {MOST_SIGNATURES}, a fixed limit"] += 1
            return
        try:
            by, claim = verifier.verify(signature)
        except NotJudgedError as error:
            self.skipped[str(error)] += 1
            return
        except MalformedError as error:
            self.malformed.append(str(error))
            return
        if claim is None:
            self.by_other_keys += 1
        elif claim.is_about(document):
            self.signers = merge_signers(self.signers, {by: [claim.reference] if claim.reference else []})
        else:
            self.of_others.append(_shown(claim))


# A key's fingerprint and what it signed; an error if the signature cannot be judged.
_Verified = t.Union[t.Tuple[str, t.Optional[Claim]], NotJudgedError, MalformedError]


class Verifier:
    """Verifies signatures by keys, each signature once, and 2,000 at most: one that is stored may be about any document."""

    def __init__(self, keys: t.Sequence[PublicKey]) -> None:
        self.keys = keys
        self._known: dict[Signature, _Verified] = {}

    def verify(self, signature: Signature) -> tuple[str, Claim | None]:
        """Return the key that signed, and what it signed; ``None`` if none of the keys did.

        Raises ``MalformedError`` and ``NotJudgedError``.
        """
        found = self._known.get(signature)
        if found is None:
            if len(self._known) >= MOST_VERIFIED:
                raise NotJudgedError(f"signatures of this run beyond {MOST_VERIFIED}, a fixed limit")
            try:
                found = _verify(signature, self.keys)
            except (MalformedError, NotJudgedError) as error:
                found = error
            self._known[signature] = found
        if isinstance(found, ValueError):
            raise found
        return found


def explain(findings: t.Sequence[Findings], policy: Policy, keys: t.Sequence[PublicKey] = ()) -> str:
    """Return why the documents' signatures do not satisfy a policy, as a phrase with what to do."""
    signers: Signers = merge_signers(*[item.signers for item in findings])
    reason, advice = _reason(findings, policy, signers)
    notes = _notes(findings)
    if any(key.kind == "Ed25519" for key in keys) and any(item.by_other_keys for item in findings):
        notes.append("cosign signs Ed25519ph with Ed25519 keys, which cannot be verified: sign with an ECDSA key")
    note = f" ({'; '.join(notes)})" if notes else ""
    return f"{reason}{note}; {advice}"


def _reason(findings: t.Sequence[Findings], policy: Policy, signers: Signers) -> tuple[str, str]:
    """Return the first reason that applies, and what can help."""
    wrong = [digest for item in findings for digest in item.of_others]
    malformed = [reason for item in findings for reason in item.malformed]
    if not any(item.found for item in findings):
        return "it has no signature", "sign it, copy the image together with its signatures, or name them in signatures"
    if signers:
        return _too_few(policy, signers)
    if not wrong and not malformed:
        return (
            "none of its signatures is by a key of signature_keys",
            "sign it with one of these keys, or add the signer's key",
        )
    if wrong:
        shown = ", ".join(sorted(set(wrong))[:_MOST_REASONS])
        return f"what the keys of signature_keys signed is another manifest: {shown}", "do not use this image"
    return f"its signatures are malformed: {_listed(malformed)}", "sign it again"


def _too_few(policy: Policy, signers: Signers) -> tuple[str, str]:
    plain = Policy(policy.keys, policy.threshold)
    if policy.identity is None or not plain.is_met_by(signers):
        number = plain.count(signers)
        reason = f"only {number} of the {policy.threshold} keys that signature_threshold demands signed it"
        return reason, "have it signed by more of these keys"
    named = sorted({reference for references in signers.values() for reference in references})
    if not named:
        reason = f"its signatures are bundles, which name no image, so they cannot prove signature_identity {policy.identity}"
        return reason, "leave signature_identity out, or sign in the classic form"
    shown = ", ".join(visible(name, _LONGEST_DIGEST) for name in named[:_MOST_REASONS])
    return f"its signatures name {shown}, and not {policy.identity} (signature_identity)", "do not use this image"


def _notes(findings: t.Sequence[Findings]) -> list[str]:
    """Return what was found and of no use, counted."""
    skipped: Counter[str] = Counter()
    for item in findings:
        skipped.update(item.skipped)
    notes = [f"{number} not judged: {kind}" for kind, number in sorted(skipped.items())]
    others = sum(item.by_other_keys for item in findings)
    if others:
        notes.insert(0, f"{others} by other keys")
    malformed = sum(len(item.malformed) for item in findings)
    if malformed:
        notes.append(f"{malformed} malformed")
    return notes[:_MOST_REASONS]


def _verify(signature: Signature, keys: t.Sequence[PublicKey]) -> tuple[str, Claim | None]:
    """Return the key that signed, and what it signed; ``None`` if none of the keys did.

    Raises ``MalformedError`` and ``NotJudgedError``.
    """
    if isinstance(signature, Unjudged):
        raise NotJudgedError(signature.kind)
    if isinstance(signature, Bundle):
        envelope = parse_bundle(signature.data)
        key = _signer(keys, envelope.signature, envelope.signed_bytes(), False)
        return (key, parse_statement(envelope.payload)) if key else ("", None)
    if len(signature.payload) > PAYLOAD_LIMIT:
        raise MalformedError(f"its payload has more than {PAYLOAD_LIMIT} bytes, a fixed limit")
    data = decode_base64(signature.signature, "its signature")
    key = _signer(keys, data, signature.payload, True)
    if not key and signature.certified:
        raise NotJudgedError("certificates")
    return (key, parse_payload(signature.payload)) if key else ("", None)


def _signer(keys: t.Sequence[PublicKey], signature: bytes, data: bytes, classic: bool) -> str:
    for key in keys:
        if key.verifies(signature, data, classic):
            return key.fingerprint
    return ""


def _shown(claim: Claim) -> str:
    digests = [f"{algorithm}:{text}" for algorithm, text in sorted(claim.digests.items())]
    return visible(" ".join(digests) or "no digest", _LONGEST_DIGEST)


def _listed(reasons: list[str]) -> str:
    return ", ".join(dict.fromkeys(reasons[:_MOST_REASONS]))
