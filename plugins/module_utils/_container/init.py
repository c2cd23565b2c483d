# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell whether the first process of a container is a systemd that the node's systemd-run reaches."""

from __future__ import annotations

import os
import stat

from .._errors import RootfsError
from .lookup import look_up

# Without D-Bus nothing from outside tells it what to run.
_BUS = (b"/usr/lib/systemd/system/dbus.socket", b"/lib/systemd/system/dbus.socket")


def is_systemd(root: int, program: str) -> bool:
    """Return whether the program at an absolute path in a root, often a link, is systemd, and has D-Bus beside it.

    Raises ``OSError``.
    """
    if not program.startswith("/") or "\0" in program:
        return False
    is_named = _file(root, os.fsencode(program)).rpartition(b"/")[2] == b"systemd"
    return is_named and any(_file(root, path) for path in _BUS)


def _file(root: int, path: bytes) -> bytes:
    """Return the path of a regular file without links, empty if there is none."""
    try:
        with look_up(root, path) as found:
            return b"" if found.missing or not stat.S_ISREG(found.mode) else found.path
    except RootfsError:
        # a loop of links, or a path through a file
        return b""
