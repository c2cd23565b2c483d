# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What came of an image's blobs over the network before a run ended, in the private folder of dest."""

from __future__ import annotations

import os

from .._dest.dest import PARTIALS, Dest
from .._errors import RootfsError, os_phrase
from .._fs.descriptors import opened
from .._fs.directories import open_private
from .._fs.removal import empty_directory


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
