# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Loop devices that must not outlive what uses them."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import typing as t

# <linux/loop.h>
_LOOP_CLR_FD = 0x4C01
_LOOP_SET_STATUS64 = 0x4C04
_LOOP_GET_STATUS64 = 0x4C05
_LO_FLAGS_AUTOCLEAR = 4
# struct loop_info64: its size, the number of the device that holds the file, and the flags
_SIZE = 232
_DEVICE = slice(0, 8)
_FLAGS = 52


def let_go_with(fd: int) -> None:
    """Let the kernel release an open loop device when it is closed for the last time and not mounted."""
    status = bytearray(_SIZE)
    fcntl.ioctl(fd, _LOOP_GET_STATUS64, status)
    status[_FLAGS] |= _LO_FLAGS_AUTOCLEAR
    fcntl.ioctl(fd, _LOOP_SET_STATUS64, status)


def release(devices: t.Iterable[int]) -> None:
    """Release the loop devices whose files lie on file systems of these device numbers, or on one another.

    One that is mounted or open is released when that ends.
    """
    held = set(devices)
    left = _in_use()
    while True:
        found = [path for path, device in left.items() if device in held]
        if not found:
            return
        for path in found:
            del left[path]
            held.add(os.stat(path).st_rdev)
            with contextlib.suppress(OSError), _opened(path) as fd:
                fcntl.ioctl(fd, _LOOP_CLR_FD)


def _in_use() -> dict[str, int]:
    """Return the number of the device that holds the file of each loop device."""
    found = {}
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        device = os.path.join("/dev", path.split("/")[3])
        status = bytearray(_SIZE)
        with contextlib.suppress(OSError), _opened(device) as fd:
            fcntl.ioctl(fd, _LOOP_GET_STATUS64, status)
            found[device] = int.from_bytes(status[_DEVICE], "little")
    return found


@contextlib.contextmanager
def _opened(path: str) -> t.Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
