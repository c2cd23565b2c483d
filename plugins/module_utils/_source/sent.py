# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blobs in an upload folder: one file each, or several small ones in a bundle.

A bundle is one line of JSON with names and sizes, followed by the blobs. Every file costs a command of the
connection, which takes longer than the small blob itself (docs/behaviour.md, section 7).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import typing as t
from dataclasses import dataclass

from .._errors import SourceError
from .._fs.descriptors import closed_on_error
from .range_reader import OPEN_FLAGS, FileAccess, RangeReader

_BLOB = re.compile(r"blobs/(sha256/[0-9a-f]{64}|sha512/[0-9a-f]{128})\Z")
_BUNDLE = re.compile(r"bundle-[0-9a-f]{64}\Z")

# An upload folder's name is this prefix and 32 random hexadecimal digits.
UPLOAD_PREFIX = ".oci_rootfs-"
_UPLOAD = re.compile(re.escape(UPLOAD_PREFIX) + r"[0-9a-f]{32}\Z")
_LONGEST_PATH = 4096

# Fixed limits: the first line of a bundle in bytes, and how many bundles of one folder are read.
BUNDLE_HEAD = 64 * 1024
_MOST_BUNDLES = 256


@dataclass(frozen=True)
class SentBlob:
    """A blob of ``size`` bytes at ``offset`` of ``file``, in the folder with the descriptor ``folder``."""

    folder: int
    file: str
    offset: int
    size: int

    def open(self) -> RangeReader | None:
        """Open the blob; return ``None`` when it is no longer complete."""
        access = _open(self.folder, self.file)
        if access is None:
            return None
        try:
            return RangeReader(access, self.offset, self.size, owned=True)
        except SourceError:
            access.close()
            return None


def blob_digest(name: str) -> str | None:
    """Return the digest in a blob's name, or ``None`` for other names, such as those of old Docker archives."""
    match = _BLOB.match(name)
    return None if match is None else match.group(1).replace("/", ":")


def upload_name(name: str) -> str:
    """Return the file name of a sent blob, on both sides; whatever the archive calls it, this name is harmless."""
    digest = blob_digest(name)
    if digest is not None:
        return digest.replace(":", "-")
    return "member-" + hashlib.sha256(os.fsencode(name)).hexdigest()


def is_plain_path(path: str) -> bool:
    """Return whether a path is safe to pass to the connection's programs, which parse it.

    sftp reads its commands line by line and has its own rules for quotes: with quotes, backslashes and control
    characters, a path can add commands that run on the controller. A plain path is also absolute and without ``.`` and
    ``..``.
    """
    if not path.startswith("/") or "//" in path or len(path) > _LONGEST_PATH:
        return False
    if not path.isprintable() or any(quote in path for quote in "'\"`\\"):
        return False
    return not {".", ".."} & {*path.split("/")}


def is_upload_path(path: str) -> bool:
    """Return whether a path can be that of an upload folder."""
    return is_plain_path(path) and _UPLOAD.match(path.rpartition("/")[2]) is not None


def bundle_name(names: t.Sequence[str]) -> str:
    """Return the file name of the bundle with these blobs, in this order."""
    return "bundle-" + hashlib.sha256(os.fsencode("\0".join(names))).hexdigest()


def bundle_head(sizes: t.Mapping[str, int]) -> bytes:
    """Return the first line of a bundle: file names and sizes in bytes of its blobs."""
    items = [[upload_name(name), size] for name, size in sizes.items()]
    return json.dumps(items, separators=(",", ":")).encode("ascii") + b"\n"


def find_sent(folder: int, sizes: t.Mapping[str, int]) -> dict[str, SentBlob]:
    """Find the blobs of these names and sizes that are complete in an upload folder.

    The user who sends owns the folder, so its content is untrusted: only regular files with one name are opened,
    without following links or blocking, and the caller verifies the digests.
    """
    found = {}
    wanted = {}
    for name, size in sizes.items():
        file = upload_name(name)
        if _size(folder, file) == size:
            found[name] = SentBlob(folder, file, 0, size)
        else:
            wanted[file] = name
    if wanted:
        bundles = [file for file in os.listdir(folder) if _BUNDLE.match(file)]
        for bundle in sorted(bundles)[:_MOST_BUNDLES]:
            for file, sent in _contents(folder, bundle).items():
                name = wanted.get(file, "")
                if name and sent.size == sizes[name]:
                    found.setdefault(name, sent)
    return found


def _contents(folder: int, bundle: str) -> dict[str, SentBlob]:
    """Return the complete blobs of a bundle by their file names; empty when it cannot be read."""
    access = _open(folder, bundle)
    if access is None:
        return {}
    with contextlib.closing(access):
        try:
            head, newline, _rest = access.read_at(0, BUNDLE_HEAD).partition(b"\n")
            offset = len(head) + len(newline)
            contents = {}
            for file, size in json.loads(head):
                if isinstance(size, bool) or not isinstance(size, int):
                    break
                # the transfer was cut off within this blob
                if not 0 <= size <= access.size - offset:
                    break
                contents[str(file)] = SentBlob(folder, bundle, offset, size)
                offset += size
            return contents
        except (SourceError, ValueError, TypeError, RecursionError):
            return {}


def _size(folder: int, file: str) -> int | None:
    access = _open(folder, file)
    if access is None:
        return None
    access.close()
    return access.size


def _open(folder: int, file: str) -> FileAccess | None:
    try:
        fd = os.open(file, OPEN_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    except OSError:
        return None
    with closed_on_error(fd):
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            return FileAccess(file, fd)
    os.close(fd)
    return None
