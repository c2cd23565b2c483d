# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""An image on the controller, laid ready for its nodes: the offer, and blobs as files, each made once.

Ansible serves nodes from forked processes, and a connection sends nothing but files. So what one fork has
carved from the archive lies in a folder of the controller's local tmp, locked, for the others to send. The
last fork that works on the image removes the blobs; the folder itself goes with Ansible's local tmp.

All that is sent is a copy in that folder, by a name of ours: a connection's programs parse the paths that they are
given, so none may be the image's. A hard link would save the copy of a layout's blob, but its owner could change it
after it was verified.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import types
import typing as t
from dataclasses import dataclass

from ..module_utils._errors import SourceError, os_phrase, show
from ..module_utils._source.directory import LayoutDirectory
from ..module_utils._source.offer import Offer, read_offer
from ..module_utils._source.sent import (
    BUNDLE_HEAD,
    blob_digest,
    upload_name,
    bundle_head,
    bundle_name,
)
from ..module_utils._source.source import DEFAULT_MAX_SIZE, missing
from ..module_utils._source.sources import open_source
from ..module_utils._source.verified import VerificationError, VerifiedReader
from ._offer import make_offer, pack

if t.TYPE_CHECKING:
    from ..module_utils._source.source import Source
    from ._criteria import Criteria

# An image is a new one when one of these changes.
_LOOKED_AT = ("", "index.json", "manifest.json")
# What to add to others in a file, in bytes, and how large that file may become: a lost connection loses all of it.
_SMALL = 512 * 1024
_LOAD = 4 * 1024 * 1024
# A name in a bundle's head, with its size.
_HEAD_ENTRY = 192


@dataclass(frozen=True)
class Bundle:
    """A file to send: from ``path`` here to the name ``file`` there, with the blobs ``names``."""

    file: str
    path: str
    names: tuple[str, ...]


