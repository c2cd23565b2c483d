# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is recorded of a snapshot."""

from __future__ import annotations

import json
import re
import typing as t
from dataclasses import asdict, dataclass, field

from .._errors import ImageError
from .._image.digest import Digest
from .._layer.budget import COUNTS
from .._rootfs.told import Told

# Increased when snapshots of another form must not be used.
_FORMAT = 1
_NAME = re.compile(r"[0-9a-z]{1,16}\Z")
_LARGEST = 256 * 1024 * 1024


@dataclass(frozen=True)
class Snapshot:
    """A layer on top of its ``parent``, the name of another snapshot, or empty for the lowest one.

    ``digests`` are those of blobs that were verified to give its ``diff_id``: it is used only for a manifest that names one
    of them. One that holds all layers of an image has the chain of their digests. ``told`` is what unpacking has told.
    ``gzip`` has the library that inflated each of these blobs, if they were compressed by gzip.
    """

    key: str
    name: str
    parent: str
    diff_id: str
    digests: tuple[str, ...]
    told: Told
    options: dict[str, t.Any] = field(default_factory=dict)
    gzip: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the snapshot as it is stored."""
        return json.dumps({"format": _FORMAT, **asdict(self)}).encode("ascii")


def from_json(data: bytes, key: str) -> Snapshot | None:
    """Parse a stored snapshot; return ``None`` if it is damaged or of another version."""
    try:
        value = json.loads(data)
        told = Told(**{name: dict(value["told"][name]) for name in ("report", "budget", "candidates")})
        found = Snapshot(
            str(value["key"]),
            str(value["name"]),
            str(value["parent"]),
            str(Digest(str(value["diff_id"]))),
            tuple(str(Digest(str(digest))) for digest in value["digests"]),
            told,
            dict(value["options"]),
            {str(digest): str(library) for digest, library in dict(value["gzip"]).items()},
        )
    except (ValueError, KeyError, TypeError, RecursionError, ImageError):
        return None
    names = [found.name, *([found.parent] if found.parent else [])]
    is_sound = value.get("format") == _FORMAT and found.key == key and all(map(is_name, names))
    is_counted = set(told.budget) == set(COUNTS) and all(map(_is_count, told.budget.values()))
    return found if is_sound and is_counted else None


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a snapshot."""
    return _NAME.match(text) is not None


def _is_count(value: t.Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def read_bounded(file: t.BinaryIO) -> bytes:
    """Read a stored snapshot, whose size is bounded."""
    return file.read(_LARGEST)
