# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run that is told to stop (docs/behaviour.md, section 7)."""

from __future__ import annotations

import os
import signal
import time
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._interrupt import InterruptedRunError, interruptible

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@pytest.fixture(autouse=True)
def _same_handlers() -> t.Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_an_error_for_the_user(number: signal.Signals) -> None:
    cleaned = []
    with pytest.raises(InterruptedRunError) as caught, interruptible():
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            cleaned.append(True)
    assert isinstance(caught.value, OciError)
    assert caught.value.message.startswith(f"{number.name} ended the run; ")
    assert cleaned == [True]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_does_not_disturb_the_clean_up(number: signal.Signals) -> None:
    """Whoever is impatient must not leave half a tree."""
    steps: list[int] = []
    with pytest.raises(InterruptedRunError), interruptible():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            for _time in range(3):
                os.kill(os.getpid(), number)
                steps.append(len(steps))
    assert steps == [0, 1, 2]


def test_nothing_happens_without_one() -> None:
    with interruptible():
        assert all(callable(signal.getsignal(number)) for number in SIGNALS)


def test_handlers_come_back_after_other_errors() -> None:
    with pytest.raises(ZeroDivisionError), interruptible():
        raise ZeroDivisionError
