# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds images of some size: build_transfer.py FOLDER, a folder of the collection's own images beside it."""

from __future__ import annotations

import os
import platform
import random
import sys


def _collections_folder() -> str:
    """The folder above ansible_collections that this collection lies in."""
    path = os.path.dirname(os.path.abspath(__file__))
    while os.path.basename(path) != "ansible_collections":
        if path == os.path.dirname(path):
            sys.exit("this is no installed collection: no ansible_collections above")
        path = os.path.dirname(path)
    return os.path.dirname(path)


sys.path.insert(0, _collections_folder())

from ansible_collections.hypervisor.oci.tests.images.builder import (  # noqa: E402
    Image,
    Index,
    Layer,
    file,
    write_docker_archive,
    write_layout,
    write_oci_archive,
)

_OWN = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}.get(platform.machine(), f"linux/{platform.machine()}")
_OTHER = "linux/s390x"
# too large to travel together
_SIZE = 600_000
_SMALL = 5_000


def layer(number: int, size: int = _SIZE) -> Layer:
    """A layer that cannot be compressed."""
    content = random.Random(number).getrandbits(8 * size).to_bytes(size, "big")
    return Layer(file(f"files/{number}", content))


def main() -> int:
    """Build all; returns the exit status."""
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)

    def path(name: str) -> str:
        return os.path.join(folder, name)

    first = Image([layer(number) for number in range(5)], platform=_OWN)
    other = Image([layer(number) for number in range(10, 13)], platform=_OTHER)
    second = Image([layer(number) for number in (0, 1, 2, 3, 9)], platform=_OWN)
    first_of_all = Index(first, other, ref="example.org/app:1")
    write_oci_archive(path("first.oci.tar"), first_of_all)
    write_oci_archive(path("first.oci.tar.gz"), first_of_all, compression="gzip")
    write_layout(path("first-layout"), first_of_all)
    write_docker_archive(path("first.docker.tar"), first, style="old", links="symlink")
    write_oci_archive(path("second.oci.tar"), second)
    small = [layer(number, _SMALL) for number in range(20, 32)]
    write_oci_archive(path("small.oci.tar"), Image(small, platform=_OWN))
    mixed = [layer(0), *small[:6], layer(1), layer(40, _SMALL)]
    write_oci_archive(path("mixed.oci.tar"), Image(mixed, platform=_OWN))
    return 0


if __name__ == "__main__":
    sys.exit(main())
