# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bring dest into the state that a task asks for.

Open the source and select the image; open dest and load its record; plan, guard, then predict or carry out.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
from dataclasses import replace

from .._errors import RootfsError, SourceChangedError, os_advice, os_phrase, show
from .._image.image import Image
from .._image.selection import select_image
from .._source.source import Source
from .guard import check_plan, require_ours, require_plain, require_stageable
from .options import Options
from .outcome import Outcome, UploadRequest, VerdictRequest
from .plan import DestState, ImagePlan, KnownPlan, Unchanged, plan_image, selection_of, to_wanted
from .target import Target, open_target

if t.TYPE_CHECKING:
    from .._dest.record import Record

# How often a run that waits for another one looks again.
_POLL_SECONDS = 1.0


def provision(options: Options, check_mode: bool) -> Outcome | UploadRequest | VerdictRequest:
    """Bring dest into the state asked for; in check mode, predict the outcome and write nothing.

    Returns the blobs to upload if the controller's image is needed, or a request for its verdict about signatures.
    Raises ``OciError``.
    """
    try:
        if options.needs_image:
            return _provision_image(options, check_mode)
        return _provision_state(options, check_mode)
    except OSError as error:
        # a descriptor's number would tell nobody anything
        named = isinstance(error.filename, (str, bytes)) and error.filename
        name = f" ({show(os.fsencode(error.filename))})" if named else ""
        advice = os_advice(error) or "look at the file systems of src and dest"
        raise RootfsError(f"{show(options.dest)} could not be worked on: {os_phrase(error)}{name}; {advice}") from error


def _provision_state(options: Options, check_mode: bool) -> Outcome:
    # imported late: most tasks have an image
    from .states import plan_state

    with open_target(options, check_mode) as target:
        before = DestState.read(target.dest)
        record = target.load()
        require_ours(target, record)
        plan = plan_state(target, record, before)
        act = plan.carry_out if target.dest.writable else plan.predict
        return act(target, plan.check(target))


def _provision_image(options: Options, check_mode: bool) -> Outcome | UploadRequest | VerdictRequest:
    try:
        outcome = _select_and_provision(options, check_mode)
    except SourceChangedError:
        # nothing of it is left: start once more with the image that is there now
        outcome = _select_and_provision(options, check_mode)
    if isinstance(outcome, Outcome):
        return replace(outcome, warnings=(*outcome.warnings, *options.origin.notes))
    return outcome


def _select_and_provision(options: Options, check_mode: bool) -> Outcome | UploadRequest | VerdictRequest:
    if options.signing is None or not options.signing.needs_verdict:
        return _select(options, check_mode)
    # imported late: most tasks have no keys
    from .signed import VerdictNeeded

    try:
        return _select(options, check_mode)
    except VerdictNeeded:
        return VerdictRequest()


def _select(options: Options, check_mode: bool) -> Outcome | UploadRequest:
    deadline = time.monotonic() + options.lock_timeout
    with contextlib.closing(options.origin.open(options)) as source:
        known = _recall(options, check_mode, source)
        if known is not None:
            return known
        # a source may have verified the index of that digest without holding it
        digest = None if source.pinned == options.digest else options.digest
        image = select_image(source, options.ref, digest, options.platform)
        while True:
            with open_target(options, check_mode) as target:
                outcome = _provision_selected(target, source, image)
            if outcome is not None:
                return outcome
            if time.monotonic() > deadline:
                raise RootfsError(
                    f"another run sends an image for {show(options.dest)} and was not done after"
                    f" {options.lock_timeout:g} seconds; wait for it or raise lock_timeout"
                )
            time.sleep(_POLL_SECONDS)


def _recall(options: Options, check_mode: bool, source: Source) -> Outcome | None:
    """Return the outcome if the record alone shows that the image of a registry is there; else ``None``."""
    recall = options.origin.recall(source)
    needs_layers = options.verifying is not None and options.verifying.needs_layers
    if recall is None or needs_layers:
        return None
    with open_target(options, check_mode) as target:
        require_stageable(target)
        record = target.load()
        require_ours(target, record)
        require_plain(target, record)
        plan = recall(target, record)
        if plan is None or not _is_recorded_as_signed(options, plan):
            _require_verdict(options)
            return None
        return t.cast("Outcome", _finish(target, plan))


def _require_verdict(options: Options) -> None:
    """Let the controller read the documents first, so that the node asks a registry for approved ones alone."""
    if options.signing is not None and options.signing.needs_verdict:
        from .signed import VerdictNeeded

        raise VerdictNeeded


def _is_recorded_as_signed(options: Options, plan: KnownPlan) -> bool:
    """Return whether the record of an existing tree shows the signatures that the task asks for."""
    tree = plan.current if isinstance(plan, Unchanged) else plan.staged
    return options.signing is None or options.signing.policy.is_met_by(tree.signers)


def _provision_selected(target: Target, source: Source, image: Image) -> Outcome | UploadRequest | None:
    require_stageable(target)
    record = target.load()
    require_ours(target, record)
    require_plain(target, record)
    selection = selection_of(target.options, source, image)
    wanted = to_wanted(source, image, target.options, selection, _form_of(target, record))
    return _finish(target, plan_image(target, record, wanted))


def _form_of(target: Target, record: Record) -> str:
    """Return how the tree will share its layers, empty for a tree of its own."""
    if not target.options.store_dir:
        return ""
    # imported late: most nodes have no store
    from .sharing import form_of

    return form_of(target, record)


def _finish(target: Target, plan: ImagePlan) -> Outcome | UploadRequest | None:
    """Check the plan, then carry it out; a run that may not write predicts its outcome."""
    if target.options.signing is not None:
        # imported late: most tasks have no keys
        from .signed import require_signatures

        plan = require_signatures(target, target.options.signing, plan)
    warnings = check_plan(target, plan)
    if target.options.verifying is not None and isinstance(plan, Unchanged):
        # imported late: most tasks compare nothing
        from .drift import verify_and_repair

        return verify_and_repair(target, plan, warnings)
    # imported late: a run needs one of the two
    if target.dest.writable:
        from .carry_out import carry_out

        return carry_out(target, plan, warnings)
    from .predict import predict

    return predict(target, plan, warnings)
