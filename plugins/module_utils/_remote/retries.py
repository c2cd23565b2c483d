# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How often a request that failed is tried again, and how long each pause is (docs/behaviour.md, section 1)."""

from __future__ import annotations

import random
import threading
import typing as t

from .exchange import LONGEST_PAUSE, Exchange, PassingError

# Seconds before the first retry, doubled for each one after it, and the most of them.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0

_Answer = t.TypeVar("_Answer")


class Retries:
    """The retries of one transfer over an exchange; ``cancel`` ends a pause, from any thread."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._tries = 0
        self._cancelled = threading.Event()

    @property
    def is_cancelled(self) -> bool:
        """Return whether the transfer was given up."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Give the transfer up."""
        self._cancelled.set()

    def reset(self) -> None:
        """Give the retries back, because the transfer goes on."""
        self._tries = 0

    def pause(self, error: PassingError) -> None:
        """Wait before the next try, longer each time. Raises ``SourceError`` after the last one."""
        exchange = self._exchange
        if self.is_cancelled or self._tries >= exchange.options.retries:
            raise exchange.problem(
                f"{error.phrase} ({self._tries + 1} tries)",
                "check the server and the network, or raise url_retries and timeout",
            ) from error
        own = min(_FIRST_PAUSE * 2 ** min(self._tries, 10), _LONGEST_PAUSE)
        self._tries += 1
        # a fleet must not come back all at once, and never before it may
        pause = own * random.uniform(0.75, 1.25)
        if error.wait > 0:
            pause = max(pause, min(error.wait * random.uniform(1.0, 1.2), LONGEST_PAUSE))
            exchange.note_wait(error)
        exchange.allowance.spend(pause)
        self._cancelled.wait(pause)


def patiently(exchange: Exchange, ask: t.Callable[[], _Answer]) -> _Answer:
    """Return what ``ask`` returns, trying again after a ``PassingError``. Raises ``SourceError``."""
    retries = Retries(exchange)
    while True:
        try:
            return ask()
        except PassingError as error:
            retries.pause(error)
