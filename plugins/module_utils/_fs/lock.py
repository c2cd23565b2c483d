# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wait for locks that other runs have."""

from __future__ import annotations

import fcntl
import time

from .._errors import RootfsError

_POLL_SECONDS = 0.1


def await_lock(fd: int, timeout: float, work: str, shared: bool = False, since: float | None = None) -> None:
    """Wait for a lock that another run may have, which does ``work``.

    ``since`` is the time by the monotonic clock at which waiting began. Raises ``RootfsError`` after ``timeout`` seconds.
    """
    deadline = (time.monotonic() if since is None else since) + timeout
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            left = deadline - time.monotonic()
            if left <= 0:
                raise RootfsError(
                    f"another run {work} and was not done after {timeout:g} seconds; wait for it or raise lock_timeout"
                ) from None
            time.sleep(min(_POLL_SECONDS, left))
