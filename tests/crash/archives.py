# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small images with something of everything, and a larger one that takes a while."""

from __future__ import annotations

import os
import struct
import typing as t

from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    char,
    directory,
    fifo,
    file,
    hardlink,
    nanoseconds,
    opaque,
    sparse,
    symlink,
    whiteout,
    write_oci_archive,
)

# cap_net_raw+ep, in the form without a root id
_CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
_TIME = nanoseconds(1_600_000_000_123_456_789)


def small(mark: str, base: str = "") -> Image:
    """Two layers, the second of which hides and replaces what the first brings; ``mark`` tells images apart.

    Images with the same ``base`` have the first layer in common.
    """
    return Image([_first(base or mark), _second(mark)], {"User": "app"}, ref="test:" + mark)


def _first(mark: str) -> Layer:
    return Layer(
        directory("./", 0o751, mtime=_TIME),
        directory("etc", mtime=_TIME),
        file("etc/passwd", "app:x:1000:1000::/:/bin/sh\n", mtime=_TIME),
        file("etc/mark", mark, 0o640, uid=1000, gid=1000, mtime=_TIME),
        symlink("etc/link", "mark", mtime=_TIME),
        directory(f"only-{mark}/deep", 0o700, mtime=_TIME),
        file(f"only-{mark}/deep/file", mark * 50, mtime=_TIME),
        file("gone", "hidden by the second layer", mtime=_TIME),
        directory("opaque", mtime=_TIME),
        file("opaque/old", mtime=_TIME),
    )


def _second(mark: str) -> Layer:
    return Layer(
        whiteout("gone"),
        opaque("opaque"),
        file("opaque/new", mark, mtime=_TIME),
        hardlink("etc/hard", "etc/mark"),
        file("tool", "#!" + mark, 0o4755, mtime=_TIME, xattrs={"security.capability": _CAPABILITY}),
        sparse("sparse", [(0, "a" * 512), (8192, mark)], 16384, mtime=_TIME),
        fifo("fifo", mtime=_TIME),
        char("null", 1, 3, mtime=_TIME),
    )


def large(mark: str, folders: int = 20) -> Image:
    """Sixty files for each of the folders, of which the second layer hides and replaces a part."""
    first = [directory("data")]
    second = [whiteout("data/0")]
    for folder in range(folders):
        first.append(directory(f"data/{folder}", 0o750, mtime=_TIME))
        for number in range(60):
            name = f"data/{folder}/{number}"
            first.append(file(name, f"{mark}{number}" * 40, mtime=_TIME))
            if number % 10 == 3 and folder:
                second.append(file(name, mark, 0o600, uid=5, mtime=_TIME))
    return Image([Layer(*first), Layer(*second)], ref="test:" + mark)


def crash_images() -> dict[str, Image]:
    """``a``, ``b``, ``c`` and ``large``."""
    return {**{mark: small(mark) for mark in "abc"}, "large": large("large")}


def sharing_images() -> dict[str, Image]:
    """``a``, ``b`` and ``c``, which have a layer in common."""
    return {mark: small(mark, "base") for mark in "abc"}


def write_images(folder: str, images: t.Mapping[str, Image]) -> dict[str, str]:
    """Write images into a folder; returns their paths by name."""
    return {
        name: str(write_oci_archive(os.path.join(folder, f"{name}.oci.tar"), image)) for name, image in images.items()
    }
