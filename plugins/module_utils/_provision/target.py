# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The dest of one run: open, locked, with the way to replace it."""

from __future__ import annotations

import contextlib
import os
import typing as t
from dataclasses import dataclass, replace

from .._dest.exchange import ExchangedDest
from .._dest.dest import Dest, lock_dest
from .._dest.dest_path import STACKS, DestPath, resolve_dest
from .._dest.reach import mapped_root
from .._dest.record import Record
from .._errors import RootfsError, show
from .options import Options

if t.TYPE_CHECKING:
    from .._dest.replacement import Replacement

# Directories made above dest are closed, because the image may hold setuid files for its own users. The
# container's mapped root passes by its group.
_CLOSED = 0o700
_FOR_GROUP = 0o710


@dataclass(frozen=True)
class Target:
    """The options, the locked dest, and the strategy that replaces its tree."""

    options: Options
    dest: Dest
    replacement: Replacement

    def load(self) -> Record:
        """Return the record; if the run may write, finish or undo first what an earlier run left."""
        record = self.dest.load()
        return self.replacement.recover(record) if self.dest.writable else record


def _require_uncovered(location: DestPath) -> None:
    """Require that no overlay is mounted over the stack that it consists of. Raises ``RootfsError``."""
    stacks = os.path.join(replace(location, is_mount=False).state_path, os.fsdecode(STACKS))
    if location.is_mount and os.path.exists(stacks):
        raise RootfsError(
            f"{show(location.path)} holds layers over which something is mounted; unmount it and run again, and mount the overlay"
            " of these layers elsewhere"
        )


@contextlib.contextmanager
def open_target(options: Options, check_mode: bool) -> t.Iterator[Target]:
    """Open and lock dest; in check mode nothing is made. Raises ``RootfsError``."""
    location = resolve_dest(options.dest)
    _require_uncovered(location)
    # nothing is made above a dest that is to be absent
    dry_run = check_mode or (not options.needs_image and not os.path.isdir(location.parent))
    root = mapped_root(options.unpack.uids, options.unpack.gids)
    mode, group = (_CLOSED, -1) if root is None else (_FOR_GROUP, root.gid)
    with lock_dest(location, options.lock_timeout, mode, dry_run, group) as dest:
        replacement: Replacement
        if location.is_mount:
            from .._dest.mounted import MountedDest

            replacement = MountedDest(dest, options.ignore_use)
        else:
            replacement = ExchangedDest(dest, options.ignore_use, options.keep)
        yield Target(options, dest, replacement)
