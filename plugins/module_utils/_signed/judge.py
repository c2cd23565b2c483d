# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judge the images of a source by a task's policy: which manifests may be installed (docs/behaviour.md, section 12)."""

from __future__ import annotations

import typing as t

from .._errors import ImageError, show
from .._image import documents
from .._image.descriptor import parse_descriptor
from .._image.digest import Digest
from .._image.media_types import INDEXES, MANIFESTS
from .._image.platform import Platform
from .._signature.keys import PublicKey
from .._signature.payload import Document
from .._signature.policy import Policy
from .._signature.verify import Findings, Signature, Verifier, explain
from .._source.source import Source
from .verdict import Approval, Verdict

if t.TYPE_CHECKING:
    from .._image.loading import Loaded

# The most nested indexes of a signed index that are read, and the most images that a verdict is about.
_MOST_INDEXES = 32
MOST_IMAGES = 100


class Judge:
    """Judges images of a source.

    ``signatures_of`` returns the signatures of a digest in batches: the next one is asked for only if the earlier ones do
    not satisfy the policy.
    """

    def __init__(
        self,
        source: Source,
        signatures_of: t.Callable[[Digest], t.Iterable[t.Iterable[Signature]]],
        keys: t.Sequence[PublicKey],
        policy: Policy,
    ) -> None:
        self._source = source
        self._signatures_of = signatures_of
        self._verifier = Verifier(keys)
        self._policy = policy
        self._findings: dict[Digest, Findings] = {}

    def approve(self, loaded: Loaded) -> Approval:
        """Return who has signed an image: its index, or else its manifest. Raises ``ImageError`` and ``SourceError``."""
        candidate = loaded.candidate
        if candidate.manifest is None:
            raise ImageError(
                f"the image {loaded.config_digest} of {show(self._source.path)} has no manifest, which is what is signed;"
                " save it as an OCI archive, for example with skopeo copy"
            )
        digest = candidate.manifest.digest
        signed: dict[str, list[str]] | None = None
        for index in candidate.via:
            signers = self._signers(index)
            listed = self._entries(index).get(digest) if signers is not None else None
            if signers is not None and listed is not None:
                if candidate.platform in listed:
                    return Approval(signers, str(loaded.platform))
                signed = signed or signers
        signed = signed or self._signers(digest)
        if signed is None:
            found = [self._findings[each] for each in (*candidate.via, digest) if each in self._findings]
            reason = explain(found, self._policy, self._verifier.keys)
            raise ImageError(f"the image {digest} of {show(self._source.path)} must not be installed: {reason}")
        _require_own_platform(loaded)
        return Approval(signed, str(loaded.platform))

    def _signers(self, digest: Digest) -> dict[str, list[str]] | None:
        """Return who has signed a document of the source, or ``None`` if that does not satisfy the policy."""
        if digest not in self._findings:
            data = self._read(digest)
            if data is None:
                return None
            findings = self._findings[digest] = Findings()
            document = Document(digest, data)
            for batch in self._signatures_of(digest):
                for signature in batch:
                    findings.add(signature, document, self._verifier)
                if self._policy.is_met_by(findings.signers):
                    break
        signers = self._findings[digest].signers
        return signers if self._policy.is_met_by(signers) else None

    def _entries(self, index: Digest) -> dict[Digest, list[Platform | None]]:
        """Return the manifests of an index and of those in it, with the platforms that it lists them for."""
        entries: dict[Digest, list[Platform | None]] = {}
        pending, seen = [index], {index}
        while pending and len(seen) <= _MOST_INDEXES:
            digest = pending.pop()
            data = self._read(digest)
            where = f"the index {digest}"
            for item in documents.objects(documents.parse_object(data, where), "manifests", where) if data else []:
                descriptor = parse_descriptor(item, f"a descriptor in {where}")
                if descriptor.media_type in MANIFESTS:
                    entries.setdefault(descriptor.digest, []).append(descriptor.platform)
                elif descriptor.media_type in INDEXES and descriptor.digest not in seen:
                    seen.add(descriptor.digest)
                    pending.append(descriptor.digest)
        return entries

    def _read(self, digest: Digest) -> bytes | None:
        """Return a verified document of the source, or ``None`` if it does not have it as a blob."""
        if self._source.size_of(digest.blob_name) is None:
            return None
        data = self._source.document(digest.blob_name)
        if digest.of(data) != digest:
            raise ImageError(
                f"the document {digest} of {show(self._source.path)} has another digest; fetch the image again"
            )
        return data


def judge_all(judge: Judge, images: t.Sequence[Loaded], path: str) -> Verdict:
    """Return the verdict about images of the source at ``path``. Raises ``ImageError`` and ``SourceError``."""
    if len(images) > MOST_IMAGES:
        raise ImageError(
            f"{show(path)} has {len(images)} images that this task may mean, more than {MOST_IMAGES}, the most that are"
            " verified; choose by ref, digest or platform"
        )
    approvals: dict[str, Approval] = {}
    errors: dict[str, str] = {}
    for loaded in images:
        try:
            approvals[str(loaded.identity)] = judge.approve(loaded)
        except ImageError as error:
            errors[str(loaded.identity)] = error.message
    return Verdict(approvals, errors)


def _require_own_platform(loaded: Loaded) -> None:
    """Refuse an image that an unsigned index lists for another platform than its own config says. Raises ``ImageError``."""
    listed, own = loaded.candidate.platform, loaded.config.platform
    if listed is not None and (not own.architecture or listed.rank_of(own) != 0):
        raise ImageError(
            f"the image {loaded.identity} is listed for {listed} by an index that is not signed, but its config says"
            f" {own.architecture and own or 'nothing'}; do not use this image"
        )
