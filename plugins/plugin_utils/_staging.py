# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Stage an image on the controller for its nodes: write the offer and the blobs as files, each of them once.

Ansible serves nodes from forked processes, and a connection can send only files. So one fork extracts them into a
folder below Ansible's local temporary directory, under a lock, and the other forks send the same files. The last fork
that works on the image removes the blobs; Ansible removes the folder with its temporary directory.

Every blob is copied there and gets a generated name: a connection's programs parse the paths that they are given, so
these must not come from the image. A hard link would save the copy of a layout's blob, but the owner of the layout
could change it after it was verified.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import typing as t
from dataclasses import dataclass

from ..module_utils._errors import SourceError, os_phrase, show
from ..module_utils._fs.descriptors import closed_on_error, opened
from ..module_utils._fs.directories import DIRECTORY
from ..module_utils._source.directory import LayoutDirectory
from ..module_utils._source.offer import Offer, read_offer
from ..module_utils._source.sent import BUNDLE_HEAD, blob_digest, upload_name, bundle_head, bundle_name
from ..module_utils._source.source import DEFAULT_MAX_SIZE, missing
from ..module_utils._source.sources import open_source
from ..module_utils._source.verified import VerificationError, VerifiedReader
from ._offer import make_offer, pack
from ._signing import pack_judged, staged_name, unpack_judged

if t.TYPE_CHECKING:
    from ..module_utils._source.range_reader import RangeReader
    from ..module_utils._source.source import Source
    from ._criteria import Criteria
    from ._signing import Judged, TaskSigning

# When one of these files changes, the image is a new one.
_KEY_FILES = ("", "index.json", "manifest.json")
# The largest blob, in bytes, that is sent in a bundle with others.
_SMALL = 512 * 1024
# The largest bundle in bytes: when the connection is lost, all of it is sent again.
_LARGEST_BUNDLE = 4 * 1024 * 1024
# An upper bound for a name and a size in the first line of a bundle, in bytes.
_HEAD_ENTRY = 192


class DamagedError(SourceError):
    """The content of a blob does not match its digest."""


_Self = t.TypeVar("_Self", bound="Staging")


@dataclass(frozen=True)
class Bundle:
    """One file to send, with the blobs ``names``: from ``path`` on the controller, to ``file`` on the node."""

    file: str
    path: str
    names: tuple[str, ...]


class StagedImage(t.Protocol):
    """An image that can be staged."""

    @property
    def path(self) -> str:
        """The name of the image in messages."""

    def key(self) -> str:
        """Return a file name that is different for different images."""

    def open(self) -> Source:
        """Open the image. Raises ``SourceError`` and ``MissingLibraryError``."""


@dataclass(frozen=True)
class LocalImage:
    """The image in the file or directory ``path`` of the controller.

    ``real_path`` returns the file to read; it is called only when something has to be staged, since it may decrypt.
    ``max_size`` limits what a compressed archive may hold in bytes.
    """

    path: str
    real_path: t.Callable[[], str]
    max_size: int = DEFAULT_MAX_SIZE

    def key(self) -> str:
        """Return a file name that is different for different images, and when the image changes."""
        return _key(self.path)

    def open(self) -> Source:
        """Open the image. Raises ``SourceError`` and ``MissingLibraryError``."""
        source = open_source(self.real_path(), max_size=self.max_size)
        if isinstance(source, LayoutDirectory):
            source.confined = True
        else:
            # error messages name the path that the user wrote
            source.path = self.path
        return source


