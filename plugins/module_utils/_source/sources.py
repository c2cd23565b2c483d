# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Opens whatever holds an image: its content decides what it is (docs/behaviour.md, section 1).

Each form has a file of its own, which is only read where it is met: a node compiles a module anew for every task.
"""

from __future__ import annotations

import os
import stat

from ansible_collections.hypervisor.oci.plugins.module_utils._errors import (
    SourceError,
    os_phrase,
    show,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.archive import (
    Archive,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.magic import (
    detect,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.range_reader import (
    FileAccess,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.source import (
    Source,
    cannot_open,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.tar_header import (
    BLOCK,
    HeaderError,
    parse_header,
)


def open_source(path: str) -> Source:
    """Open what lies at C(path); its content decides what it is. Raises C(SourceError)."""
    try:
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)
    except OSError as error:
        raise cannot_open(path, os_phrase(error)) from error
    except ValueError as error:
        raise cannot_open(path, "a NUL, or what is no text, stands in it") from error
    if is_directory:
        from ansible_collections.hypervisor.oci.plugins.module_utils._source.directory import (
            LayoutDirectory,
        )

        return LayoutDirectory(path)
    access = FileAccess(path)
    try:
        head = access.read_at(0, BLOCK)
        kind = detect(head)
        if kind is not None:
            from ansible_collections.hypervisor.oci.plugins.module_utils._source.compressed import (
                CompressedArchive,
            )

            return CompressedArchive(path, access, kind)
        _require_tar(path, head)
        return Archive(path, access)
    except BaseException:
        access.close()
        raise


def _require_tar(path: str, head: bytes) -> None:
    problem = f"begins with {head[:8].hex(' ')}" if head else "is empty"
    try:
        if len(head) == BLOCK and parse_header(head) is not None:
            return
    except HeaderError:
        pass
    raise SourceError(
        f"src {show(path)} {problem}, so it is no tar, plain or compressed by gzip or zstd; give an image archive"
    )
