# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Blobs in the folder that they were sent to: a file each, or several small ones in a bundle.

A bundle is a line of JSON with names and sizes, and the blobs behind it. Each file costs a connection a
command, which takes longer than a small blob itself (docs/behaviour.md, section 7).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import typing as t
from dataclasses import dataclass

from .._errors import SourceError
from .range_reader import OPEN_FLAGS, FileAccess, RangeReader

_BLOB = re.compile(r"blobs/(sha256/[0-9a-f]{64}|sha512/[0-9a-f]{128})\Z")
_BUNDLE = re.compile(r"bundle-[0-9a-f]{64}\Z")

# How the folder on a node is named that blobs are sent to: this, and 32 random hexadecimal digits.
UPLOAD_PREFIX = ".oci_rootfs-"
_UPLOAD = re.compile(re.escape(UPLOAD_PREFIX) + r"[0-9a-f]{32}\Z")
_LONGEST_PATH = 4096

# Fixed limits: the line of a bundle in bytes, and how many bundles of a folder are looked at.
BUNDLE_HEAD = 64 * 1024
_MOST_BUNDLES = 256


@dataclass(frozen=True)
class Sent:
    """Where a blob lies: ``size`` bytes at ``offset`` of the ``file`` in the ``folder`` behind a descriptor."""

    folder: int
    file: str
    offset: int
    size: int

    def open(self) -> RangeReader | None:
        """A reader of the blob; ``None`` where it is not there as a whole any more."""
        access = _open(self.folder, self.file)
        if access is None:
            return None
        try:
            return RangeReader(access, self.offset, self.size, owned=True)
        except SourceError:
            access.close()
            return None


def blob_digest(name: str) -> str | None:
    """The digest that a file is named by; ``None`` for other names, as old Docker archives have them."""
    match = _BLOB.match(name)
    return None if match is None else match.group(1).replace("/", ":")


def upload_name(name: str) -> str:
    """The name of a sent blob in its folder, the same on both sides: a plain one, whatever the archive's is."""
    digest = blob_digest(name)
    if digest is not None:
        return digest.replace(":", "-")
    return "member-" + hashlib.sha256(os.fsencode(name)).hexdigest()


def is_plain_path(path: str) -> bool:
    """Return whether a path may be told to the other side, where programs of the connection parse it.

    sftp reads its commands line by line, and unquotes by rules of its own: quotes, backslashes and control characters in a
    path become further commands on the controller. A plain path is absolute and has neither ``.`` nor ``..`` in it.
    """
    if not path.startswith("/") or "//" in path or len(path) > _LONGEST_PATH:
        return False
    if not path.isprintable() or any(quote in path for quote in "'\"`\\"):
        return False
    return not {".", ".."} & {*path.split("/")}


def is_upload_path(path: str) -> bool:
    """Return whether a path is one that a node gives to a folder which it makes for blobs."""
    return is_plain_path(path) and _UPLOAD.match(path.rpartition("/")[2]) is not None


def bundle_name(names: t.Sequence[str]) -> str:
    """The name of the bundle with these blobs, in this order."""
    return "bundle-" + hashlib.sha256(os.fsencode("\0".join(names))).hexdigest()


def bundle_head(sizes: t.Mapping[str, int]) -> bytes:
    """What stands before the blobs of a bundle: their names in the folder, and sizes in bytes."""
    items = [[upload_name(name), size] for name, size in sizes.items()]
    return json.dumps(items, separators=(",", ":")).encode("ascii") + b"\n"


def find_sent(folder: int, sizes: t.Mapping[str, int]) -> dict[str, Sent]:
    """Where blobs of these names and sizes lie in a folder, as far as they are there.

    Whoever sends owns the folder, so nothing in it is believed: only regular files that have no second name are
    opened, nothing is followed or waited for, and what a blob holds is for the reader to verify.
    """
    found = {}
    wanted = {}
    for name, size in sizes.items():
        file = upload_name(name)
        if _size(folder, file) == size:
            found[name] = Sent(folder, file, 0, size)
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


def _contents(folder: int, bundle: str) -> dict[str, Sent]:
    """The blobs that a bundle holds as a whole, by their names in the folder; none where it cannot be read."""
    access = _open(folder, bundle)
    if access is None:
        return {}
    try:
        head, newline, _rest = access.read_at(0, BUNDLE_HEAD).partition(b"\n")
        offset = len(head) + len(newline)
        contents = {}
        for file, size in json.loads(head):
            # what arrived of a blob that is cut off is of no use
            if isinstance(size, bool) or not isinstance(size, int):
                break
            if not 0 <= size <= access.size - offset:
                break
            contents[str(file)] = Sent(folder, bundle, offset, size)
            offset += size
        return contents
    except (SourceError, ValueError, TypeError, RecursionError):
        return {}
    finally:
        access.close()


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
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(fd)
        return None
    return FileAccess(file, fd)