class Staging:
    """The staged files of an image for a task with these ``criteria``, as a context manager.

    Each set of criteria has its own offer, and all of them share the blobs. ``local_tmp`` is a private directory that
    all forks share. Raises ``SourceError``, ``ImageError`` and ``MissingLibraryError``.
    """

    def __init__(self, image: StagedImage, local_tmp: str, criteria: Criteria) -> None:
        self._image = image
        self._path = image.path
        self._criteria = criteria
        self._folder = os.path.join(local_tmp, f"hypervisor.oci-{image.key()}")
        self._offer_name = f"offer-{_hashed(criteria.key)}"
        self._source: Source | None = None
        self._offer: Offer | None = None
        self._at_exit = contextlib.ExitStack()

    def __enter__(self: _Self) -> _Self:
        with self._os_errors():
            os.makedirs(self._folder, 0o700, exist_ok=True)
            in_use = self._at_exit.enter_context(opened(self._lock("in-use", fcntl.LOCK_SH)))
        self._at_exit.callback(self._remove_blobs, in_use)
        self._at_exit.callback(self._close_source)
        return self

    def __exit__(self, *_error: object) -> None:
        self._at_exit.close()

    def offer(self) -> str:
        """Return the path of the staged offer."""
        path = os.path.join(self._folder, self._offer_name)
        with self._os_errors(), self._turn(path) as mine:
            if mine and not os.path.exists(path):
                self._write(self._offer_name, iter([pack(self._make_offer())]))
        return path

    def judged(self, signing: TaskSigning) -> Judged:
        """Return the verdict about the images that a node may choose, found once for all forks. Raises ``OciError``."""
        name = staged_name(signing, self._criteria)
        path = os.path.join(self._folder, name)
        with self._os_errors():
            with self._turn(path) as mine:
                if mine and not os.path.exists(path):
                    self._write(name, iter([pack_judged(signing.judge(self._open(), self._criteria))]))
            with open(path, "rb") as file:
                return unpack_judged(file.read())

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each offered layer by name."""
        if self._offer is None:
            self._offer = read_offer(self.offer())[0]
        return self._offer.layers

    def bundles(self, names: t.Sequence[str]) -> t.Iterator[Bundle]:
        """Yield the files to send for these blobs, each staged when it is needed; bundles of small blobs come first.

        Raises ``SourceError`` for a name that was not offered, before anything is staged.
        """
        sizes = self.sizes()
        for name in names:
            if name not in sizes:
                raise missing(self._path, name)
        groups = _group({name: sizes[name] for name in names})
        for group in groups:
            bundle = self._bundle(group)
            with self._os_errors(), self._turn(bundle.path) as mine:
                if mine and self._stages_all():
                    self._stage(groups)
                    self._close_source()
                elif mine:
                    self._stage([group])
            yield bundle

    def _bundle(self, names: tuple[str, ...]) -> Bundle:
        file = upload_name(names[0]) if len(names) == 1 else bundle_name(names)
        return Bundle(file, os.path.join(self._folder, file), names)

    def _make_offer(self) -> Offer:
        return make_offer(self._open(), self._criteria)

    def _stages_all(self) -> bool:
        """Return whether all blobs of a request are staged at once: a stream should be read only once."""
        return self._is_stream()

    def _is_stream(self) -> bool:
        return self._offer is not None and self._offer.form in ("compressed archive", "stream")

    def _stage(self, groups: t.Sequence[tuple[str, ...]]) -> None:
        """Stage the files of these groups that are not staged yet."""
        for names in groups:
            bundle = self._bundle(names)
            if os.path.exists(bundle.path):
                continue
            if len(names) == 1:
                self._stage_blob(names[0], bundle)
            else:
                self._write(bundle.file, self._packed(names))

    def _packed(self, names: tuple[str, ...]) -> t.Iterator[bytes]:
        sizes = self.sizes()
        yield bundle_head({name: sizes[name] for name in names})
        source = self._readable()
        for name in names:
            yield from self._verified(source, name)

    def _stage_blob(self, name: str, bundle: Bundle) -> None:
        self._write(bundle.file, self._verified(self._readable(), name))

    def _verified(self, source: Source, name: str) -> t.Iterator[bytes]:
        """Yield the bytes of a blob; at the end, raise ``SourceError`` if they do not match the digest in its name.

        So nothing of a damaged archive is sent, and no other file of the controller through a link in a layout.
        """
        digest = blob_digest(name)
        with contextlib.closing(self._open_blob(source, name)) as reader:
            try:
                yield from VerifiedReader(reader, digest, None).chunks()
            except VerificationError as error:
                raise self._damaged(name) from error

    def _open_blob(self, source: Source, name: str) -> RangeReader:
        if source.size_of(name) is None:
            raise SourceError(f"{show(self._path)} changed during the run, and has no {show(name)} any more; run again")
        reader = source.open(name)
        if reader.length == self.sizes()[name]:
            return reader
        reader.close()
        raise SourceError(
            f"the size of {show(name)} in {show(self._path)} changed during the run; run again when the image is complete"
        )

    def _damaged(self, name: str) -> DamagedError:
        return DamagedError(
            f"the content of the blob {blob_digest(name)} in {show(self._path)} has another digest; the image is damaged,"
            " fetch it again"
        )

    def _readable(self) -> Source:
        """Return the source, or its spool when blobs cannot be read in place."""
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
        with opened(os.open(self._folder, DIRECTORY)) as fd:
            spool = source.spool(fd)
        self._close_source()
        self._source = spool
        return spool

    def _open(self) -> Source:
        if self._source is None:
            self._source = self._image.open()
        return self._source

    def _close_source(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _write(self, name: str, chunks: t.Iterator[bytes]) -> None:
        """Write a file atomically."""
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
    def _turn(self, path: str) -> t.Iterator[bool]:
        """Let one fork write files; the others wait here, and then find ``path``. Yields whether to write it if not."""
        del path
        with opened(self._lock("writing", fcntl.LOCK_EX)):
            yield True

    def _remove_blobs(self, in_use: int) -> None:
        """Remove the large files if no other fork is at work; the offer is small."""
        with contextlib.suppress(OSError):
            fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in os.listdir(self._folder):
                if name.startswith(("sha", "member-", "bundle-", ".")):
                    os.unlink(os.path.join(self._folder, name))

    def _lock(self, name: str, how: int) -> int:
        path = os.path.join(self._folder, name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with closed_on_error(fd):
            fcntl.flock(fd, how)
        return fd

    @contextlib.contextmanager
    def _os_errors(self) -> t.Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SourceError(
                f"cannot stage {show(self._path)} in {show(self._folder)}: {os_phrase(error)}; check the disks of both,"
                " or set local_tmp"
            ) from error


def _group(sizes: t.Mapping[str, int]) -> list[tuple[str, ...]]:
    """Group the blobs that are sent in one file: small ones together, up to the limits, and each large one alone."""
    groups: list[tuple[str, ...]] = []
    group: list[str] = []
    total = 0
    for name, size in sizes.items():
        if size > _SMALL:
            continue
        if total + size > _LARGEST_BUNDLE or (len(group) + 1) * _HEAD_ENTRY > BUNDLE_HEAD:
            groups.append(tuple(group))
            group, total = [], 0
        group.append(name)
        total += size
    if group:
        groups.append(tuple(group))
    return groups + [(name,) for name, size in sizes.items() if size > _SMALL]


def _key(path: str) -> str:
    """Return a name for the image in its present state."""
    seen = [os.path.realpath(path)]
    for name in _KEY_FILES:
        with contextlib.suppress(OSError):
            status = os.stat(os.path.join(path, name) if name else path)
            seen += [name, f"{status.st_dev} {status.st_ino} {status.st_size}"]
            seen += [f"{status.st_mtime_ns} {status.st_ctime_ns}"]
    return _hashed("\0".join(seen))


def _hashed(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:32]
