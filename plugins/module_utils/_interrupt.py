# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""A run that is told to stop cleans up first: a lost connection must not leave half a tree."""

from __future__ import annotations

import contextlib
import signal
import typing as t

from ._errors import OciError

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class InterruptedRunError(OciError):
    """Somebody, or a lost connection, ended the run."""


@contextlib.contextmanager
def interruptible() -> t.Iterator[None]:
    """Within, SIGTERM, SIGHUP and SIGINT raise ``InterruptedRunError``; once, so that the clean-up ends."""

    def stop(number: int, _frame: t.Any) -> None:
        for other in _SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        name = signal.Signals(number).name
        raise InterruptedRunError(
            f"the run was ended by {name}; dest holds the old tree or the new one as a whole, run again"
        )

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
