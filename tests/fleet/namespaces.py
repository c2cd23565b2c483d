# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Goes on in namespaces of its own, of which nothing is left when the program ends, however it ends.

Network, mounts, processes, host name and IPC are the program's own. It is process 1 in there: when that one ends, by
itself, by Ctrl-C or by SIGKILL, the kernel kills all others, and with the last of them go the mounts, the network
devices and the memory that they lay in. Two such programs at once cannot see each other.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import types
import typing as t

from ..tools.removal import remove_below

# <linux/sched.h>, <linux/prctl.h>
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class CannotEnter(Exception):
    """This machine, or this user, has no namespaces to give; the text says why."""


def enter() -> str:
    """Go on as process 1 of new namespaces; returns the path of a folder in memory that is seen from there alone.

    The caller must have no threads. The process that called stays outside, waits, hands on signals, removes the
    folder and ends as the one inside did: it does not return from here. Raises ``CannotEnter``.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # only children are in it: this process has to see the folder as others do, to remove it
    _unshare(libc, _CLONE_NEWPID)
    folder = tempfile.mkdtemp(prefix="oci-fleet-", dir="/var/tmp")
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        _stay_outside(pid, folder)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # an end by a signal must clean up as Ctrl-C does; process 1 is sent no signal that it has no handler for
    for number in _FORWARDED:
        signal.signal(number, signal.default_int_handler)
    _unshare(libc, _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWNET)
    _prepare(folder)
    return folder


def _unshare(libc: ctypes.CDLL, flags: int) -> None:
    if libc.unshare(flags) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise CannotEnter(f"new namespaces are refused: {reason}")


def _stay_outside(pid: int, folder: str) -> t.NoReturn:
    def hand_on(number: int, _frame: types.FrameType | None) -> None:
        os.kill(pid, number)

    for number in _FORWARDED:
        signal.signal(number, hand_on)
    try:
        _pid, status = os.waitpid(pid, 0)
    finally:
        # nothing lies in it here: it was mounted on inside
        os.rmdir(folder)
    # buffers belong to the process inside
    if os.WIFSIGNALED(status):
        os._exit(128 + os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def _prepare(folder: str) -> None:
    """Mounts that show what is in the namespaces, and the folder in memory. Raises ``CannotEnter``."""
    for words in (
        ["mount", "--make-rprivate", "/"],
        ["mount", "-t", "proc", "proc", "/proc"],
        ["mount", "-t", "tmpfs", "-o", "mode=0755", "oci-fleet", folder],
        ["ip", "link", "set", "lo", "up"],
    ):
        subprocess.run(words, check=True, timeout=30)
    _try_root(folder)


def _try_root(folder: str) -> None:
    """See whether nodes can have views of the root directory, which may be such a view of such a view already."""
    for name in ("upper", "work"):
        os.mkdir(os.path.join(folder, name))
    options = f"lowerdir=/,upperdir={folder}/upper,workdir={folder}/work"
    words = ["mount", "-t", "overlay", "-o", options, "overlay", f"{folder}/upper"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise CannotEnter(f"no overlay of the root directory: {done.stderr.strip()}")
    subprocess.run(["umount", f"{folder}/upper"], check=True, timeout=30)
    for name in ("upper", "work"):
        remove_below(folder, os.path.join(folder, name))
