# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find all images of a source: in nested indexes and in Docker's manifest.json (docs/behaviour.md, sections 1 and 2)."""

from __future__ import annotations

import typing as t

from .._errors import ImageError, SourceChangedError, SourceError, show
from . import documents
from .candidate import INDEX_JSON, MANIFEST_JSON, Candidate
from .index_walk import IndexWalk
from .saved import join, saved_candidates
from .._source.source import Source

_LAYOUT_VERSION = "1.0.0"


def find_candidates(source: Source) -> list[Candidate]:
    """Return all images in the order of the archive, each once. Raises ``ImageError``, ``SourceError``.

    If one of the two lists cannot be read, the other one serves.
    """
    problems: list[ImageError | SourceError] = []
    found = _list(source, INDEX_JSON, _indexed, problems)
    saved = _list(source, MANIFEST_JSON, saved_candidates, problems)
    if not found and not saved:
        if problems:
            raise problems[0]
        if source.size_of(INDEX_JSON) is None and source.size_of(MANIFEST_JSON) is None:
            raise ImageError(
                f"{show(source.path)} is not an image archive: it has neither index.json nor manifest.json"
            )
    return join(source, found, saved)


def passed_over(source: Source) -> dict[str, int]:
    """Return what index.json lists beside images, for a message, with the numbers of each kind."""
    walk = IndexWalk(source)
    try:
        if source.size_of(INDEX_JSON) is not None:
            walk.candidates()
    except (ImageError, SourceError):
        # the message speaks of what was found until then
        pass
    return walk.passed_over


def _list(
    source: Source, name: str, read: t.Callable[[Source], list[Candidate]], problems: list[ImageError | SourceError]
) -> list[Candidate]:
    """Return the images that a document lists, none if it is missing or damaged, which is added to ``problems``."""
    try:
        return [] if source.size_of(name) is None else read(source)
    except SourceChangedError:
        raise
    except (ImageError, SourceError) as error:
        problems.append(error)
        return []


def _indexed(source: Source) -> list[Candidate]:
    _check_layout(source)
    return IndexWalk(source).candidates()


def _check_layout(source: Source) -> None:
    if source.size_of("oci-layout") is None:
        return
    value = documents.parse_object(source.document("oci-layout"), "oci-layout")
    version = documents.text(value, "imageLayoutVersion", "oci-layout")
    if version != _LAYOUT_VERSION:
        raise ImageError(f"oci-layout has the unsupported version {show(version or '')}: expected {_LAYOUT_VERSION}")
