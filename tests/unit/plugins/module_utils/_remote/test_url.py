# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""URLs, and the options of requests (docs/behaviour.md, section 1)."""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.tests.unit.support import run
from ansible_collections.hypervisor.oci.tests.unit.web import Web, serving
from ansible_collections.hypervisor.oci.tests.unit.remote import opened, problem, redirecting


def test_a_redirect_to_a_host_of_many_letters_costs_no_time(web: Web) -> None:
    """Encoding one takes Python's older releases time by the square of its length."""
    host = "\u00fc" * 20_000
    with serving(b"") as first:
        first.handle = redirecting(f"http://{host.encode().decode('latin-1')}/", 302)
        begun = time.process_time()
        assert "its host is too long" in problem(first.url, retries=0)
        assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///path",
        "https://user:secret@",
        "http://user:secret@host:port/x",
        "http://user:secret@host:99999/x",
        "http://[user:secret@::1/x",
        "http://user:secret@ho st/x",
        "http://user:secret@ho\nst/x",
        "http://user:secret@" + "a" * 64 + "/x",
        "http://user:secret@h..st/x",
    ],
)
def test_what_is_no_url(url: str) -> None:
    message = problem(url, retries=0)
    assert "secret" not in message
    assert "is not a valid URL" in message or "cannot be resolved" in message


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", "/"),
        ("/ä b.tar", "/%C3%A4%20b.tar"),
        ("/a%2Fb?c=d e&f=ü#fragment", "/a%2Fb?c=d%20e&f=%C3%BC"),
        ("/a\r\nX: y", "/aX:%20y"),
        ("?q", "/?q"),
    ],
)
def test_what_is_asked_for(web: Web, path: str, asked: str) -> None:
    base = web.url.rpartition("/")[0]
    with opened(base.replace("http", "HTTP") + path):
        pass
    found = web.asked[0].path
    # some releases of Python escape line ends, others drop them
    assert found == asked or (path.startswith("/a\r") and found.startswith("/a%0D%0A"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"headers": {"Range": "bytes=0-1"}}, "'Range', which the module sets itself"),
        ({"headers": {"accept-encoding": "br"}}, "'accept-encoding', which the module sets itself"),
        ({"headers": {"X": "secret\r\nY: z"}}, "'X', whose name or value cannot stand in a request"),
        ({"headers": {"X y": "secret"}}, "'X y', whose name or value cannot"),
        ({"headers": {"X": "sécret€"}}, "'X', whose name or value cannot"),
        ({"http_agent": "a\nb"}, "http_agent cannot stand in a request"),
        ({"ca_path": "/nonexistent/ca.pem"}, "the option ca_path: '/nonexistent/ca.pem' cannot be read"),
        ({"client_cert": "/"}, "the option client_cert: '/' cannot be read: is a directory"),
        ({"timeout": 0}, "the options timeout and url_retries"),
        ({"url_retries": -1}, "the options timeout and url_retries"),
    ],
)
def test_options_that_cannot_be_used(tmp_path: Path, options: dict[str, t.Any], words: str) -> None:
    with pytest.raises(OciError) as caught:
        run(tmp_path / "x", src="http://127.0.0.1:1/x", **options)
    assert words in caught.value.message
    assert "secret" not in caught.value.message
