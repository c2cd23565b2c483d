# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cache of a run, if the options name one."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._errors import RootfsError, show
from .._source.source import Source
from .options import Options
from .target import Target

if t.TYPE_CHECKING:
    from .._cache.blobs import BlobCache


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
    """Return which runs share the blobs of this one: those of the task's cache_scope, or as its origin says."""
    if not options.cache_scope:
        return options.origin.scope(source)
    from .._cache.scope import scope_named

    return scope_named(options.cache_scope)
