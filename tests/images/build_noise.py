# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes an OCI archive of one image whose layers no compression makes smaller, by the standard library alone.

python3 tests/images/build_noise.py OUT.oci.tar LAYERS BYTES
"""

from __future__ import annotations

import hashlib
import os
import sys

if __name__ == "__main__" and not __package__:
    # run as a script: be the member of a package that relative imports need
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    __package__ = "images"

from .builder import Image, Layer, file, write_oci_archive


def main() -> None:
    """Write the archive that the command line names."""
    out, layers, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    made = []
    for number in range(layers):
        data = hashlib.shake_128(f"noise {number}".encode()).digest(size)
        made.append(Layer(file(f"data-{number}", data), compression="gzip"))
    write_oci_archive(out, Image(made, {"Cmd": ["/bin/true"]}, platform="linux/amd64", ref="noise:1"))


if __name__ == "__main__":
    main()
