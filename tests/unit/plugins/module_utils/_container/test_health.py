# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verdict about a container, by Docker's rules (docs/behaviour.md, section 15). No time passes."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._container.health import Health, Timing, watch
from ansible_collections.hypervisor.oci.plugins.module_utils._container.probing import Probe

GOOD = Probe(0, b"", 0.1)
BAD = Probe(1, b"no answer\n", 0.1)
SLOW = Probe(None, b"", 30.0)


class Time:
    """A clock that sleeping moves, with probes that take their time."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.seconds += seconds


def watched(
    probes: t.Callable[[float], Probe], wait: float = 10_000.0, ends: float = 10**9, **timing: t.Any
) -> tuple[Health, float]:
    """Watch a container whose probes depend on the seconds since its start; return also when the verdict came."""
    clock = Time()
    health = Health(Timing(**timing), clock.now())

    def probe(limit: float) -> Probe:
        assert limit == health.timing.timeout
        found = probes(clock.now() - 1000)
        clock.sleep(found.seconds)
        return found

    found = watch(health, wait, clock, probe, lambda: clock.now() - 1000 < ends)
    return found, clock.now() - 1000


def test_it_is_healthy_at_once() -> None:
    health, after = watched(lambda _at: GOOD)
    assert (health.status, health.checks, health.streak) == ("healthy", 1, 0)
    assert after < 1


def test_docker_s_defaults() -> None:
    """Three failures, 30 seconds apart, the first after 30; meanwhile a success would be seen every 5 seconds."""
    health, after = watched(lambda _at: BAD)
    assert (health.status, health.streak) == ("unhealthy", 3)
    assert 90 <= after < 100
    health, after = watched(lambda at: GOOD if at > 62 else BAD)
    assert health.status == "healthy"
    assert 62 <= after < 68


def test_failures_in_the_start_period_do_not_count() -> None:
    health, after = watched(lambda _at: BAD, start_period=100, interval=10, retries=2)
    assert health.status == "unhealthy"
    assert 110 < after < 135
    health, _after = watched(lambda at: GOOD if at > 95 else BAD, start_period=100, interval=10, retries=1)
    assert health.status == "healthy"


def test_a_timeout_is_a_failure() -> None:
    health, after = watched(lambda _at: SLOW, interval=1, retries=2)
    assert (health.status, health.checks) == ("unhealthy", 2)
    assert 60 <= after < 65
    assert health.summary() == (
        "it is not healthy: its health check failed 2 times in a row; the last check took more than 30 seconds"
    )


@pytest.mark.parametrize(("interval", "start_interval", "pause"), [(30, 5, 5), (2, 5, 2), (30, 60, 30)])
def test_how_often_it_looks(interval: float, start_interval: float, pause: float) -> None:
    times: list[float] = []

    def probe(at: float) -> Probe:
        times.append(at)
        return Probe(1, b"", 0.0)

    watched(probe, interval=interval, start_interval=start_interval)
    assert {later - earlier for earlier, later in zip(times, times[1:])} == {pause}


def test_a_container_that_ends() -> None:
    health, after = watched(lambda _at: BAD, ends=12)
    assert health.status == "ended"
    assert 12 <= after < 18
    assert health.summary() == "it has ended; the last check ended with 1 and said: no answer"
    health, _after = watched(lambda _at: GOOD, ends=0)
    assert (health.status, health.checks) == ("ended", 0)
    assert health.summary() == "it has ended; no check was run"


def test_the_wait_is_over() -> None:
    health, after = watched(lambda _at: BAD, wait=20)
    assert health.status == "starting"
    assert 20 <= after < 21
    assert "nobody waits any longer" in health.summary()


def test_what_is_kept_of_the_probes() -> None:
    health, _after = watched(lambda at: Probe(1, b"\x1b[2J at %d" % at, 0.1), interval=1, retries=20)
    result = health.to_result()
    assert len(result["log"]) == 5
    assert "\\x1b[2J" in result["summary"]
    assert "\x1b" not in result["summary"]
    assert len(Health(Timing(), 0.0, "unhealthy", log=[Probe(1, b"x" * 4000, 1.0)]).summary()) < 700
