# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verify signatures on the node (docs/behaviour.md, section 12)."""

from __future__ import annotations

import typing as t

from .._image.candidates import find_candidates
from .._image.selection import select
from .._signed.judging import make_judge, parse_own_keys
from .._signed.verdict import Verdict
from .signed import VerdictNeeded

if t.TYPE_CHECKING:
    from .._signed.signing import Signing
    from .options import Options
    from .plan import Signers, WantedImage


def verified_signers(options: Options, signing: Signing, wanted: WantedImage) -> Signers:
    """Return who has signed an image, by the source itself. Raises ``OciError`` and ``VerdictNeeded``."""
    if signing.needs_verdict:
        raise VerdictNeeded
    image, source = wanted.image, wanted.source
    keys = parse_own_keys(signing)
    loaded = select(source, find_candidates(source), options.ref, options.digest, options.platform)
    approval = make_judge(source, keys, signing.policy, signing.paths).approve(loaded)
    # the source may have changed since the image was selected
    verdict = Verdict({str(loaded.identity): approval})
    return verdict.signers_of(str(image.manifest_digest or image.config_digest), str(image.platform))
