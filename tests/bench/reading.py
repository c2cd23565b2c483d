# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Times, in this process, what a run needs to know that nothing is to do: index, manifest and config, verified.

    python3 reading.py ARCHIVE COUNT

Prints the median and the least in milliseconds. The collection must be importable.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time

from ansible_collections.hypervisor.oci.plugins.module_utils._image.selection import select_image
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source


def milliseconds(path: str) -> float:
    """One reading."""
    start = time.perf_counter()
    with contextlib.closing(open_source(path)) as source:
        select_image(source, None, None, None)
    return (time.perf_counter() - start) * 1000


if __name__ == "__main__":
    times = [milliseconds(sys.argv[1]) for _turn in range(int(sys.argv[2]))]
    print(statistics.median(times), min(times))
