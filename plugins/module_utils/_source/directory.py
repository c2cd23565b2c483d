# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""An image as files in a directory (docs/behaviour.md, section 1)."""

from __future__ import annotations

import os
import stat
import typing as t

from ansible_collections.hypervisor.oci.plugins.module_utils._errors import (
    SourceError,
    os_phrase,
    show,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.range_reader import (
    FileAccess,
    RangeReader,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.source import (
    cannot_open,
    missing,
    read_document,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.tar_index import (
    clean,
)

if t.TYPE_CHECKING:
    from ansible_collections.hypervisor.oci.plugins.module_utils._source.source import (
        Source,
    )


class LayoutDirectory:
    """An image layout on disk, or what C(docker save) wrote, unpacked."""

    form = "directory"
    spooled_size: int | None = None

    def __init__(self, path: str) -> None:
        self.path = path
        self.opened: list[str] = []
        self.documents_size = 0
        if not any(map(self._is_there, ("index.json", "manifest.json"))):
            raise SourceError(
                f"src {show(path)} is a directory without index.json or manifest.json; give an image layout or an archive"
            )

    def size_of(self, name: str) -> int | None:
        """The size of a file; C(None) where there is none. Raises C(SourceError)."""
        try:
            status = os.stat(self._path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            # a NUL, or what is no text
            raise self._no_name(name) from error
        except OSError as error:
            raise SourceError(
                f"{show(self._path(name))} cannot be looked at: {os_phrase(error)}; check src"
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(
                f"{show(self._path(name))} is not a regular file; do not use this layout"
            )
        return status.st_size

    def open(self, name: str) -> RangeReader:
        """A reader of a file, links followed, nothing waited for. Raises C(SourceError)."""
        if self.size_of(name) is None:
            raise missing(self.path, name)
        access = FileAccess(self._path(name))
        self.opened.append(name)
        return RangeReader(access, 0, access.size, owned=True)

    def document(self, name: str) -> bytes:
        """A file as a whole. Raises C(SourceError)."""
        return read_document(self, name)

    def spool(self, directory: int) -> Source:
        """A directory needs none."""
        return self

    def close(self) -> None:
        """Nothing to close: each file belongs to its reader."""

    def _path(self, name: str) -> str:
        cleaned = clean(name)
        if ".." in cleaned.split("/"):
            raise self._no_name(name)
        return os.path.join(self.path, cleaned)

    def _is_there(self, name: str) -> bool:
        try:
            os.lstat(self._path(name))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise cannot_open(self.path, os_phrase(error)) from error
        return True

    def _no_name(self, name: str) -> SourceError:
        return SourceError(
            f"{show(self.path)}: {show(name)} is no name of a file inside it; do not use this layout"
        )
