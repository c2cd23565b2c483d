# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Opens whatever holds an image, by a name in a registry, a URL or a path (docs/behaviour.md, section 1)."""

from __future__ import annotations

import typing as t

from .._remote.url import is_registry
from .._source.source import DEFAULT_MAX_SIZE, Source
from .._source.sources import open_source

if t.TYPE_CHECKING:
    from .._remote.options import HttpOptions


def open_any(
    src: str, options: HttpOptions | None = None, max_size: int = DEFAULT_MAX_SIZE, digest: str | None = None
) -> Source:
    """Open the image at a path, a URL or in a registry; ``options`` are those of ``fetch_options``.

    Raises ``SourceError`` and ``ImageError``.
    """
    if is_registry(src):
        # imported late: a node compiles what it is sent anew for every task
        from .options import RegistryOptions
        from .source import open_registry

        known = options if isinstance(options, RegistryOptions) else RegistryOptions()
        return open_registry(src, known, digest)
    return open_source(src, options, max_size)
