# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Blobs from the controller: what a node lacks of an image, where it is to be sent, what an earlier run left.

A transfer has no process on the node. So it counts as running while its folder changes, and as given up
when nothing came for a while (docs/behaviour.md, section 7).
"""

from __future__ import annotations

import contextlib
import os
import typing as t
from dataclasses import dataclass

from ._cache.blobs import BlobCache
from ._errors import OciError, SourceError
from ._image.digest import new_hash
from ._image.image import Image, Layer
from ._interrupt import InterruptedRunError
from ._fs.directories import DIRECTORY
from ._dest.uploads import (
    UploadFolder,
    load_upload_folders,
    make_upload_folder,
    remove_upload_folder,
)
from ._dest.place import Dest
from ._source.offer import OfferSource
from ._source.sent import Sent, find_sent

_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class UploadRequest:
    """What is to be sent: ``blobs`` by name and size in bytes, into the folder ``folder``.

    ``folder`` is ``None`` where the user who logs in can be given none; his own temporary folder must do then.
    """

    folder: str | None
    blobs: dict[str, int]

    def to_result(self) -> dict[str, t.Any]:
        """As the action plugin reads it."""
        blobs = [{"name": name, "size": size} for name, size in self.blobs.items()]
        return {"folder": self.folder, "blobs": blobs}


class Transfer:
    """The blobs of one image on their way to one dest; ``sent_to`` is the folder of a transfer that is over.

    ``other_sender_active`` says that somebody else is sending to that dest: then nothing more can be done but to wait.
    """

    def __init__(
        self,
        site: Dest,
        source: OfferSource,
        image: Image,
        sent_to: str,
        cache: BlobCache | None = None,
    ) -> None:
        self._site = site
        self._source = source
        self._identity = image.manifest_digest or image.config_digest
        self._wanted = {
            layer.name: layer for layer in image.layers if layer.data is None
        }
        self._sent_to = sent_to
        self._cache = cache
        self._uploads = load_upload_folders(site)
        self.other_sender_active = False
        # what is whole, and where
        self._found: dict[str, Sent] = {}
        self._cached: dict[str, bool] = {}
        self._folders: list[int] = []
        self._look()

    def missing(self) -> dict[str, int]:
        """Name and size in bytes of each blob that is not there."""
        return {
            name: layer.size or 0
            for name, layer in self._wanted.items()
            if name not in self._found and not self._is_cached(layer)
        }

    def request(self) -> UploadRequest:
        """Prepare a folder for what is needed, with what is there already moved into it."""
        needed = self.missing()
        if self._own() is not None:
            return UploadRequest(self._sent_to, needed)
        source = self._source
        upload = make_upload_folder(
            self._site, self._identity, source.owner, source.group
        )
        fd = None if upload is None else upload.open()
        if upload is None or fd is None:
            # nothing can be moved there, so all is needed
            self._found = {}
            needed = self.missing()
        else:
            try:
                for folder, file in {(s.folder, s.file) for s in self._found.values()}:
                    os.rename(file, file, src_dir_fd=folder, dst_dir_fd=fd)
            finally:
                os.close(fd)
        for old in self._uploads:
            remove_upload_folder(self._site, old)
        return UploadRequest(None if upload is None else upload.path, needed)

    @contextlib.contextmanager
    def used(self) -> t.Iterator[None]:
        """Within, the source reads what was sent; afterwards it is removed, unless somebody ends the run."""
        self._source.receive_from(self._found)
        try:
            yield
        except InterruptedRunError:
            raise
        except (OciError, OSError):
            self._forget()
            raise
        self._forget()

    def close(self) -> None:
        """Close the folders."""
        for folder in self._folders:
            os.close(folder)
        self._folders = []

    def _is_cached(self, layer: Layer) -> bool:
        """Whether the cache has it; read as a whole before the others are sent, and verified when it is used."""
        cache = self._cache
        if cache is None:
            return False
        if layer.name not in self._cached:
            asked = cache.has if self._sent_to else cache.is_intact
            self._cached[layer.name] = asked(layer.digest, layer.size)
        return self._cached[layer.name]

    def _own(self) -> UploadFolder | None:
        for upload in self._uploads:
            if upload.path == self._sent_to:
                return upload
        return None

    def _look(self) -> None:
        own = self._own()
        if own is not None:
            self._take(own.open(), False)
        elif self._sent_to and (fd := _open_plain(self._sent_to)) is not None:
            self._take(fd, False)
        else:
            self.other_sender_active = any(
                upload.is_active() for upload in self._uploads
            )
            for upload in self._uploads:
                if upload.image == self._identity and not self.other_sender_active:
                    self._take(upload.open(), True)

    def _take(self, folder: int | None, verify: bool) -> None:
        """Note what is whole in a folder; what was sent a moment ago is verified when it is read."""
        if folder is None:
            return
        self._folders.append(folder)
        lacking = {
            name: layer.size or 0
            for name, layer in self._wanted.items()
            if name not in self._found
        }
        found = find_sent(folder, lacking)
        damaged = {
            sent.file
            for name, sent in found.items()
            if verify and not _is_intact(sent, self._wanted[name])
        }
        for name, sent in found.items():
            # of a bundle with a damaged blob nothing is used: it would hide the one that is sent again
            if sent.file not in damaged:
                self._found[name] = sent

    def _forget(self) -> None:
        for upload in self._uploads:
            remove_upload_folder(self._site, upload)


def remove_uploads(site: Dest, active: bool) -> None:
    """Remove what unfinished transfers left; only with ``active`` where somebody is sending."""
    for upload in load_upload_folders(site):
        if active or not upload.is_active():
            remove_upload_folder(site, upload)


def _is_intact(sent: Sent, layer: Layer) -> bool:
    reader = sent.open()
    if reader is None:
        return False
    with contextlib.closing(reader):
        # an old Docker archive gives no other digest: a blob that is compressed there is sent again
        digest = new_hash(layer.digest)
        try:
            while chunk := reader.read(_CHUNK):
                digest.update(chunk)
        except SourceError:
            return False
        return digest.hexdigest() == layer.digest.partition(":")[2]


def _open_plain(path: str) -> int | None:
    """The temporary folder of the user who logs in; ``None`` where it is not there."""
    try:
        return os.open(path, DIRECTORY)
    except OSError:
        return None
