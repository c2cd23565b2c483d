# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carry out the plan for an image."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from .._dest.dest import PARTIALS, UPLOADS, Dest
from .describe import image_outcome
from .outcome import Outcome, UploadRequest
from .plan import AlreadyStaged, ImagePlan, Unchanged, UseStaged
from .target import Target

if t.TYPE_CHECKING:
    from .._dest.record import Record


def carry_out(target: Target, plan: ImagePlan, warnings: t.Sequence[str]) -> Outcome | UploadRequest | None:
    """Return the outcome, or the blobs to upload first; ``None`` while another run uploads to the same dest."""
    if isinstance(plan, Unchanged):
        _tidy(target, plan)
        return image_outcome(target, plan, plan.current, warnings)
    if isinstance(plan, AlreadyStaged):
        _remember_signers(target, plan)
        return image_outcome(target, plan, plan.staged, warnings)
    if isinstance(plan, UseStaged):
        record = target.replacement.commit(_remember_signers(target, plan))
        kept = map(kept_warning, target.replacement.path_of_kept(record))
        return image_outcome(target, plan, plan.staged, [*warnings, *kept])
    # imported late: unchanged runs need none of the code that unpacks
    from .unpacking import unpack_image

    return unpack_image(target, plan)


def _remember_signers(target: Target, plan: Unchanged | AlreadyStaged | UseStaged) -> Record:
    """Return the record, in which a task that asks for signatures notes what it has verified."""
    if plan.signers is None:
        return target.dest.load()
    from .signed import remember_signers

    return remember_signers(target, plan)


def _tidy(target: Target, plan: Unchanged) -> None:
    """Remove what an unchanged dest no longer needs."""
    record = _remember_signers(target, plan)
    selection = plan.wanted.selection.joined(plan.current.selection)
    if selection != plan.current.selection and record.tree is not None:
        record = replace(record, tree=replace(record.tree, selection=selection))
        target.dest.save(record)
    if record.next is not None:
        record = target.replacement.discard_next(record)
    target.replacement.prune(record)
    remove_finished_transfers(target.dest)


def remove_finished_transfers(dest: Dest, active: bool = False) -> None:
    """Remove what transfers left that are no longer needed; with ``active``, also uploads of another run."""
    if dest.has(PARTIALS):
        from .partials import remove_partials

        remove_partials(dest)
    if dest.read(UPLOADS) is None:
        return
    from .._dest.uploads import remove_uploads

    remove_uploads(dest, active)


def kept_warning(path: str) -> str:
    """Return the warning about a tree of the user's own that was replaced by force."""
    return f"what was at dest before this module came is kept in {path}; remove it when you need it no longer"
