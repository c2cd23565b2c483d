# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run that finds at dest the tree that is asked for, and compares it with its image (docs/behaviour.md, section 17)."""

from __future__ import annotations

import contextlib
import time
import typing as t
from dataclasses import replace

from .._drift.compare import Compared
from .._drift.findings import CONTENT, Drift
from .._drift.options import PATHS, RECREATE, Verifying
from .._drift.proven import Proven
from .._errors import OciError, RootfsError, show
from .._source.source import Spooled
from .._unpack import DamagedEntry, Kept
from .cache import open_cache
from .carry_out import carry_out
from .origin import Arrival, Missing
from .outcome import Outcome
from .plan import Unchanged, Unpack, WantedImage
from .predict import predict
from .reread import Reread
from .target import Target
from .verify import Basis, compare_metadata, not_verifiable, note_proven, now_at, opening, read_basis

if t.TYPE_CHECKING:
    from .outcome import UploadRequest

_NOT_SPOOLED = "its archive is compressed as a whole, which check mode does not unpack"


def verify_and_repair(target: Target, plan: Unchanged, warnings: t.Sequence[str]) -> Outcome | UploadRequest | None:
    """Compare the tree with its image, and repair what the task asks for.

    Returns the outcome, or the blobs to upload first; ``None`` while another run uploads to the same dest. Raises ``OciError``.
    """
    verifying = t.cast(Verifying, target.options.verifying)
    basis = read_basis(
        target.dest, plan.current, verifying.exclusions, target.replacement.names_apart(target.dest.load())
    )
    if isinstance(basis, str):
        return _told(_unchanged(target, plan, warnings), not_verifiable(verifying, basis), target)
    began = time.monotonic()
    compared = compare_metadata(target.dest, basis, verifying)
    drift = compared.drift
    if not (verifying.level == CONTENT or (drift.needs_repair and verifying.repair == PATHS)):
        return _act(target, plan, warnings, drift)
    with _open_layers(target, plan) as layers:
        if isinstance(layers, Missing):
            if not layers.why:
                return layers.request
            if verifying.level == CONTENT:
                drift.level, drift.not_verifiable = CONTENT, layers.why
            return _act(target, plan, warnings, drift)
        if verifying.level == CONTENT:
            reading = now_at(target.dest) if target.dest.writable else 0
            compared = _with_contents(target, basis, compared, layers, began + verifying.timeout)
            if target.dest.writable:
                note_proven(target.dest, plan.current, basis, _proven(compared, reading))
        return _act(target, plan, warnings, compared.drift, (basis, compared, layers))


def _with_contents(target: Target, basis: Basis, compared: Compared, layers: Reread, until: float) -> Compared:
    # imported late: metadata needs no layers
    from .._drift.content import compare_contents

    while True:
        with opening(target.dest) as top:
            try:
                compare_contents(top, compared, basis.looks, layers, until)
            except DamagedEntry:
                # it is gone from the cache, and comes from the source now
                compared = compare_metadata(target.dest, basis, t.cast(Verifying, target.options.verifying))
                continue
            except OciError as error:
                compared.drift.not_verifiable = f"its layers cannot be read: {error.message}"
            return compared


def _proven(compared: Compared, reading: int) -> Proven:
    """Return the suspects whose content is the image's, and which were touched before it was read."""
    # one that is touched while it is read, or a moment later, may have the same times
    return {
        number: times for number, times in compared.equal.items() if number in compared.suspects and times[1] < reading
    }


_Found = t.Tuple[Basis, Compared, Reread]


def _act(
    target: Target, plan: Unchanged, warnings: t.Sequence[str], drift: Drift, found: _Found | None = None
) -> Outcome | UploadRequest | None:
    """Repair what differs, or tell it."""
    verifying = t.cast(Verifying, target.options.verifying)
    warnings = [*warnings, *_warnings(target, drift)]
    if not drift.needs_repair or verifying.repair not in (PATHS, RECREATE):
        return _told(_unchanged(target, plan, warnings), drift, target)
    target.replacement.check_use()
    if verifying.repair == RECREATE:
        return _recreate(target, plan, warnings, drift)
    if not all(kind.is_whole for kind in drift.kinds.values()):
        raise RootfsError(
            f"too much of {show(target.dest.path)} has changed to be repaired path by path; set repair: recreate"
        )
    if target.dest.writable and found is not None:
        # imported late: few runs repair
        from .repair import repair_paths

        warnings += repair_paths(target, *found)
    return _told(replace(_unchanged(target, plan, warnings), changed=True), drift, target)


def _recreate(
    target: Target, plan: Unchanged, warnings: t.Sequence[str], drift: Drift
) -> Outcome | UploadRequest | None:
    if target.dest.location.is_mount:
        raise RootfsError(
            f"{show(target.dest.path)} is a mount point, where the tree that repair: recreate replaces cannot be kept; set"
            " repair: paths, or recreate: true"
        )
    wanted = t.cast(WantedImage, plan.wanted)
    unpack = Unpack(wanted, target.dest.load(), plan.current, plan.signers)
    replacing = replace(target, replacement=target.replacement.keeping_drifted())
    done = (carry_out if target.dest.writable else predict)(replacing, unpack, warnings)
    return _told(done, drift, target) if isinstance(done, Outcome) else done


def _unchanged(target: Target, plan: Unchanged, warnings: t.Sequence[str]) -> Outcome:
    done = (carry_out if target.dest.writable else predict)(target, plan, warnings)
    return t.cast(Outcome, done)


def _told(outcome: Outcome, drift: Drift, target: Target) -> Outcome:
    """Return the outcome with the findings; the side of the diff that has them is the one where they are."""
    verifying = t.cast(Verifying, target.options.verifying)
    side = "before" if outcome.changed else "after"
    lines = drift.to_lines()
    diff = {**outcome.diff, side: {**outcome.diff.get(side, {}), "drift": lines}} if lines else outcome.diff
    shown = {**drift.to_result(), "repair": verifying.repair if outcome.changed else None}
    return replace(outcome, facts={**outcome.facts, "drift": shown}, diff=diff)


def _warnings(target: Target, drift: Drift) -> t.Iterator[str]:
    path = show(target.dest.path)
    if drift.are_most_suspect:
        yield (
            f"most files of {path} were touched since it was unpacked, as after a backup was restored; only verify: content"
            " tells whether they have changed"
        )
    if drift.incomplete:
        yield f"{path} was not compared completely: {drift.incomplete}"
    if drift.not_verifiable:
        yield f"{path} could not be verified: {drift.not_verifiable}"


@contextlib.contextmanager
def _open_layers(target: Target, plan: Unchanged) -> t.Iterator[Reread | Missing]:
    """Open the layers of the image, from the cache, the source, or what the controller has sent. Raises ``OciError``."""
    wanted = t.cast(WantedImage, plan.wanted)
    source, image = wanted.source, wanted.image
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(open_cache(target, source))
        missing = stack.enter_context(target.options.origin.arrived(target, Arrival(source, image, cache)))
        if missing is not None:
            yield missing
            return
        if source.spooled_size is not None and not target.dest.writable:
            yield Missing(why=_NOT_SPOOLED)
            return
        state = target.dest.state
        blobs = stack.enter_context(contextlib.closing(Spooled(source, state)))
        partials = (
            stack.enter_context(target.options.origin.partials(target, source, image)) if target.dest.writable else None
        )
        reread = Reread(blobs, image.layers, target.options.unpack, Kept(cache, partials))
        yield reread
