# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Require the signatures that a task asks for, before anything is changed (docs/behaviour.md, section 12)."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from .._signature.policy import merge_signers
from .plan import ImagePlan, Signers, Unchanged, Unpack
from .target import Target

if t.TYPE_CHECKING:
    from .._dest.record import Record, Tree
    from .._signed.signing import Signing
    from .options import Options
    from .plan import AlreadyStaged, UseStaged, WantedImage


class VerdictNeeded(Exception):
    """Only the controller can say whether the image is signed as the task asks."""


def require_signatures(target: Target, signing: Signing, plan: ImagePlan) -> ImagePlan:
    """Return the plan with who has signed its tree. Raises ``OciError`` if that does not satisfy the task.

    What the record says of the tree is enough; otherwise the signatures are verified again.
    """
    tree = _tree_of(plan)
    known: Signers = tree.signers if tree is not None else {}
    if tree is not None and signing.policy.is_met_by(known):
        return replace(plan, signers=known)
    return replace(
        plan, signers=merge_signers(known, _verified(target.options, signing, t.cast("WantedImage", plan.wanted)))
    )


def remember_signers(target: Target, plan: Unchanged | AlreadyStaged | UseStaged) -> Record:
    """Save who has signed an existing tree, if that was not known; return the record."""
    record = target.dest.load()
    tree = _tree_of(plan)
    if tree is None or plan.signers is None or tree.signers == plan.signers:
        return record
    if isinstance(plan, Unchanged) and record.tree is not None:
        record = replace(record, tree=replace(record.tree, signers=plan.signers))
    elif not isinstance(plan, Unchanged) and record.next is not None:
        record = replace(record, next=replace(record.next, signers=plan.signers))
    target.dest.save(record)
    return record


def _tree_of(plan: ImagePlan) -> Tree | None:
    """Return the tree that would be at dest, if it exists."""
    if isinstance(plan, Unpack):
        return None
    return plan.current if isinstance(plan, Unchanged) else plan.staged


def _verified(options: Options, signing: Signing, wanted: WantedImage) -> Signers:
    image = wanted.image
    digest = str(image.manifest_digest or image.config_digest)
    if signing.verdict is not None:
        return signing.verdict.signers_of(digest, str(image.platform))
    return options.origin.signers(options, signing, wanted)
