# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turn signals into an exception, so that a run that is told to stop cleans up first."""

from __future__ import annotations

import contextlib
import signal
import typing as t

from ._errors import OciError

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_DEST = "dest holds the whole old tree or the whole new one"


class InterruptedRunError(OciError):
    """A signal ended the run, for example because the connection was lost."""


@contextlib.contextmanager
def interruptible(left: str = _DEST) -> t.Iterator[None]:
    """Within the block, SIGTERM, SIGHUP and SIGINT raise ``InterruptedRunError``, which says what is ``left``.

    Only the first signal does, so that nothing interrupts the clean-up.
    """

    def stop(number: int, _frame: t.Any) -> None:
        for other in _SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        name = signal.Signals(number).name
        raise InterruptedRunError(f"{name} ended the run; {left}, run again")

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
