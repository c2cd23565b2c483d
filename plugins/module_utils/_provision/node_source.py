# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image that the node reads by itself: a path, a URL or a name in a registry (docs/behaviour.md, section 1)."""

from __future__ import annotations

import contextlib
import functools
import os
import typing as t
from dataclasses import dataclass

from .._dest.dest import PARTIALS
from .._errors import RootfsError
from .._fs.descriptors import closed_on_error
from .._fs.directories import make_private
from .._native_path import native_path
from .._registry.arguments import fetch_options
from .._remote.url import is_registry, is_url
from .._source.sources import open_source

if t.TYPE_CHECKING:
    from .._image.image import Image
    from .._registry.source import RegistrySource
    from .._remote.options import HttpOptions
    from .._signed.signing import Signing
    from .._source.partial import PartialBlobs
    from .._source.source import Source
    from .options import Options
    from .origin import Arrival, Recall
    from .outcome import Outcome
    from .plan import Signers, WantedImage
    from .target import Target


def node_source(params: dict[str, t.Any]) -> NodeSource:
    """Return the source that a task names. Raises ``OciError``."""
    return NodeSource(native_path(params["src"] or ""), fetch_options(params))


@dataclass(frozen=True)
class NodeSource:
    """The ``src`` of a task, empty if it needs none, with the options for its server if it is not a path. See ``Origin``."""

    src: str = ""
    http: HttpOptions | None = None

    is_offered = False

    @property
    def verifies(self) -> bool:
        """Whether the node itself verifies signatures: of what is fetched, the controller does."""
        return not (is_url(self.src) or is_registry(self.src))

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes about requests."""
        return () if self.http is None else tuple(self.http.notes.texts)

    def open(self, options: Options) -> Source:
        """Open the path, URL or registry. Raises ``SourceError`` and ``ImageError``."""
        if is_registry(self.src):
            # imported late: most sources are files
            from .._registry.open import open_any

            return open_any(self.src, self.http, options.unpack.max_size, options.digest)
        return open_source(self.src, self.http, options.unpack.max_size)

    def recall(self, source: Source) -> Recall | None:
        """Return what recognises the image of a registry."""
        if not is_registry(self.src):
            return None
        from .recall import recall

        return functools.partial(recall, source=source)

    def realms(self, source: Source) -> dict[str, str]:
        """Return the realm of the registry, by its name."""
        if not is_registry(self.src):
            return {}
        client = t.cast("RegistrySource", source).client
        realm = client.registry.session.realm
        return {client.name.registry: realm} if realm else {}

    def scope(self, source: Source) -> str:
        """Return which runs may use what this one reads: those with the same source and the same credentials."""
        # imported late: unchanged runs use no cache
        if self.http is None:
            from .._cache.scope import scope_of_path

            return scope_of_path(self.src)
        from .._cache.fetched_scope import scope_of_registry, scope_of_url

        if not is_registry(self.src):
            return scope_of_url(self.src, self.http)
        client = t.cast("RegistrySource", source).client
        return scope_of_registry(client.name.registry, client.name.repository, client.identity)

    @contextlib.contextmanager
    def partials(self, target: Target, source: Source, image: Image) -> t.Iterator[PartialBlobs | None]:
        """Open the partial blobs of an image that is fetched; those of others are removed. ``None`` for other sources."""
        if self.http is None or source.spooled_size is not None:
            yield None
            return
        # imported late: most sources are files
        from .._source.partial import PartialBlobs

        partials = None
        # without a folder for them, blobs are fetched as a whole
        with contextlib.suppress(OSError, RootfsError), closed_on_error(
            make_private(target.dest.state, PARTIALS)
        ) as fd:
            partials = PartialBlobs(fd, self.scope(source), lambda: self._distrust_mirrors(source))
            partials.keep_only(layer.digest for layer in image.layers)
        if partials is None:
            yield None
            return
        try:
            with contextlib.closing(partials):
                yield partials
        finally:
            # a run that fails for another reason leaves nothing
            with contextlib.suppress(OSError):
                os.rmdir(PARTIALS, dir_fd=target.dest.state)

    def signers(self, options: Options, signing: Signing, wanted: WantedImage) -> Signers:
        """Verify the image's signatures. Raises ``OciError``, and ``VerdictNeeded`` if the controller has to."""
        # imported late: nodes seldom verify by themselves
        from .verify_signatures import verified_signers

        return verified_signers(options, signing, wanted)

    def arrived(self, target: Target, arrival: Arrival) -> t.ContextManager[None]:
        """Return nothing: the node reads them itself."""
        del target, arrival
        return contextlib.nullcontext()

    def unpacked(self, target: Target, arrival: Arrival, unpack: t.Callable[[], Outcome]) -> Outcome:
        """Unpack: nothing has to be sent."""
        del target, arrival
        return unpack()

    def _distrust_mirrors(self, source: Source) -> bool:
        return is_registry(self.src) and t.cast("RegistrySource", source).client.distrust_mirrors()
