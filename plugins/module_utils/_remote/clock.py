# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a web server may keep its client waiting, whatever it sends meanwhile (docs/behaviour.md, section 1)."""

from __future__ import annotations

import contextlib
import socket
import time
import typing as t

# Bytes of body per second that a server must send on average.
SLOWEST = 1024


class StalledError(socket.timeout):
    """The server took too long; the text is a phrase for a message."""


class Allowance:
    """What all requests for one file may take together: a fixed time, and more for every byte that arrives."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._left = seconds

    @property
    def is_spent(self) -> bool:
        """Return whether nothing of it is left."""
        return self._left < 0

    def spend(self, seconds: float, received: int = 0) -> None:
        """Count seconds that passed, and the bytes of body that came in them."""
        self._left += received / SLOWEST - seconds


class Clock:
    """Bounds each wait for one answer, and the average of the waits for its body.

    A wait begins and ends in ``waiting``: one for the headers of an answer, from the connection on and with all
    redirects, and one for each piece of its body. Only bytes of the body count as progress. So headers, interim
    answers, the lines between chunks and trailers end after ``timeout`` seconds as a whole, however they arrive.
    """

    def __init__(self, timeout: float, allowance: Allowance) -> None:
        self.timeout = timeout
        self._allowance = allowance
        self._began = time.monotonic()
        self._heard = 0
        # of the waits for the body since the average was last looked at
        self._waited = 0.0
        self._received = 0

    @contextlib.contextmanager
    def waiting(self) -> t.Iterator[None]:
        """Bound what is done in the context to ``timeout`` seconds, as far as it asks for ``left``."""
        self._began = time.monotonic()
        self._heard = 0
        try:
            yield
        finally:
            self._allowance.spend(time.monotonic() - self._began)

    def left(self) -> float:
        """Return the seconds that are left of the wait. Raises ``StalledError``."""
        left = self._began + self.timeout - time.monotonic()
        if left <= 0:
            raise self.stalled()
        return left

    def hear(self, count: int) -> None:
        """Count bytes of any kind, for the message alone."""
        self._heard += count

    def stalled(self) -> StalledError:
        """Return the error for a wait that took too long."""
        if self._heard:
            return StalledError(
                f"it sent {self._heard} bytes in {self.timeout:g} seconds, and nothing of the file among them"
            )
        return StalledError(f"it sent nothing for {self.timeout:g} seconds")

    def receive(self, count: int) -> None:
        """Count bytes of the body at the end of their wait. Raises ``StalledError`` where they are too few on average."""
        self._allowance.spend(0, count)
        self._waited += time.monotonic() - self._began
        self._received += count
        if self._waited > self.timeout:
            # single bytes now and then end each wait in time
            if self._received < SLOWEST * self._waited:
                raise StalledError(f"it sent only {self._received} bytes in {self._waited:.0f} seconds")
            self._waited, self._received = 0.0, 0
