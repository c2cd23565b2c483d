# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cache of a run, if the options name one."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._errors import RootfsError, show
from .._remote.url import is_registry
from .._source.source import Source
from .options import Options
from .target import Target

if t.TYPE_CHECKING:
    from .._cache.blobs import BlobCache
    from .._registry.source import RegistrySource
    from .._source.offer import OfferSource


@contextlib.contextmanager
def open_cache(target: Target, source: Source) -> t.Iterator[BlobCache | None]:
    """Open the cache, read-only if nothing may be written at dest. Raises ``RootfsError``."""
    options = target.options
    if not options.cache_dir:
        yield None
        return
    # imported late: most runs use no cache
    from .._cache.blobs import BlobCache

    path = os.path.realpath(options.cache_dir)
    dest = target.dest.path
    if os.path.commonpath([path, dest]) in (path, dest):
        raise RootfsError(f"cache_dir {show(path)} and dest {show(dest)} lie in each other; choose another cache_dir")
    scope = scope_of(options, source)
    dry_run = not target.dest.writable
    size, age = options.cache_max_size, options.cache_max_age
    with contextlib.closing(BlobCache(path, scope, size, age, dry_run)) as cache:
        yield cache


def scope_of(options: Options, source: Source) -> str:
    """Return which runs share the blobs of this one: by default, later runs with the same source."""
    from .._cache import scope

    if options.cache_scope:
        return scope.scope_named(options.cache_scope)
    if options.offer:
        fetched = t.cast("OfferSource", source).scope
        return scope.scope_of_fetched(fetched) if fetched else scope.scope_of_offer(source.path)
    return fetched_scope(options, source)


def fetched_scope(options: Options, source: Source) -> str:
    """Return which runs may use what this one fetches or reads: those with the same source and the same credentials."""
    from .._cache import scope

    if is_registry(options.src):
        client = t.cast("RegistrySource", source).client
        return scope.scope_of_registry(client.name.registry, client.name.repository, client.identity)
    if options.http is not None:
        return scope.scope_of_url(options.src, options.http)
    return scope.scope_of_path(options.src)
