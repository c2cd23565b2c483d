# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clocks that stand in for the module ``time`` in one module, so that no test depends on how busy the machine is."""

from __future__ import annotations

import threading
import time
import typing as t

# seconds; only a test that fails waits that long
_PATIENCE = 60.0


class Clock:
    """Time that passes when somebody sleeps, or, unless ``runs``, only when a test moves ``now``.

    ``slept`` are the seconds of all sleeps that have begun.
    """

    def __init__(self, runs: bool = True) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self._runs = runs
        self._sleepers: dict[int, int] = {}
        self._changed = threading.Condition()

    def monotonic(self) -> float:
        """Return the seconds."""
        return self.now

    def time(self) -> float:
        """Return the time of files, which is real."""
        return time.time()

    def time_ns(self) -> int:
        """Return the same in nanoseconds."""
        return time.time_ns()

    def sleep(self, seconds: float) -> None:
        """Let the time pass, and other threads work for a moment."""
        with self._changed:
            self.slept.append(seconds)
            if self._runs:
                self.now += seconds
            thread = threading.get_ident()
            self._sleepers[thread] = self._sleepers.get(thread, 0) + 1
            self._changed.notify_all()
        time.sleep(0.001)

    def wait_for_sleepers(self, number: int) -> None:
        """Wait until so many threads have slept."""
        self._wait(lambda: len(self._sleepers) >= number)

    def wait_until(self, now: float) -> None:
        """Wait until the sleeps of other threads have made it that late."""
        self._wait(lambda: self.now >= now)

    def wait_for_looks(self) -> None:
        """Wait until a thread that sleeps again and again has looked at everything once more."""
        # the sleep that goes on, or the next one, may have begun before
        wanted = len(self.slept) + 2
        self._wait(lambda: len(self.slept) >= wanted)

    def _wait(self, happened: t.Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(happened, _PATIENCE)


class Pauses:
    """Stands in for the module ``threading`` where an event is a pause that may be cancelled.

    Nobody pauses, unless it ``waits``; ``seconds`` are all pauses.
    """

    def __init__(self, waits: bool = False) -> None:
        self.seconds: list[float] = []
        self._waits = waits

    def Event(self) -> threading.Event:
        """Return an event that notes how long somebody would wait for it."""
        seconds, waits = self.seconds, self._waits

        class Noting(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                seconds.append(-1 if timeout is None else timeout)
                return super().wait(timeout) if waits else self.is_set()

        return Noting()
