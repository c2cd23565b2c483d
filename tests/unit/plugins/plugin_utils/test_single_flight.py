# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One fork fetches and the others wait (docs/behaviour.md, section 7)."""

from __future__ import annotations

import concurrent.futures
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import ImageError, SourceError
from ansible_collections.hypervisor.oci.plugins.plugin_utils import _single_flight
from ansible_collections.hypervisor.oci.plugins.plugin_utils._single_flight import SingleFlight
from ansible_collections.hypervisor.oci.tests.unit.clocks import Clock

# seconds by which the time of a file may lag behind the clock
_TICK = 0.1


@pytest.fixture(name="flight")
def fixture_flight(tmp_path: Path) -> t.Callable[[], SingleFlight]:
    """Makes the flights of forks; threads have locks of their own, too."""
    return lambda: SingleFlight(str(tmp_path))


def test_one_of_many_does_it(tmp_path: Path, flight: t.Callable[[], SingleFlight]) -> None:
    done = tmp_path / "done"

    def fork(_number: int) -> bool:
        one = flight()
        with one.turn(str(done)) as mine:
            if mine:
                time.sleep(0.2)
                done.touch()
        one.end_session()
        return mine

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(fork, range(8))) == [False] * 7 + [True]


def test_a_failure_is_that_of_all_who_waited(
    tmp_path: Path, flight: t.Callable[[], SingleFlight], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(_single_flight, "time", clock)
    tries: list[int] = []

    def fork(_number: int) -> str:
        one = flight()
        try:
            with one.turn("x") as mine:
                assert mine
                tries.append(1)
                clock.wait_for_sleepers(3)
                time.sleep(_TICK)
                raise ImageError("no such image")
        except (SourceError, ImageError) as error:
            return error.message
        finally:
            one.end_session()

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert set(pool.map(fork, range(4))) == {"no such image"}
    assert len(tries) == 1
    # whoever comes later tries again, as a task with retries does
    assert fork(0) == "no such image"
    assert len(tries) == 2


def test_whoever_has_a_session_is_left_to_it_for_a_while(
    tmp_path: Path, flight: t.Callable[[], SingleFlight], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(_single_flight, "time", clock)
    first, second = flight(), flight()
    with first.turn("x"):
        pass
    assert clock.slept == []
    # its node hangs
    with second.turn("x") as mine:
        assert mine
    assert _single_flight._PATIENCE <= sum(clock.slept) < _single_flight._PATIENCE + 0.2
    # it has none, and the first one still has its own
    clock.slept.clear()
    with first.turn("x") as mine:
        assert mine
    first.end_session()
    with second.turn("x") as mine:
        assert mine
    assert clock.slept == []


def test_patience_has_no_end_while_something_is_fetched(
    tmp_path: Path, flight: t.Callable[[], SingleFlight], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(_single_flight, "time", clock)
    first, second = flight(), flight()
    done = tmp_path / "done"
    with concurrent.futures.ThreadPoolExecutor(1) as pool, first.turn(str(done)) as mine:
        assert mine

        def wait() -> bool:
            with second.turn(str(done)) as its:
                return its

        waiting = pool.submit(wait)
        clock.wait_until(clock.now + 3 * _single_flight._PATIENCE)
        assert not waiting.done()
        done.touch()
        assert not waiting.result()


def test_who_only_waited_keeps_no_session(
    tmp_path: Path, flight: t.Callable[[], SingleFlight], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(_single_flight, "time", clock)
    first, second, third = flight(), flight(), flight()
    looks = iter([False, False, True])
    with first.turn("x"):
        first.end_session()
        # it gets the session while the first one still fetches
        with monkeypatch.context() as patch:
            patch.setattr(_single_flight.os.path, "exists", lambda _path: next(looks))
            with second.turn("x") as mine:
                assert not mine
    clock.slept.clear()
    with third.turn("x") as mine:
        assert mine
    assert clock.slept == []


def test_a_failure_is_nobody_elses(tmp_path: Path, flight: t.Callable[[], SingleFlight]) -> None:
    """Whoever waits for another file, such as a layer of another platform, tries itself."""
    ready = threading.Barrier(2)

    def fork(path: str) -> str:
        one = flight()
        try:
            ready.wait(10)
            with one.turn(path) as mine:
                assert mine
                # the one that it waited for is fetched, and the next one fails
                one.path = f"{path}-2"
                time.sleep(0.3)
                raise SourceError(path)
        except SourceError as error:
            return error.message
        finally:
            one.end_session()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(fork, ("arm64", "amd64"))) == ["arm64", "amd64"]
