# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verify the signatures in a source and beside it (docs/behaviour.md, section 12)."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._errors import ImageError, SourceError, show
from .._signature.keys import PublicKey, parse_keys
from .._signature.policy import Policy
from .._signature.strict import PAYLOAD_LIMIT
from .._signature.verify import Bundle, Signature
from .._source.range_reader import open_regular
from .._source.sources import open_source
from .judge import Judge
from .layout import StoredSignatures, find_signatures

if t.TYPE_CHECKING:
    from .._image.digest import Digest
    from .._source.source import Source
    from .signing import Signing

# Asks for the signatures of a document, in batches.
Ask = t.Callable[["Digest"], t.Iterator[t.List[Signature]]]


def make_judge(
    source: Source, keys: t.Sequence[PublicKey], policy: Policy, paths: t.Sequence[str], ask: Ask | None = None
) -> Judge:
    """Return who judges the images of a source, by the signatures in it and beside it at ``paths``.

    The signatures of a registry's images are not in the source: ``ask`` yields them. Raises ``ImageError`` and
    ``SourceError``.
    """
    found = find_signatures(source) if ask is None else StoredSignatures()
    for path in paths:
        found.join(_signatures_at(path))

    def signatures_of(digest: Digest) -> t.Iterator[list[Signature]]:
        yield found.of(digest)
        if ask is not None:
            yield from ask(digest)

    return Judge(source, signatures_of, keys, policy)


def parse_own_keys(signing: Signing) -> tuple[PublicKey, ...]:
    """Return the keys of a task, to verify by them. Raises ``OciError`` and ``MissingLibraryError``."""
    return parse_keys([(f"signature_keys[{number}]", text) for number, text in enumerate(signing.keys)])


def _signatures_at(path: str) -> StoredSignatures:
    """Return the signatures in a bundle's file, a layout or an archive. Raises ``ImageError`` and ``SourceError``."""
    try:
        data = None if os.path.isdir(path) else _read_bundle(path)
        if data is None:
            with contextlib.closing(open_source(path)) as source:
                return find_signatures(source)
    except (ImageError, SourceError) as error:
        raise SourceError(f"the signatures in {show(path)} cannot be read: {error.message}") from error
    found = StoredSignatures()
    found.add(None, [Bundle(data)])
    return found


def _read_bundle(path: str) -> bytes | None:
    """Return the content of a file if it may be JSON, otherwise ``None``. Raises ``SourceError``."""
    with os.fdopen(open_regular(path), "rb") as file:
        data = file.read(PAYLOAD_LIMIT + 1)
    if not data.lstrip().startswith(b"{"):
        return None
    if len(data) > PAYLOAD_LIMIT:
        raise SourceError(f"{show(path)} has more than {PAYLOAD_LIMIT} bytes, a fixed limit for bundles")
    return data
