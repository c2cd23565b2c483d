# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read extended attributes of files that may change meanwhile."""

from __future__ import annotations

import errno
import os
import typing as t

_NONE = (errno.ENODATA, errno.ENOTSUP, errno.EOPNOTSUPP)


def list_xattrs(target: int | bytes) -> list[str]:
    """Return the names of the xattrs of a descriptor, or of a path without following it. Raises ``OSError``."""
    try:
        return os.listxattr(target) if isinstance(target, int) else os.listxattr(target, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NONE:
            return []
        raise


def read_xattrs(target: int | bytes, names: t.Iterable[str]) -> dict[str, bytes]:
    """Return those of the named xattrs that are there. Raises ``OSError``."""
    found = {}
    for name in names:
        try:
            raw = os.fsencode(name)
            if isinstance(target, int):
                found[name] = os.getxattr(target, raw)
            else:
                found[name] = os.getxattr(target, raw, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NONE:
                raise
    return found
