# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""List all images of a source for the user, broken ones with their problem."""

from __future__ import annotations

import typing as t

from .._errors import ImageError, SourceChangedError, SourceError
from .candidates import Candidate, find_candidates
from .digest import Digest
from .platform import Platform
from .loading import load, to_image
from .selection import by_ref
from .._source.source import Source


def list_images(
    source: Source, ref: str | None, digest: str | None, platform: Platform | None
) -> list[dict[str, t.Any]]:
    """List the matching images, with the keys of oci_image_info. Raises ``ImageError``, ``SourceError``."""
    if digest is not None:
        digest = Digest(digest, "the option digest")
    listed = []
    for candidate in by_ref(find_candidates(source), ref):
        declared = candidate.platform
        if platform is not None and declared is not None and platform.rank_of(declared) is None:
            # its documents would have to be fetched
            continue
        item = _describe(source, candidate)
        if item is None:
            continue
        own = item.pop("own_platform")
        if platform is not None and (own is None or platform.rank_of(own) is None):
            continue
        digests = (item["manifest_digest"], item["config_digest"], *candidate.via)
        if digest is not None and digest not in digests:
            continue
        listed.append(item)
    return listed


def _describe(source: Source, candidate: Candidate) -> dict[str, t.Any] | None:
    """Return the item of an image, or None for an artifact."""
    manifest = candidate.manifest
    item: dict[str, t.Any] = {
        "refs": list(candidate.refs),
        "own_platform": candidate.platform,
        "platform": candidate.platform.name if candidate.platform else None,
        "present": candidate.present,
        "manifest_digest": str(manifest.digest) if manifest is not None else None,
        "config_digest": None,
        "layers": None,
        "image": None,
        "warnings": [],
        "problem": None,
    }
    try:
        loaded = load(source, [candidate])
        if not loaded:
            return None if candidate.present else item
        item["config_digest"] = str(loaded[0].config_digest)
        item["own_platform"] = loaded[0].platform
        item["platform"] = loaded[0].platform.name
        item["image"] = loaded[0].config.to_facts()
        image = to_image(source, loaded[0])
        item["layers"] = [layer.to_result() for layer in image.layers]
        item["warnings"] = list(image.warnings)
    except SourceChangedError:
        raise
    except (ImageError, SourceError) as error:
        # one broken image must not hide the others
        item["problem"] = error.message
    return item
