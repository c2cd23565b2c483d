# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the image of a run comes from: what differs between one that the controller offers and one that the node reads.

A module injects its own, so that Ansible sends a node the code of no other (docs/architecture.md).
"""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from .._cache.blobs import BlobCache
    from .._dest.record import Record
    from .._image.image import Image
    from .._signed.signing import Signing
    from .._source.source import Partials, Source
    from .options import Options
    from .outcome import Outcome, UploadRequest
    from .plan import KnownPlan, Signers, WantedImage
    from .target import Target

# Recognises by the record alone that the image is there.
Recall = t.Callable[["Target", "Record"], t.Optional["KnownPlan"]]


class Origin(t.Protocol):
    """Opens the source of a run, and answers for it. Methods raise ``OciError``.

    ``verifies`` is false if the controller has to be asked for a verdict about signatures; ``is_offered`` is true if it
    sends the image.
    """

    @property
    def verifies(self) -> bool:
        """Whether the run needs to ask nobody for a verdict."""

    @property
    def is_offered(self) -> bool:
        """Whether the controller sends the image."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the source, after the run."""

    def open(self, options: Options) -> Source:
        """Open the source."""

    def recall(self, source: Source) -> Recall | None:
        """Return what recognises its image without reading it, or ``None`` if it is read anyway."""

    def realms(self, source: Source) -> dict[str, str]:
        """Return where a registry's tokens came from, for the record."""

    def scope(self, source: Source) -> str:
        """Return which runs share the blobs of this one: by default, later runs with the same source."""

    def partials(self, target: Target, source: Source, image: Image) -> t.ContextManager[Partials | None]:
        """Open what came of the image's blobs before a run ended."""

    def signers(self, options: Options, signing: Signing, wanted: WantedImage) -> Signers:
        """Return who has signed an image that no verdict is about. Raises ``VerdictNeeded``, too."""

    def arrived(self, target: Target, arrival: Arrival) -> t.ContextManager[Missing | None]:
        """Return what keeps the blobs from being read within the block, ``None`` if nothing does."""

    def unpacked(
        self, target: Target, arrival: Arrival, unpack: t.Callable[[], Outcome]
    ) -> Outcome | UploadRequest | None:
        """Return what ``unpack`` returns when all blobs can be read, or the blobs to upload first.

        Returns ``None`` while another run uploads to the same dest.
        """


class Missing(t.NamedTuple):
    """Blobs that are not on the node: what the controller is asked for, nothing to wait for another run; or ``why`` not."""

    request: UploadRequest | None = None
    why: str = ""


class Arrival(t.NamedTuple):
    """The blobs that a run needs: those of ``image``, from ``source`` or the cache."""

    source: Source
    image: Image
    cache: BlobCache | None
