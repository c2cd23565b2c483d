# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many descriptors a process has, to see that nothing is left open."""

from __future__ import annotations

import contextlib
import ctypes
import os

# glibc opens it when the first thread of a process ends, which may be after somebody has joined that thread
with contextlib.suppress(OSError):
    ctypes.CDLL("libgcc_s.so.1")


def open_descriptors() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))
