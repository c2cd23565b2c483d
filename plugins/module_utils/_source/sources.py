# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Open a source; its content decides which form it has (docs/behaviour.md, section 1).

The forms other than a plain archive are imported late: a node compiles the code anew for every task.
"""

from __future__ import annotations

import os
import stat
import typing as t

from .._errors import SourceError, os_phrase, show
from .archive import HEAD_SIZE, Archive, require_tar
from .magic import detect
from .range_reader import FileAccess
from .source import DEFAULT_MAX_SIZE, Source, cannot_open
from .tar_header import BLOCK, is_tar
from .._remote.url import is_url

if t.TYPE_CHECKING:
    from .._remote.options import HttpOptions


def missing_source(path: str) -> SourceError | None:
    """Return the error for a src that does not exist but is an image's name; None if it looks like a path."""
    from .foreign import of_missing

    meant = of_missing(path)
    return None if meant is None else SourceError(f"src {show(path)} is {meant.what}; {meant.advice}")


def open_source(path: str, http: HttpOptions | None = None, max_size: int = DEFAULT_MAX_SIZE) -> Source:
    """Open the image at a path or URL; its content decides which form it has. Raises ``SourceError``.

    ``max_size`` bounds the content of an archive that cannot be read in place, in bytes.
    """
    if is_url(path):
        from .._remote.options import HttpOptions
        from .remote import open_remote

        return open_remote(path, http or HttpOptions(), max_size)
    try:
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError as error:
        raise missing_source(path) or cannot_open(path, os_phrase(error)) from error
    except OSError as error:
        raise cannot_open(path, os_phrase(error)) from error
    except ValueError as error:
        raise cannot_open(path, "it contains a NUL or undecodable characters") from error
    if is_directory:
        from .directory import LayoutDirectory

        return LayoutDirectory(path)
    access = FileAccess(path)
    try:
        head = access.read_at(0, BLOCK)
        kind = detect(head)
        if kind is not None:
            from .compressed import CompressedArchive

            return CompressedArchive(path, access, kind, max_size)
        require_tar(path, head if is_tar(head) else access.read_at(0, HEAD_SIZE))
        return Archive(path, access)
    except BaseException:
        access.close()
        raise
