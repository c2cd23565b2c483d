# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compares our index of an outer tar with the standard tarfile's, cold and paired.

    python3 tests/bench/outer_index.py [--blobs 127] [--size 2G] [--runs 15] [--folder DIR]

Run it from an ``ansible_collections/hypervisor/oci`` folder. As root, the page cache is dropped before each run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tarfile
import tempfile
import time
import typing as t

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), *[".."] * 5)))

from ansible_collections.hypervisor.oci.plugins.module_utils._source.range_reader import FileAccess
from ansible_collections.hypervisor.oci.plugins.module_utils._source.tar_index import index_tar


def build(path: str, blobs: int, size: int) -> None:
    """A tar of members that are full of data, since holes would spare the disk what a real archive costs it."""
    each = size // blobs // 512 * 512
    data = os.urandom(1024 * 1024)
    with open(path, "wb") as out:
        for number in range(blobs):
            info = tarfile.TarInfo(f"blobs/sha256/{number:064x}")
            info.size = each
            out.write(info.tobuf(tarfile.USTAR_FORMAT))
            for start in range(0, each, len(data)):
                out.write(data[: each - start])
        out.write(bytes(1024))


def ours(path: str) -> int:
    """Index by our own reader; returns the number of members."""
    access = FileAccess(path)
    access.advise(False)
    try:
        index = index_tar(access.read_at, access.size, path)
        return len(vars(index)["_members"])
    finally:
        access.close()


def standard(path: str) -> int:
    """Index by the standard library; returns the number of members."""
    with tarfile.open(path, "r:") as archive:
        return len(archive.getmembers())


def timed(action: t.Callable[[str], int], path: str, cold: bool) -> float:
    """Seconds of one run."""
    if cold:
        os.sync()
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3")
    start = time.perf_counter()
    action(path)
    return time.perf_counter() - start


def main() -> None:
    """Print medians and the median of the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blobs", type=int, default=127)
    parser.add_argument("--size", type=int, default=2 * 1024**3)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--folder", default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = os.path.join(folder, "archive.tar")
        build(path, options.blobs, options.size)
        for cold in (True, False):
            if cold and os.geteuid() != 0:
                print("cold: skipped, dropping the page cache needs root")
                continue
            pairs = [(timed(ours, path, cold), timed(standard, path, cold)) for _run in range(options.runs)]
            own = statistics.median(pair[0] for pair in pairs)
            other = statistics.median(pair[1] for pair in pairs)
            ratio = statistics.median(pair[0] / pair[1] for pair in pairs)
            print(
                f"{'cold' if cold else 'warm'}: ours {own * 1000:.2f} ms, tarfile {other * 1000:.2f} ms,"
                f" ratio {ratio:.2f} (medians of {options.runs} pairs)"
            )


if __name__ == "__main__":
    main()
