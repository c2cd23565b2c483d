# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exceptions that carry one sentence for the user.

Every room raises only these for errors that an image, an option, a disk or a network can cause. Only the ``main`` of a
module turns them into ``fail_json``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import typing as t

# How much of a name is shown: its end, too, since that is what tells one path from another.
_SHOWN = 200
# How much a message holds: lists of names are bounded where they are made, and this is for what was forgotten.
_LONGEST_MESSAGE = 8192


def visible(text: bytes | str, limit: int) -> str:
    """Return foreign text for a message: in one line, with the middle cut out if it is too long.

    Everything that Unicode calls not printable is escaped: control characters (C0, C1, DEL), marks that change the
    direction of writing, characters without width, line separators. So are bytes that are not UTF-8. ``limit`` counts
    characters before they are escaped.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    elif sys.getfilesystemencoding() != "utf-8":
        # a path in the encoding of the locale; other text does not become UTF-8 by this
        with contextlib.suppress(UnicodeError):
            text = os.fsencode(text).decode("utf-8")
    if len(text) > limit:
        end = limit * 3 // 10
        text = f"{text[: limit - end]}...{text[-end:]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def show(name: bytes | str) -> str:
    """Return a foreign name, quoted and cut so that it fits into one line of a message."""
    return f"'{visible(name, _SHOWN)}'"


class OciError(Exception):
    """An error for the user; ``message`` is one sentence without control characters."""

    def __init__(self, message: str) -> None:
        self.message = visible(message, _LONGEST_MESSAGE)
        super().__init__(self.message)


class SourceError(OciError):
    """The archive, layout directory or file cannot be read."""


class SourceChangedError(SourceError):
    """The archive changed while it was read, so that it must be read again."""


class ImageError(OciError):
    """The documents of the image are invalid, or do not select one image."""


class LayerError(OciError):
    """A layer or one of its entries is invalid."""

    def __init__(self, what: str, layer: str, entry: bytes | None = None, advice: str = "") -> None:
        where = f"layer {layer}"
        if entry is not None:
            where += f", entry {show(entry)}"
        super().__init__(f"{where}: {what}" + (f"; {advice}" if advice else ""))
        self.layer = layer
        self.entry = entry


class EntryError(Exception):
    """An entry that cannot be applied; the caller adds the layer and the name of the entry."""

    def __init__(self, what: str, advice: str = "do not use this image, or build it without") -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice


class RootfsError(OciError):
    """The destination, its disk or an option does not allow what the task asks for."""


_DISK_FULL = {
    errno.ENOSPC: "the file system has no room left (blocks or inodes)",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file is larger than the file system allows",
}
_DISK_ADVICE = {
    errno.ENOSPC: "make room there and run again",
    errno.EDQUOT: "raise the quota or make room and run again",
    errno.EROFS: "mount it writable and run again",
    errno.EIO: "the disk or its connection fails: look at the kernel's log",
    errno.EMLINK: "the file system allows no more links to one file",
    errno.EPERM: "run as a user who may do this",
    errno.EACCES: "run as a user who may do this",
}


def os_phrase(error: OSError) -> str:
    """Return the reason of a system error, as a phrase."""
    code = error.errno or 0
    return _DISK_FULL.get(code) or (error.strerror or str(error)).lower()


def os_advice(error: OSError) -> str:
    """Return what the user can do about a system error; empty if that depends."""
    return _DISK_ADVICE.get(error.errno or 0, "")


class MissingLibraryError(OciError):
    """A Python library that this image needs is missing."""

    def __init__(self, library: str, why: str, details: t.Any = None) -> None:
        super().__init__(f"the Python library {library} is missing: {why}")
        self.library = library
        self.why = why
        self.details = details
