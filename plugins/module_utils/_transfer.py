# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blobs from the controller: which ones a node is missing, where to send them, which ones an earlier run left.

A transfer has no process on the node. It counts as running while its upload folder changes, and as abandoned
when nothing has arrived for a while (docs/behaviour.md, section 7).
"""

from __future__ import annotations

import contextlib
import os
import typing as t
from dataclasses import dataclass

from ._cache.blobs import BlobCache
from ._errors import OciError, SourceError
from ._image.image import Image, Layer
from ._interrupt import InterruptedRunError
from ._fs.descriptors import opened
from ._fs.directories import DIRECTORY
from ._dest.uploads import UploadFolder, load_upload_folders, make_upload_folder, remove_upload_folder
from ._dest.dest import Dest
from ._provision.outcome import UploadRequest
from ._source.offer import OfferSource
from ._source.sent import SentBlob, find_sent
from ._source.verified import VerificationError, VerifiedReader


@dataclass(frozen=True)
class Uploads:
    """The folder that this task has already sent to, if any, and the ``scope`` of its source, as for the cache.

    A digest does not prove that another source has the blobs that an interrupted transfer left.
    """

    sent_to: str
    scope: str


class Transfer:
    """The transfer of one image's blobs to one dest.

    ``other_sender_active`` is true while another run sends to the same dest: then this run can only wait.
    """

    def __init__(
        self, dest: Dest, source: OfferSource, image: Image, uploads: Uploads, cache: BlobCache | None = None
    ) -> None:
        self._dest = dest
        self._source = source
        digest = image.manifest_digest or image.config_digest
        self._image = f"{digest} {uploads.scope}"
        self._layers = {layer.name: layer for layer in image.layers if layer.data is None}
        self._sent_to = uploads.sent_to
        self._cache = cache
        self._uploads = load_upload_folders(dest)
        self.other_sender_active = False
        self._received: dict[str, SentBlob] = {}
        self._cached: dict[str, bool] = {}
        self._folders = contextlib.ExitStack()
        self._find_received()

    def missing(self) -> dict[str, int]:
        """Return the name and the size in bytes of each blob that the node does not have."""
        return {
            name: layer.size or 0
            for name, layer in self._layers.items()
            if name not in self._received and not self._is_cached(layer)
        }

    def request(self) -> UploadRequest:
        """Prepare a folder for the missing blobs, and move those that an earlier transfer left into it."""
        if self._own_upload() is not None:
            return UploadRequest(self._sent_to, self.missing())
        source = self._source
        upload = make_upload_folder(self._dest, self._image, source.owner, source.group)
        fd = None if upload is None else upload.open()
        if upload is None or fd is None:
            # There is nowhere to keep what an earlier transfer left, so everything is sent again.
            self._received = {}
        else:
            with opened(fd):
                for folder, file in {(blob.folder, blob.file) for blob in self._received.values()}:
                    os.rename(file, file, src_dir_fd=folder, dst_dir_fd=fd)
        for old in self._uploads:
            remove_upload_folder(self._dest, old)
        return UploadRequest(None if upload is None else upload.path, self.missing())

    @contextlib.contextmanager
    def used(self) -> t.Iterator[None]:
        """Let the source read the received blobs, and remove them at the end, but not when the run is interrupted."""
        self._source.receive_from(self._received)
        try:
            yield
        except InterruptedRunError:
            raise
        except (OciError, OSError):
            self._remove_uploads()
            raise
        self._remove_uploads()

    def close(self) -> None:
        """Close the upload folders."""
        self._folders.close()

    def _is_cached(self, layer: Layer) -> bool:
        """Return whether the cache has a layer.

        The cached blob is verified before the others are requested. After they were sent, it is verified when it is
        unpacked.
        """
        cache = self._cache
        if cache is None:
            return False
        if layer.name not in self._cached:
            has = cache.has if self._sent_to else cache.is_intact
            self._cached[layer.name] = has(layer.digest, layer.size)
        return self._cached[layer.name]

    def _own_upload(self) -> UploadFolder | None:
        """Return the recorded folder that this task has sent to."""
        for upload in self._uploads:
            if upload.path == self._sent_to:
                return upload
        return None

    def _find_received(self) -> None:
        own = self._own_upload()
        if own is not None:
            self._receive(own.open(), verify=False)
        elif self._sent_to and (fd := _open_plain(self._sent_to)) is not None:
            self._receive(fd, verify=False)
        else:
            self.other_sender_active = any(map(UploadFolder.is_active, self._uploads))
            for upload in self._uploads:
                if upload.image == self._image and not self.other_sender_active:
                    self._receive(upload.open(), verify=True)

    def _receive(self, folder: int | None, verify: bool) -> None:
        """Add the complete blobs of a folder; blobs that this task has just sent are verified when they are unpacked."""
        if folder is None:
            return
        self._folders.enter_context(opened(folder))
        wanted = {name: layer.size or 0 for name, layer in self._layers.items() if name not in self._received}
        found = find_sent(folder, wanted)
        damaged = {blob.file for name, blob in found.items() if verify and not _is_intact(blob, self._layers[name])}
        for name, blob in found.items():
            # Skip all of a bundle with a damaged blob: once moved along, it would hide the blob that is sent again.
            if blob.file not in damaged:
                self._received[name] = blob

    def _remove_uploads(self) -> None:
        for upload in self._uploads:
            remove_upload_folder(self._dest, upload)


def _is_intact(blob: SentBlob, layer: Layer) -> bool:
    reader = blob.open()
    if reader is None:
        return False
    with contextlib.closing(reader):
        # In an old Docker archive this is the digest of the content: a compressed blob never matches and is sent again.
        try:
            VerifiedReader(reader, layer.digest, None).drain()
        except (SourceError, VerificationError):
            return False
    return True


def _open_plain(path: str) -> int | None:
    """Open the temporary folder of the user who logs in; return ``None`` when it is gone."""
    try:
        return os.open(path, DIRECTORY)
    except OSError:
        return None
