# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare the record of dest with the options: what has to change?"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._dest.dest import PARTIALS, UPLOADS, Dest
from .._dest.record import FORMAT, Record, Selection, Tree
from .._image.image import Image
from .._image.platform import node_platform
from .._source.source import Source
from .options import Options
from .target import Target

# Who has signed the image of a plan's tree, see ``Tree.signers``; a plan has ``None`` if the task does not ask.
Signers = t.Dict[str, t.List[str]]


@dataclass(frozen=True)
class Wanted:
    """What is asked for: the image's name, its warnings, and the fingerprint of the tree that it becomes.

    ``selection`` is how the image was chosen, for later runs to recognise it.
    """

    ref: str | None
    warnings: tuple[str, ...]
    fingerprint: dict[str, t.Any]
    selection: Selection


@dataclass(frozen=True)
class WantedImage(Wanted):
    """The same with the image and its source, from which it can be unpacked."""

    source: Source
    image: Image


@dataclass(frozen=True)
class DestState:
    """Everything that the private folder remembers, to compare before and after."""

    record: Record
    uploads: bytes | None
    partials: bool

    @classmethod
    def read(cls, dest: Dest) -> DestState:
        """Read the state from disk."""
        return cls(dest.load(), dest.read(UPLOADS), dest.has(PARTIALS))


@dataclass(frozen=True)
class Unchanged:
    """Dest holds the tree that is asked for."""

    wanted: Wanted
    record: Record
    current: Tree
    signers: Signers | None = None


@dataclass(frozen=True)
class AlreadyStaged:
    """The tree to stage is staged."""

    wanted: Wanted
    current: Tree | None
    staged: Tree
    signers: Signers | None = None


@dataclass(frozen=True)
class UseStaged:
    """Put the staged tree into dest."""

    wanted: Wanted
    record: Record
    current: Tree | None
    staged: Tree
    signers: Signers | None = None


@dataclass(frozen=True)
class Unpack:
    """Unpack the image, and unless it is to be staged, put its tree into dest."""

    wanted: WantedImage
    record: Record
    current: Tree | None
    signers: Signers | None = None


KnownPlan = t.Union[Unchanged, AlreadyStaged, UseStaged]
ImagePlan = t.Union[KnownPlan, Unpack]


def to_wanted(source: Source, image: Image, options: Options, selection: Selection, form: str = "") -> WantedImage:
    """Return the image with its fingerprint: what makes two runs the same (docs/behaviour.md, section 7).

    ``form`` is how the tree shares its layers, empty for a tree of its own.
    """
    fingerprint = {
        "format": FORMAT,
        "manifest_digest": image.manifest_digest,
        "config_digest": image.config_digest,
        "platform": str(image.platform),
        "options": options.unpack.to_fingerprint(),
        **({"form": form} if form else {}),
    }
    return WantedImage(image.ref, image.warnings, fingerprint, selection, source, image)


def plan_image(target: Target, record: Record, wanted: WantedImage) -> ImagePlan:
    """Plan the states ``present`` and ``staged``."""
    return plan_known(target, record, wanted) or Unpack(wanted, record, target.replacement.current(record))


def plan_known(target: Target, record: Record, wanted: Wanted) -> KnownPlan | None:
    """Plan the same states as far as an existing tree is enough; return ``None`` if the image has to be unpacked."""
    options = target.options
    current = target.replacement.current(record)
    if options.recreate:
        return None
    if current is not None and current.fingerprint == wanted.fingerprint:
        return Unchanged(wanted, record, current)
    staged = record.next
    if staged is None or staged.fingerprint != wanted.fingerprint or not target.replacement.has_staged(record):
        return None
    if options.state == "staged":
        return AlreadyStaged(wanted, current, staged)
    return UseStaged(wanted, record, current, staged)


def selection_of(options: Options, source: Source, image: Image) -> Selection:
    """Return how the image was chosen."""
    indexes = dict.fromkeys([source.pinned, *image.indexes])
    return Selection(
        platform=asked_platform(options),
        indexes=tuple(str(digest) for digest in indexes if digest and digest != image.manifest_digest),
        warnings=image.warnings,
        realms=options.origin.realms(source),
    )


def asked_platform(options: Options) -> str:
    """Return the platform that a task asks for, by default the node's own."""
    return str(options.platform or node_platform())
