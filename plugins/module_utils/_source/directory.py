# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image as files in a directory (docs/behaviour.md, section 1)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import typing as t

from .._errors import SourceError, os_phrase, show
from .._fs.descriptors import opened
from .range_reader import OPEN_FLAGS, FileAccess, RangeReader, as_regular
from .sent import blob_digest
from .source import ENTRANCES, cannot_open, clean, missing, read_document

if t.TYPE_CHECKING:
    from .source import Source

# As many links as the kernel follows in one lookup.
_MOST_LINKS = 40


class LayoutDirectory:
    """An image layout on disk, or an unpacked ``docker save`` archive.

    If ``confined``, a file whose name is not a digest is not read through a link out of the directory: the content is
    sent to other hosts, and whoever made the layout made its links.
    """

    form = "directory"
    pinned = ""
    confined = False
    spooled_size: int | None = None

    def __init__(self, path: str) -> None:
        self.path = path
        self.documents_size = 0
        if not any(map(self._is_there, ("index.json", "manifest.json"))):
            raise self._foreign()

    def size_of(self, name: str) -> int | None:
        """Return the size of a file, or ``None`` if it is missing. Raises ``SourceError``."""
        try:
            status = os.stat(self._path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            # the name contains a NUL or undecodable characters
            raise self._invalid_path(name) from error
        except OSError as error:
            raise SourceError(f"{show(self._path(name))} cannot be read: {os_phrase(error)}; check src") from error
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(f"{show(self._path(name))} is not a regular file; do not use this layout")
        return status.st_size

    def open(self, name: str) -> RangeReader:
        """Open a file, following links and without blocking. Raises ``SourceError``."""
        if self.size_of(name) is None:
            raise missing(self.path, name)
        access = FileAccess(self._path(name), self._confined(name))
        return RangeReader(access, 0, access.size, owned=True)

    def document(self, name: str) -> bytes:
        """Return the content of a file. Raises ``SourceError``."""
        return read_document(self, name)

    def spool(self, directory: int) -> Source:
        """Return the directory itself: blobs can be read in place."""
        return self

    def close(self) -> None:
        """Do nothing: every reader closes its own file."""

    def _foreign(self) -> SourceError:
        # imported late: only this error needs it
        from .foreign import of_directory

        try:
            what, advice = of_directory(self.path)
        except OSError as error:
            return cannot_open(self.path, os_phrase(error))
        return SourceError(
            f"src {show(self.path)} is not an image layout: it is {what}, with neither index.json nor manifest.json; {advice}"
        )

    def _confined(self, name: str) -> int | None:
        """Open a file that must be inside the directory; return ``None`` if it may be elsewhere."""
        if not self.confined or name in ENTRANCES or blob_digest(name) is not None:
            return None
        try:
            fd = open_beneath(self.path, clean(name))
        except OSError as error:
            raise cannot_open(self._path(name), os_phrase(error)) from error
        if fd is None:
            raise SourceError(
                f"{show(name)} of {show(self.path)} is a link out of the directory, and no digest says what the file must"
                " contain; do not send this layout"
            )
        return fd

    def _path(self, name: str) -> str:
        cleaned = clean(name)
        if ".." in cleaned.split("/"):
            raise self._invalid_path(name)
        return os.path.join(self.path, cleaned)

    def _is_there(self, name: str) -> bool:
        try:
            os.lstat(self._path(name))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise cannot_open(self.path, os_phrase(error)) from error
        return True

    def _invalid_path(self, name: str) -> SourceError:
        return SourceError(f"{show(self.path)}: {show(name)} is not a path inside it; do not use this layout")


def open_beneath(root: str, name: str) -> int | None:
    """Open a regular file below ``root``; return ``None`` if a link leads out. Raises ``OSError``, ``SourceError``."""
    pending = name.split("/")[::-1]
    links = 0
    with contextlib.ExitStack() as walk:
        above = [walk.enter_context(opened(os.open(root, OPEN_FLAGS | os.O_DIRECTORY)))]
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                above.pop()
                if not above:
                    return None
                continue
            try:
                fd = os.open(part, OPEN_FLAGS | os.O_NOFOLLOW, dir_fd=above[-1])
            except OSError as error:
                if error.errno != errno.ELOOP or links == _MOST_LINKS:
                    raise
                target = os.readlink(part, dir_fd=above[-1])
                if target.startswith("/"):
                    return None
                links += 1
                pending += target.split("/")[::-1]
                continue
            above.append(walk.enter_context(opened(fd)))
        return as_regular(os.dup(above[-1]), name)
