# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Overwrites the middle of every layer in an OCI archive with zeros; documents stay as they are.

damage.py ARCHIVE
"""

from __future__ import annotations

import sys
import tarfile


def main() -> int:
    """Damage; returns the exit status."""
    path = sys.argv[1]
    with tarfile.open(path) as archive:
        blobs = [member for member in archive if member.isreg() and member.name.lstrip("./").startswith("blobs/")]
    damaged = 0
    with open(path, "r+b") as file:
        for blob in blobs:
            file.seek(blob.offset_data)
            if file.read(1) == b"{":
                continue
            file.seek(blob.offset_data + blob.size // 2)
            file.write(b"\0" * min(16, blob.size - blob.size // 2))
            damaged += 1
    return 0 if damaged else 1


if __name__ == "__main__":
    sys.exit(main())
