# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image that the controller offers: its documents are in the offer, its blobs are sent (docs/behaviour.md, section 7)."""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import dataclass

from .._errors import OciError
from .._native_path import native_path
from .._source.offer import OfferSource, read_offer

if t.TYPE_CHECKING:
    from .._image.image import Image
    from .._signed.signing import Signing
    from .._source.source import Partials, Source
    from .options import Options
    from .._transfer import Transfer
    from .origin import Arrival, Missing
    from .outcome import Outcome, UploadRequest
    from .plan import Signers, WantedImage
    from .target import Target

_NOT_SENT = "its layers are on the controller, which sends nothing in check mode"


def offered(params: t.Mapping[str, t.Any]) -> OfferedImage:
    """Return the image that the action plugin offers. Raises ``OciError``."""
    if not params.get("_offer"):
        raise OciError("there is no offer of the controller; use hypervisor.oci.oci_rootfs, whose action makes one")
    return OfferedImage(native_path(params["_offer"]), native_path(params.get("_upload_folder") or ""))


@dataclass(frozen=True)
class OfferedImage:
    """The path of an ``offer``, and the folder that its blobs were uploaded to, empty if none were. See ``Origin``."""

    offer: str
    upload_folder: str = ""

    is_offered = True
    verifies = True
    notes = ()

    def open(self, options: Options) -> Source:
        """Read the offer. Raises ``SourceError``."""
        del options
        offer, status = read_offer(self.offer)
        return OfferSource(offer, status.st_uid, status.st_gid)

    def recall(self, source: Source) -> None:
        """Return nothing: the offer has all documents."""
        del source

    def realms(self, source: Source) -> dict[str, str]:
        """Return nothing: the node asks no registry."""
        del source
        return {}

    def scope(self, source: Source) -> str:
        """Return the scope of what the controller has fetched, or of its file."""
        # imported late: unchanged runs use no cache
        from .._cache.scope import scope_of_fetched, scope_of_offer

        fetched = t.cast("OfferSource", source).scope
        return scope_of_fetched(fetched) if fetched else scope_of_offer(source.path)

    def partials(self, target: Target, source: Source, image: Image) -> t.ContextManager[Partials | None]:
        """Return nothing: ``Transfer`` finds what arrived."""
        del target, source, image
        return contextlib.nullcontext()

    def signers(self, options: Options, signing: Signing, wanted: WantedImage) -> Signers:
        """Raise ``OciError``: the controller verifies what it offers."""
        raise OciError("the verdict of the controller about signatures is missing; run again")

    @contextlib.contextmanager
    def arrived(self, target: Target, arrival: Arrival) -> t.Iterator[Missing | None]:
        """Yield the request for what has not arrived; in check mode nothing is sent."""
        # imported late, as below
        from .origin import Missing

        if target.dest.state < 0:
            yield Missing(why=_NOT_SENT)
            return
        with contextlib.closing(self._transfer(target, arrival)) as transfer:
            if not transfer.missing():
                with transfer.used() if target.dest.writable else contextlib.nullcontext():
                    yield None
            elif not target.dest.writable:
                yield Missing(why=_NOT_SENT)
            else:
                yield Missing() if transfer.other_sender_active else Missing(transfer.request())

    def unpacked(
        self, target: Target, arrival: Arrival, unpack: t.Callable[[], Outcome]
    ) -> Outcome | UploadRequest | None:
        """Request what is missing, or unpack what was sent."""
        # imported late: unchanged runs receive nothing
        from .guard import require_libraries, require_room

        _source, image, cache = arrival
        with contextlib.closing(self._transfer(target, arrival)) as transfer:
            if transfer.other_sender_active:
                return None
            missing = transfer.missing()
            if missing:
                require_libraries(image)
                require_room(target, image, sum(missing.values()), cache)
                return transfer.request()
            with transfer.used():
                return unpack()

    def _transfer(self, target: Target, arrival: Arrival) -> Transfer:
        from .._transfer import Transfer, Uploads
        from .cache import scope_of

        source, image, cache = arrival
        uploads = Uploads(self.upload_folder, scope_of(target.options, source))
        return Transfer(target.dest, t.cast("OfferSource", source), image, uploads, cache)
