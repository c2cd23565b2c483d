# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plain tar archive of images, read in place (docs/behaviour.md, section 1)."""

from __future__ import annotations

import typing as t

from .._errors import SourceError, show
from .range_reader import RandomAccess, RangeReader
from .source import LISTS, missing, read_document
from .tar_header import is_tar
from .tar_index import Member, TarIndex, index_tar

if t.TYPE_CHECKING:
    from .source import Source

# How much of a file shows what it is: ISO images have their mark behind 32 KiB.
HEAD_SIZE = 33 * 1024


class Archive:
    """A plain tar archive, read in place."""

    form = "archive"
    pinned = ""
    spooled_size: int | None = None

    def __init__(self, path: str, access: RandomAccess) -> None:
        self.path = path
        self.documents_size = 0
        self._access = access
        self._index = _index(access, path)
        require_list(self._index, path)

    def size_of(self, name: str) -> int | None:
        """Return the size of a member, or ``None`` if it is missing. Raises ``SourceError``."""
        member = self._index.find(name)
        return None if member is None else member.size

    def open(self, name: str) -> RangeReader:
        """Open a member in place. Raises ``SourceError``."""
        member = self._index.find(name)
        if member is None:
            raise missing(self.path, name)
        return self._reader(member)

    def _reader(self, member: Member) -> RangeReader:
        return RangeReader(self._access, member.offset, member.size)

    def document(self, name: str) -> bytes:
        """Return the content of a member. Raises ``SourceError``."""
        return read_document(self, name)

    def spool(self, directory: int) -> Source:
        """Return the archive itself: blobs can be read in place."""
        return self

    def close(self) -> None:
        """Close the file."""
        self._access.close()


def _index(access: RandomAccess, path: str) -> TarIndex:
    access.advise(False)
    index = index_tar(access.read_at, access.size, path)
    access.advise(True)
    return index


def require_tar(path: str, head: bytes, where: str = "") -> None:
    """Require that a tar begins with ``head``, of ``HEAD_SIZE`` bytes if possible. Raises ``SourceError``.

    ``where`` is added to the path in the message.
    """
    if is_tar(head):
        return
    # imported late, as below: only errors need it
    from .foreign import of_head

    what, advice = of_head(head)
    raise SourceError(f"src {show(path)} is not an image archive: it is {where}{what}; {advice}")


def require_list(index: TarIndex, path: str) -> None:
    """Require one of the lists that image archives have. Raises ``SourceError``."""
    if any(map(index.has, LISTS)):
        return
    from .foreign import of_names

    what, advice = of_names(index.names())
    raise SourceError(
        f"src {show(path)} is not an image archive: it is {what}, with neither index.json nor manifest.json; {advice}"
    )
