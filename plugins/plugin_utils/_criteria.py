# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Select the images that a task may mean, as far as the controller can tell, and list only these.

A node learns nothing about other images of the source (docs/behaviour.md, section 7): neither their documents and
layers nor their descriptors in an index.
"""

from __future__ import annotations

import base64
import json
import typing as t
from dataclasses import dataclass

from ..module_utils._errors import ImageError, SourceError, show
from ..module_utils._image.candidates import find_candidates
from ..module_utils._image.digest import Digest
from ..module_utils._image.platform import Platform, parse_platform
from ..module_utils._image.loading import load
from ..module_utils._image.selection import asked_in_words, by_digest, by_ref, no_image, require_readable, select
from ..module_utils._source.source import DOCUMENT_LIMIT

if t.TYPE_CHECKING:
    from ..module_utils._image.candidates import Candidate
    from ..module_utils._image.descriptor import Descriptor
    from ..module_utils._source.source import Source

_REF = "org.opencontainers.image.ref.name"


@dataclass(frozen=True)
class Criteria:
    """The options of a task that select an image; ``None`` for those that are not set."""

    ref: str | None = None
    digest: str | None = None
    platform: Platform | None = None

    @property
    def key(self) -> str:
        """Return a text that is different for different criteria."""
        return json.dumps([self.ref, self.digest, str(self.platform or "")])


@dataclass(frozen=True)
class Choice:
    """The candidates that a node may choose from; ``pinned`` is the digest of the index that lists all of them."""

    candidates: tuple[Candidate, ...]
    pinned: str = ""


def parse_criteria(args: t.Mapping[str, t.Any]) -> Criteria:
    """Parse the criteria in a task's arguments, as the module does. Raises ``ImageError``."""
    ref, digest, platform = (
        str(args[name]) if args.get(name) not in (None, "") else None for name in ("ref", "digest", "platform")
    )
    return Criteria(ref, digest, parse_platform(platform) if platform else None)


def choose(source: Source, criteria: Criteria) -> Choice:
    """Return all candidates that a node may choose. Raises ``ImageError`` and ``SourceError`` as on a node."""
    candidates = find_candidates(source)
    if criteria.platform is not None:
        # the choice is the same on every node
        one = select(source, candidates, criteria.ref, criteria.digest, criteria.platform)
        return _choice([one.candidate], criteria.digest)
    chosen = by_ref(candidates, criteria.ref)
    if criteria.digest is None:
        chosen = [candidate for candidate in chosen if _may_be_image(source, candidate)]
    else:
        chosen = by_digest(source, chosen, Digest(criteria.digest, "the option digest"))
    chosen = require_readable(chosen)
    if not chosen and (criteria.ref or criteria.digest):
        asked = asked_in_words(criteria.ref, criteria.digest, None)
        raise no_image(source, candidates, asked, with_digests=criteria.digest is not None)
    return _choice(chosen, criteria.digest)


def entrances(candidates: t.Iterable[Candidate], path: str) -> dict[str, bytes]:
    """Make ``index.json`` and ``manifest.json`` for these candidates only. Raises ``SourceError``."""
    items: list[t.Any] = []
    saved: list[t.Any] = []
    for candidate in candidates:
        if candidate.manifest is None:
            saved.append(_saved_item(candidate, candidate.refs))
            continue
        if candidate.saved is not None:
            # the same image in the other list, whose layers may be the right ones
            saved.append(_saved_item(candidate, ()))
        item = _item(candidate.manifest, candidate.platform)
        # a manifest with several names is listed once for each, and merged again on the node
        names = [{"annotations": {_REF: ref}} for ref in candidate.refs]
        items += [{**item, **name} for name in names or [{}]]
    packed = {}
    if items or not saved:
        packed["index.json"] = _pack({"manifests": items})
    if saved:
        packed["manifest.json"] = _pack(saved)
    for name, data in packed.items():
        if len(data) > DOCUMENT_LIMIT:
            raise SourceError(
                f"{show(path)} has too many images and names for one offer: {name} would have {len(data)} bytes, more than"
                f" {DOCUMENT_LIMIT}, a fixed limit; choose fewer by ref, digest or platform"
            )
    return packed


def _choice(chosen: t.Sequence[Candidate], digest: str | None) -> Choice:
    """Return the choice. An index is not offered, because it lists other images; its digest is passed on instead."""
    is_index = digest is not None and any(digest in candidate.via for candidate in chosen)
    return Choice(tuple(chosen), digest if digest and is_index else "")


def _saved_item(candidate: Candidate, refs: t.Iterable[str]) -> dict[str, t.Any]:
    """Return an item of manifest.json, without unknown fields."""
    saved = candidate.saved
    own = {} if saved is None else {"Config": saved.config, "Layers": saved.layers}
    return {**own, "RepoTags": list(refs)}


def _may_be_image(source: Source, candidate: Candidate) -> bool:
    """Return false for artifacts, and true for broken images: the node that would choose one reports the error."""
    try:
        return not candidate.present or bool(load(source, [candidate]))
    except (ImageError, SourceError):
        return True


def _item(manifest: Descriptor, platform: Platform | None) -> dict[str, t.Any]:
    """Return a descriptor for an index, without annotations and unknown fields."""
    item: dict[str, t.Any] = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size}
    if platform is not None:
        item["platform"] = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
    if manifest.data is not None:
        item["data"] = base64.b64encode(manifest.data).decode("ascii")
    return item


def _pack(value: t.Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
