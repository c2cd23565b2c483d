# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Watch a container by its health check, by Docker's rules (docs/behaviour.md, section 15)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .._errors import visible
from .probing import Probe

HEALTHY = "healthy"
UNHEALTHY = "unhealthy"
STARTING = "starting"
ENDED = "ended"

_WHY = {
    UNHEALTHY: "it is not healthy: its health check failed {} times in a row",
    STARTING: "it is not healthy yet, and nobody waits any longer",
    ENDED: "it has ended",
}
_LONGEST_SAID = 500

# Probes whose output is returned, the latest.
_MOST_LOGGED = 5


@dataclass(frozen=True)
class Timing:
    """When a check runs and what its failures mean; all but ``retries`` in seconds."""

    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    start_interval: float = 5.0
    retries: int = 3

    @property
    def pause(self) -> float:
        """How long a watcher waits between two probes: a success may be seen earlier than Docker looks."""
        return min(self.interval, self.start_interval)


@dataclass
class Health:
    """What is known of a container's health.

    A failure counts at Docker's own pace, once in each ``interval`` since the start, though probes are more frequent; so
    the verdict is Docker's. ``started`` is the time of the start by the monotonic clock.
    """

    timing: Timing
    started: float
    status: str = STARTING
    streak: int = 0
    checks: int = 0
    log: list[Probe] = field(default_factory=list)
    _counted: float = 0.0

    def __post_init__(self) -> None:
        self._counted = self.started

    def add(self, probe: Probe, now: float) -> None:
        """Add a probe that ended at ``now``."""
        self.checks += 1
        self.log = [*self.log, probe][-_MOST_LOGGED:]
        if probe.succeeded:
            # a success ends the start period
            self.status, self.streak = HEALTHY, 0
            self._counted = now
            return
        if self.status == STARTING and now - self.started < self.timing.start_period:
            self._counted = now
            return
        if now - self._counted >= self.timing.interval:
            self._counted = now
            self.streak += 1
            if self.streak >= self.timing.retries:
                self.status = UNHEALTHY

    def to_result(self) -> dict[str, t.Any]:
        """Return the module's result."""
        return {
            "status": self.status,
            "failing_streak": self.streak,
            "checks": self.checks,
            "log": [probe.to_result() for probe in self.log],
            "summary": self.summary(),
        }

    def summary(self) -> str:
        """Return one sentence for an administrator; what the container wrote is made visible in it."""
        if self.status == HEALTHY:
            return "it is healthy"
        return f"{_WHY[self.status].format(self.streak)}; {self._last_words()}"

    def _last_words(self) -> str:
        if not self.log:
            return "no check was run"
        last = self.log[-1]
        how = f"took more than {self.timing.timeout:g} seconds" if last.status is None else f"ended with {last.status}"
        said = visible(last.output.decode("utf-8", "replace").strip(), _LONGEST_SAID)
        return f"the last check {how}" + (f" and said: {said}" if said else "")


class Clock(t.Protocol):
    """Time that passes."""

    def now(self) -> float:
        """Return seconds of the monotonic clock."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""


def watch(
    health: Health, wait: float, clock: Clock, probe: t.Callable[[float], Probe], is_running: t.Callable[[], bool]
) -> Health:
    """Probe until the container is healthy, unhealthy or has ended, or ``wait`` seconds since its start are over.

    ``probe`` gets the seconds that it may take at most. Raises ``RootfsError`` as it does.
    """
    end = health.started + wait
    while health.status == STARTING:
        if not is_running():
            health.status = ENDED
            break
        found = probe(health.timing.timeout)
        now = clock.now()
        health.add(found, now)
        if health.status != STARTING or now >= end:
            break
        clock.sleep(min(health.timing.pause, max(0.0, end - now)))
    return health
