# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What came of an image's blobs over the network before a run ended, in the private folder of dest."""

from __future__ import annotations

import contextlib
import os
import typing as t

from .._dest.dest import PARTIALS, Dest
from .._errors import RootfsError, os_phrase
from .._fs.descriptors import closed_on_error, opened
from .._fs.directories import make_private, open_private
from .._fs.removal import empty_directory
from .._image.image import Image
from .._remote.url import is_registry
from .._source.source import Source
from .cache import fetched_scope
from .options import Options
from .target import Target

if t.TYPE_CHECKING:
    from .._registry.source import RegistrySource
    from .._source.partial import PartialBlobs


@contextlib.contextmanager
def open_partials(target: Target, source: Source, image: Image) -> t.Iterator[PartialBlobs | None]:
    """Open the partial blobs of an image that the node fetches; those of others are removed. ``None`` for other sources."""
    options = target.options
    if options.offer or options.http is None or source.spooled_size is not None:
        yield None
        return
    # imported late: most sources are files
    from .._source.partial import PartialBlobs

    partials = None
    # without a folder for them, blobs are fetched as a whole
    with contextlib.suppress(OSError, RootfsError), closed_on_error(make_private(target.dest.state, PARTIALS)) as fd:
        partials = PartialBlobs(fd, fetched_scope(options, source), lambda: _distrust_mirrors(options, source))
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


def _distrust_mirrors(options: Options, source: Source) -> bool:
    return is_registry(options.src) and t.cast("RegistrySource", source).client.distrust_mirrors()


def remove_partials(dest: Dest) -> None:
    """Remove the folder with all that is in it; what cannot be removed now is a warning."""
    try:
        fd = open_private(dest.state, PARTIALS)
        if fd is None:
            return
        with opened(fd):
            empty_directory(fd)
        os.rmdir(PARTIALS, dir_fd=dest.state)
    except RootfsError as error:
        dest.warn_kept(_path_of(dest), error.message)
    except OSError as error:
        dest.warn_kept(_path_of(dest), os_phrase(error))


def _path_of(dest: Dest) -> str:
    location = dest.location
    return os.path.join(location.state_parent, os.fsdecode(location.state_name), os.fsdecode(PARTIALS))
