# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task asks of signatures (docs/behaviour.md, section 12)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._errors import OciError
from .._signature.fingerprint import MOST_KEYS, fingerprint_of
from .._signature.identity import parse_identity
from .._signature.policy import Policy
from .verdict import Verdict


@dataclass(frozen=True)
class Signing:
    """The public ``keys`` as canonical PEM texts, the policy, and the ``paths`` of signatures beside the image.

    ``verdict`` is what the controller found. Without it, signatures are verified here when that is needed, or, unless
    ``verifies``, the controller is asked for it.
    """

    keys: tuple[str, ...]
    policy: Policy
    paths: tuple[str, ...] = ()
    verdict: Verdict | None = None
    verifies: bool = True

    @property
    def needs_verdict(self) -> bool:
        """Whether the controller has to be asked before anything is installed that no record knows as signed."""
        return self.verdict is None and not self.verifies


def to_policy(fingerprints: t.Sequence[str], threshold: int, identity: str | None) -> Policy:
    """Return the policy of a task's options. Raises ``OciError``."""
    if not 1 <= threshold <= len(fingerprints):
        raise OciError(
            f"signature_threshold is {threshold}, and signature_keys has {len(fingerprints)} different keys; give a number"
            " from 1 to that of the keys"
        )
    return Policy(tuple(fingerprints), threshold, parse_identity(identity) if identity is not None else None)


def fingerprints_of(keys: t.Sequence[str]) -> tuple[str, ...]:
    """Return the fingerprints of canonical PEM texts, which need no library, without doubles. Raises ``OciError``."""
    if not keys or len(keys) > MOST_KEYS:
        raise OciError(f"signature_keys has {len(keys)} keys; give 1 to {MOST_KEYS}")
    return tuple(dict.fromkeys(map(fingerprint_of, keys)))
