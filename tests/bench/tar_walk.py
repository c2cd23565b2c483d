# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compares the CPU time of two readers of a layer's tar, paired: that of layers, and that of outer archives.

    PYTHONPATH=COLLECTIONS python3 tests/bench/tar_walk.py [--files 92000] [--size 3000] [--runs 9]

``COLLECTIONS`` is the folder that holds ``ansible_collections``. The second reader knows no limits, attributes and holes.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tarfile
import time
import typing as t

from ansible_collections.hypervisor.oci.plugins.module_utils._layer.budget import Budget
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.tar_entries import TarReader
from ansible_collections.hypervisor.oci.plugins.module_utils._report import Report
from ansible_collections.hypervisor.oci.plugins.module_utils._source.compressed import ChunkStream
from ansible_collections.hypervisor.oci.plugins.module_utils._source.range_reader import CHUNK
from ansible_collections.hypervisor.oci.plugins.module_utils._source.tar_index import Member, TarIndex, TarWalk


def build(files: int, size: int) -> bytes:
    """A tar of many files, as of node_modules."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(files):
            info = tarfile.TarInfo(f"node_modules/package-{number % 900}/lib/file-{number}.js")
            info.size = size
            archive.addfile(info, io.BytesIO(bytes(size)))
    return out.getvalue()


def chunks(data: bytes) -> t.Iterator[bytes]:
    """The tar as a layer's stream gives it."""
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]


class _Nothing(TarIndex):
    """An index that keeps nothing, since a layer needs none."""

    def add(self, name: bytes, member: Member) -> None:
        """Do nothing."""


def by_entries(data: bytes) -> None:
    """Read as layers are read."""
    reader = TarReader(chunks(data), "sha256:0", Report(), Budget(2**60, 10**9))
    for _entry in reader:
        if reader.whole() is None:
            for _piece in reader.data():
                pass


def by_walk(data: bytes) -> None:
    """Read as outer archives are read, with each member's content."""
    stream = ChunkStream(chunks(data))
    walk = TarWalk(stream, "archive")
    walk.index = _Nothing("archive")
    for member in walk:
        stream.read(member.size)


def seconds(action: t.Callable[[bytes], None], data: bytes) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    action(data)
    return time.process_time() - start


def main() -> None:
    """Print medians and the median of the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=92_000)
    parser.add_argument("--size", type=int, default=3000)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    data = build(options.files, options.size)
    pairs = [(seconds(by_entries, data), seconds(by_walk, data)) for _run in range(options.runs)]
    own = statistics.median(pair[0] for pair in pairs)
    other = statistics.median(pair[1] for pair in pairs)
    ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
    print(f"TarReader {own:.3f} s, TarWalk {other:.3f} s, ratio {ratio:.2f} (medians of {options.runs} pairs)")


if __name__ == "__main__":
    main()
