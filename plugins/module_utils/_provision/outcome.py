# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The outcome of a run."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .._native_path import task_path


@dataclass(frozen=True)
class VerdictRequest:
    """The outcome of a run that needs to know from the controller which images are signed; it has changed nothing."""

    def to_result(self) -> dict[str, t.Any]:
        """Return what is told with it, nothing."""
        return {}


@dataclass(frozen=True)
class UploadRequest:
    """The ``blobs`` that the controller should send, by name and size in bytes, into ``folder``.

    ``folder`` is ``None`` when the user who logs in can get none: his own temporary folder is used instead.
    """

    folder: str | None
    blobs: dict[str, int]

    def to_result(self) -> dict[str, t.Any]:
        """Return what the action plugin parses."""
        blobs = [{"name": name, "size": size} for name, size in self.blobs.items()]
        return {"folder": task_path(self.folder), "blobs": blobs}


@dataclass(frozen=True)
class Outcome:
    """What a run did, or would do in check mode (docs/behaviour.md, section 8).

    ``facts`` describe the image and the tree; they are empty for a dest that is absent.
    """

    changed: bool
    dest: str
    facts: dict[str, t.Any] = field(default_factory=dict)
    diff: dict[str, t.Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_result(self) -> dict[str, t.Any]:
        """Return the module's result, with ``warnings`` in it."""
        return {
            "changed": self.changed,
            "dest": self.dest,
            **self.facts,
            "diff": self.diff,
            "warnings": list(self.warnings),
        }
