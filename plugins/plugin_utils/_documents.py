# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Keep the documents of a registry's images for later runs, which then ask only whether a tag has moved.

They lie among the partial blobs, by the same names, and are hashed again whenever they are used. A tag's digest is kept as
well; a registry that says the same one in the header of an answer says "unchanged", and is believed for nothing else
(docs/behaviour.md, section 7).
"""

from __future__ import annotations

import typing as t

from ..module_utils._errors import ImageError
from ..module_utils._image.digest import Digest
from ..module_utils._registry.client import Manifest, RegistryClient
from ..module_utils._source.source import DOCUMENT_LIMIT
from ._partial import derive

if t.TYPE_CHECKING:
    from ._partial import Partials

# What stands before a manifest in its file: its media type, and a line end.
_LONGEST = DOCUMENT_LIMIT + 1024


class KeptDocuments:
    """The documents in ``partials``; ``name_of`` makes the names of files, which differ for each source and credentials.

    The realm of ``registry`` is kept whoever asks: new credentials give no reason to trust a new one.
    """

    def __init__(self, partials: Partials, name_of: t.Callable[[str], str], registry: str) -> None:
        self._partials = partials
        self._name_of = name_of
        self._realm = derive(b"the realm of a registry", registry)

    def find(self, digest: Digest) -> tuple[str, bytes] | None:
        """Return the media type, which is empty for a config, and the verified document."""
        found = self._partials.read(self._name_of(f"document {digest}"), _LONGEST)
        media_type, newline, data = (found or b"").partition(b"\n")
        if not newline or digest.of(data) != digest:
            return None
        return media_type.decode("utf-8", "replace"), data

    def keep(self, digest: Digest, media_type: str, data: bytes) -> None:
        """Keep a document that was verified."""
        self._partials.write(self._name_of(f"document {digest}"), media_type.encode() + b"\n" + data)

    def tag(self, tag: str) -> Digest | None:
        """Return the digest that a tag had in an earlier run."""
        found = self._partials.read(self._name_of(f"tag {tag}"), _LONGEST)
        try:
            return None if found is None else Digest(found.decode("ascii", "replace"), "a kept tag")
        except ImageError:
            return None

    def keep_tag(self, tag: str, digest: Digest) -> None:
        """Keep the digest of a tag."""
        self._partials.write(self._name_of(f"tag {tag}"), digest.encode())

    def realm(self) -> str:
        """Return the origin that got the credentials for the registry in an earlier run; empty if that is not known."""
        return (self._partials.read(self._realm, _LONGEST) or b"").decode("utf-8", "replace")

    def keep_realm(self, realm: str) -> None:
        """Keep that origin."""
        self._partials.write(self._realm, realm.encode())


class KeepingClient(RegistryClient):
    """A client that asks for no document again, and sends no credentials to a new realm without being told to."""

    def __init__(self, client: RegistryClient, kept: KeptDocuments) -> None:
        super().__init__(client.name, client.options)
        self._kept = kept
        self.registry.session.known_realm = kept.realm()

    def manifest(self, reference: str) -> Manifest:
        """Return the manifest or index of a tag or digest. Raises as ``RegistryClient`` does."""
        digest = reference if isinstance(reference, Digest) else self._unchanged(reference)
        found = None if digest is None else self._kept.find(digest)
        if digest is not None and found is not None:
            return Manifest(digest, *found)
        manifest = super().manifest(reference)
        session = self.registry.session
        if session.realm not in ("", session.known_realm):
            self._kept.keep_realm(session.realm)
        self._kept.keep(manifest.digest, manifest.media_type, manifest.data)
        if not isinstance(reference, Digest):
            self._kept.keep_tag(reference, manifest.digest)
        return manifest

    def blob_data(self, digest: Digest, size: int) -> bytes:
        """Return a small blob, verified. Raises ``SourceError``."""
        found = self._kept.find(digest)
        if found is not None and len(found[1]) == size:
            return found[1]
        data = super().blob_data(digest, size)
        self._kept.keep(digest, "", data)
        return data

    def _unchanged(self, tag: str) -> Digest | None:
        """Return the digest that a tag had in an earlier run, if the registry says that it still has it."""
        known = self._kept.tag(tag)
        return known if known is not None and self.current_digest(tag) == known else None