class Staging:
    """What the task with this ``criteria`` may send of the image at ``path``, for as long as the context lasts.

    Tasks that criteria for others have offers of their own, and share the blobs. ``real_path`` gives the file to
    read: it is called only when something is to be made, since it may have to decrypt. ``local_tmp`` is a private
    folder of all forks. ``max_size`` bounds what an archive may hold that is compressed as a whole. Raises
    ``SourceError``, ``ImageError`` and ``MissingLibraryError``.
    """

    def __init__(
        self,
        path: str,
        real_path: t.Callable[[], str],
        local_tmp: str,
        criteria: Criteria,
        max_size: int = DEFAULT_MAX_SIZE,
    ) -> None:
        self._path = path
        self._criteria = criteria
        self._real_path = real_path
        self._max_size = max_size
        self._folder = os.path.join(local_tmp, f"hypervisor.oci-{_key(path)}")
        self._offer_name = f"offer-{_hashed(criteria.key)}"
        self._source: Source | None = None
        self._offer: Offer | None = None
        self._in_use = -1

    def __enter__(self) -> Staging:
        with self._disk():
            os.makedirs(self._folder, 0o700, exist_ok=True)
            self._in_use = self._lock("in-use", fcntl.LOCK_SH)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._close_source()
        with contextlib.suppress(OSError):
            # no other fork uses it: what took room can go, the offer is small
            fcntl.flock(self._in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in os.listdir(self._folder):
                if name.startswith(("sha", "member-", "bundle-", ".")):
                    os.unlink(os.path.join(self._folder, name))
        os.close(self._in_use)

    def offer(self) -> str:
        """The path of the offer's file."""
        path = os.path.join(self._folder, self._offer_name)
        with self._disk(), self._making():
            if not os.path.exists(path):
                offer = make_offer(self._open(), self._criteria)
                self._write(self._offer_name, iter([pack(offer)]))
        return path

    def sizes(self) -> dict[str, int]:
        """What can be asked for, by name, in bytes: layers of what was offered."""
        if self._offer is None:
            self._offer = read_offer(self.offer())[0]
        return self._offer.layers

    def bundles(self, names: t.Sequence[str]) -> t.Iterator[Bundle]:
        """Blobs as files to send, each carved as late as can be; small ones together, and first.

        Raises ``SourceError``, before anything is carved, for a name that is not among ``sizes()``.
        """
        sizes = self.sizes()
        for name in names:
            if name not in sizes:
                raise missing(self._path, name)
        loads = _loads({name: sizes[name] for name in names})
        if self._offer and self._offer.form == "compressed archive":
            # the stream is read once for all of them
            with self._disk(), self._making():
                for load in loads:
                    self._stage(load)
                self._close_source()
        for load in loads:
            with self._disk(), self._making():
                bundle = self._stage(load)
            yield bundle

    def _stage(self, names: tuple[str, ...]) -> Bundle:
        if len(names) == 1:
            return Bundle(upload_name(names[0]), self._stage_blob(names[0]), names)
        file = bundle_name(names)
        path = os.path.join(self._folder, file)
        if not os.path.exists(path):
            self._write(file, self._packed(names))
        return Bundle(file, path, names)

    def _packed(self, names: tuple[str, ...]) -> t.Iterator[bytes]:
        sizes = self.sizes()
        yield bundle_head({name: sizes[name] for name in names})
        source = self._readable()
        for name in names:
            yield from self._verified(source, name)

    def _stage_blob(self, name: str) -> str:
        path = os.path.join(self._folder, upload_name(name))
        if not os.path.exists(path):
            self._write(upload_name(name), self._verified(self._readable(), name))
        return path

    def _verified(self, source: Source, name: str) -> t.Iterator[bytes]:
        """The bytes of a blob; raises ``SourceError`` at the end where they are not what its name says.

        So a damaged archive costs no link a byte, and no link in a layout sends what is no blob.
        """
        digest = blob_digest(name)
        with contextlib.closing(source.open(name)) as reader:
            if reader.length != self.sizes()[name]:
                raise SourceError(
                    f"{show(name)} of {show(self._path)} has another size than a moment ago; run again when it is whole"
                )
            try:
                yield from VerifiedReader(reader, digest, None).chunks()
            except VerificationError as error:
                raise SourceError(
                    f"the blob {digest} of {show(self._path)} has content of another digest; the archive is damaged:"
                    " fetch it again"
                ) from error

    def _readable(self) -> Source:
        """The source, or a spool of it, from which blobs can be read."""
        source = self._open()
        if source.spooled_size is None:
            return source
        status = os.statvfs(self._folder)
        free = status.f_bavail * status.f_frsize
        if free < source.spooled_size:
            raise SourceError(
                f"{show(self._path)} needs {source.spooled_size} bytes when it is decompressed, and the file system of"
                f" {show(self._folder)} has {free} free; make room there, set local_tmp, or decompress the archive"
            )
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            spool = source.spool(fd)
        finally:
            os.close(fd)
        self._close_source()
        self._source = spool
        return spool

    def _open(self) -> Source:
        if self._source is None:
            self._source = open_source(self._real_path(), max_size=self._max_size)
            if isinstance(self._source, LayoutDirectory):
                self._source.confined = True
            else:
                # messages speak of the file that the user knows
                self._source.path = self._path
        return self._source

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _write(self, name: str, chunks: t.Iterator[bytes]) -> None:
        """A file that is there as a whole or not at all."""
        fresh = os.path.join(self._folder, f".{name}")
        try:
            with open(fresh, "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                for chunk in chunks:
                    file.write(chunk)
            os.rename(fresh, os.path.join(self._folder, name))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise

    @contextlib.contextmanager
    def _making(self) -> t.Iterator[None]:
        """One fork makes, the others wait for it and find what it made."""
        fd = self._lock("making", fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(fd)

    def _lock(self, name: str, how: int) -> int:
        path = os.path.join(self._folder, name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, how)
        except BaseException:
            os.close(fd)
            raise
        return fd

    @contextlib.contextmanager
    def _disk(self) -> t.Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SourceError(
                f"{show(self._path)} cannot be made ready for its nodes in {show(self._folder)}: {os_phrase(error)};"
                " look at the disks of both, or set local_tmp"
            ) from error


def _loads(sizes: t.Mapping[str, int]) -> list[tuple[str, ...]]:
    """What to send in one file each: small blobs together, as far as they go, and the others alone."""
    loads: list[tuple[str, ...]] = []
    load: list[str] = []
    weight = 0
    for name, size in sizes.items():
        if size > _SMALL:
            continue
        if weight + size > _LOAD or (len(load) + 1) * _HEAD_ENTRY > BUNDLE_HEAD:
            loads.append(tuple(load))
            load, weight = [], 0
        load.append(name)
        weight += size
    if load:
        loads.append(tuple(load))
    return loads + [(name,) for name, size in sizes.items() if size > _SMALL]


def _key(path: str) -> str:
    """A name for the image as it is now."""
    seen = [os.path.realpath(path)]
    for name in _LOOKED_AT:
        with contextlib.suppress(OSError):
            status = os.stat(os.path.join(path, name) if name else path)
            seen += [name, f"{status.st_dev} {status.st_ino} {status.st_size}"]
            seen += [f"{status.st_mtime_ns} {status.st_ctime_ns}"]
    return _hashed("\0".join(seen))


def _hashed(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]
