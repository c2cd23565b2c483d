# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pauses between tries, and what a server says about them (docs/behaviour.md, section 1)."""

from __future__ import annotations

import contextlib
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._remote import retries
from ansible_collections.hypervisor.oci.plugins.module_utils._remote.options import HttpOptions
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.tests.unit.clocks import Pauses
from ansible_collections.hypervisor.oci.tests.unit.remote import ARCHIVE, opened, problem
from ansible_collections.hypervisor.oci.tests.unit.web import serving


@pytest.fixture(name="pauses")
def fixture_pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    """Pauses that are noted; test_pull.py waits for one."""
    pauses = Pauses()
    monkeypatch.setattr(retries, "threading", pauses)
    return pauses


@pytest.mark.parametrize(("said", "least", "most"), [("1", 1.0, 1.2), ("soon", 0.0075, 0.0125)])
def test_a_pause_that_the_server_asks_for(pauses: Pauses, said: str, least: float, most: float) -> None:
    """Retry-After is heard."""
    with serving(ARCHIVE) as web:
        busy = [True]

        def answer(handler: t.Any) -> bool:
            if not busy:
                return False
            busy.pop()
            handler.status(503, Retry_After=said)
            return True

        web.handle = answer
        web.data = ARCHIVE[:8192] + b"\0" * 1024
        with contextlib.suppress(SourceError), opened(web.url):
            pass
        assert len(pauses.seconds) == 1
        assert least <= pauses.seconds[0] <= most


@pytest.mark.parametrize(
    ("said", "quoted"), [("61", "after 61 seconds (Retry-After: '61')"), ("999999999", "999999999 seconds")]
)
def test_a_pause_that_is_too_long_is_not_waited_for(pauses: Pauses, said: str, quoted: str) -> None:
    with serving(ARCHIVE) as web:

        def answer(handler: t.Any) -> bool:
            handler.status(429, Retry_After=said)
            return True

        web.handle = answer
        message = problem(web.url)
        assert quoted in message and "run again later" in message
        assert pauses.seconds == [] and len(web.asked) == 1


def test_a_pause_until_a_date(pauses: Pauses) -> None:
    """The date is compared with the server's own clock."""
    with serving(ARCHIVE) as web:

        def answer(handler: t.Any) -> bool:
            web.handle = lambda _handler: False
            handler.send_response_only(503)
            handler.send_header("Date", "Sun, 06 Nov 1994 08:49:37 GMT")
            handler.send_header("Retry-After", "Sun, 06 Nov 1994 08:49:38 GMT")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return True

        web.handle = answer
        options = HttpOptions()
        with contextlib.closing(open_source(web.url, options)):
            pass
        assert len(pauses.seconds) == 1
        assert 1 <= pauses.seconds[0] <= 1.2
        assert options.notes.texts == [
            "127.0.0.1: the server answered 503 Service Unavailable, so the run waited 1 seconds as Retry-After says"
        ]
