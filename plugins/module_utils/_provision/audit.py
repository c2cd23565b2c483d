# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare a tree with its image for whoever only wants to know, and change nothing (docs/behaviour.md, section 17)."""

from __future__ import annotations

import contextlib
import time
import typing as t
from dataclasses import dataclass

from .._dest.dest import Dest
from .._dest.record import Record, Tree
from .._dest.replacement import Replacement
from .._drift.findings import CONTENT, Drift
from .._drift.options import Verifying
from .._errors import OciError, show
from .._image.image import Image
from .._image.platform import parse_platform
from .._image.selection import select_image
from .._registry.open import open_any
from .._source.source import DEFAULT_MAX_SIZE, Spooled
from .._unpack import Kept
from .reread import Reread
from .verify import compare_metadata, not_verifiable, opening, options_of, read_basis

if t.TYPE_CHECKING:
    from .._remote.options import HttpOptions

_BUSY = "another run is at work on it"
_NO_SOURCE = "contents need the image's layers; give src"


@dataclass(frozen=True)
class Audit:
    """What to compare, and where the layers are: ``src`` is empty if there is no source."""

    verifying: Verifying
    src: str = ""
    http: HttpOptions | None = None
    max_size: int = DEFAULT_MAX_SIZE


def is_at_work(how: Audit) -> Drift:
    """Return the result while another run changes the tree."""
    return not_verifiable(how.verifying, _BUSY)


def audit(dest: Dest, record: Record, tree: Tree, replacement: Replacement, how: Audit) -> Drift:
    """Return what differs. Raises ``RootfsError``, ``OSError``."""
    began = time.monotonic()
    basis = read_basis(dest, tree, how.verifying.exclusions, replacement.names_apart(record))
    if isinstance(basis, str):
        return not_verifiable(how.verifying, basis)
    compared = compare_metadata(dest, basis, how.verifying)
    drift = compared.drift
    if how.verifying.level == CONTENT:
        drift.level = CONTENT
        if not how.src:
            drift.not_verifiable = _NO_SOURCE
        else:
            # imported late: metadata needs no layers
            from .._drift.content import compare_contents

            until = began + how.verifying.timeout
            try:
                with _layers(dest, tree, how) as layers, opening(dest) as top:
                    compare_contents(top, compared, basis.looks, layers, until)
            except OciError as error:
                drift.not_verifiable = f"its layers cannot be read: {error.message}"
    if dest.load() != record:
        return is_at_work(how)
    return drift


@contextlib.contextmanager
def _layers(dest: Dest, tree: Tree, how: Audit) -> t.Iterator[Reread]:
    """Open the layers of a tree's image. Raises ``OciError`` if the source does not have them."""
    made = tree.fingerprint
    digest = str(made.get("manifest_digest") or made.get("config_digest"))
    platform = None
    with contextlib.suppress(OciError):
        platform = parse_platform(str(made.get("platform")))
    with contextlib.closing(open_any(how.src, how.http, how.max_size, digest)) as source:
        wanted = None if source.pinned == digest else digest
        image = select_image(source, None, wanted, platform)
        _require_same(image, tree, how.src)
        options = options_of(tree)
        with contextlib.closing(Spooled(source, dest.state)) as blobs:
            yield Reread(blobs, image, options, Kept())


def _require_same(image: Image, tree: Tree, src: str) -> None:
    diff_ids = [str(layer.diff_id) for layer in image.layers]
    if diff_ids != [layer.get("diff_id") for layer in tree.result.get("layers", [])]:
        raise OciError(f"{show(src)} has an image of that digest with other layers")
