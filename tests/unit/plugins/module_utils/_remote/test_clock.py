# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers that keep a node waiting (docs/behaviour.md, section 1)."""

from __future__ import annotations

import concurrent.futures
import re
import socket
import threading
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._remote import clock
from ansible_collections.hypervisor.oci.plugins.module_utils._remote import exchange
from ansible_collections.hypervisor.oci.tests.images.builder import oci_archive
from ansible_collections.hypervisor.oci.tests.unit.clocks import Clock
from ansible_collections.hypervisor.oci.tests.unit.web import Talk, Web, endless, talking
from ansible_collections.hypervisor.oci.tests.unit.remote import ARCHIVE, BIG, IMAGE, opened, problem, read, waited

_OK = b"HTTP/1.1 200 OK\r\n"
_PART = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-8191/99999\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
# one block of a tar, so that what follows it is asked for
_BEGUN = _CHUNKED + b"200\r\n" + ARCHIVE[:512] + b"\r\n"
_WAITS = {
    "interim answers": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.002),
    "headers of one": endless(b"HTTP/1.1 102 Processing\r\nA: ", b"x", 0.05),
    "a status line": endless(_OK[:-3], b"K", 0.05),
    "headers": endless(_PART + b"X: ", b"x", 0.05),
    "short headers": endless(_PART, b"X: y\r\n", 0.05),
    "trailers": endless(_BEGUN + b"0\r\n", b"X: y\r\n", 0.002),
    "one trailer": endless(_BEGUN + b"0\r\nX: ", b"x", 0.05),
    "an extension": endless(_BEGUN + b"1;", b"x", 0.05),
    "a line between chunks": endless(_BEGUN[:-2], b" ", 0.05),
    "leading zeros": endless(_BEGUN, b"0", 0.05),
    "small chunks": endless(_BEGUN, b"1;" + b"x" * 4000 + b"\r\ny\r\n", 0.01),
    "a body": endless(_PART + b"Content-Length: 8192\r\n\r\n", b"x", 0.05),
    "a handshake": endless(b"\x16\x03\x03\x40\x00", b"\0", 0.05, ask=False),
}


def test_nothing_that_a_server_sends_keeps_a_node_waiting() -> None:
    """Each phase of an answer ends with ``timeout``, however its bytes arrive. All at once, which takes a second."""

    def attack(name: str) -> tuple[str, float]:
        scheme = "https" if name == "a handshake" else "http"
        with talking(_WAITS[name]) as port:
            url = f"{scheme}://127.0.0.1:{port}/x"
            return waited(lambda: problem(url, retries=0, timeout=1))

    with concurrent.futures.ThreadPoolExecutor(len(_WAITS)) as pool:
        results = dict(zip(_WAITS, pool.map(attack, _WAITS)))
    late = {name: took for name, (_message, took) in results.items() if took > 4}
    assert late == {}
    for name, (message, _took) in results.items():
        assert re.search(
            "it sent nothing for 1 seconds"
            r"|it sent \d+ bytes in 1 seconds, and nothing of the file"
            r"|it sent only \d+ bytes in 1 seconds"
            "|no connection was made within 1 seconds"
            "|it does not speak HTTP",
            message,
        ), (name, message)


@pytest.mark.parametrize(
    ("first", "again"), [(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), (_BEGUN + b"0\r\n", b"X: y\r\n" * 1000)]
)
def test_nor_at_full_speed(first: bytes, again: bytes) -> None:
    """Bytes that do not belong to the file do not count as progress, however many come."""
    with talking(endless(first, again)) as port:
        url = f"http://127.0.0.1:{port}/x"
        message, took = waited(lambda: problem(url, retries=0, timeout=0.5))
    assert took < 3
    assert "and nothing of the file among them" in message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (endless(b"", b"X: y\r\n", 0.05, ask=False), "and nothing of the file among"),
        (_WAITS["a handshake"], "no connection was made within 2 seconds"),
    ],
)
def test_a_proxy_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch, answer: Talk, words: str) -> None:
    """Neither by its own answer, nor by the handshake of the server behind it."""

    def talk(connection: socket.socket, over: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n")
        if answer is _WAITS["a handshake"]:
            connection.sendall(b"\r\n")
            # a reader of lines would take more with them
            over.wait(0.1)
        answer(connection, over)

    with talking(talk) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        message, took = waited(lambda: problem("https://images.example.org/x", retries=0, timeout=2))
    assert took < 8
    assert words in message


@pytest.fixture(name="passing")
def fixture_passing(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that passes when a server says so; nothing waits for it."""
    passing = Clock()
    monkeypatch.setattr(clock, "time", passing)
    return passing


@pytest.mark.parametrize("kind", ["redirects", "challenges"])
def test_slow_steps_to_an_answer_share_its_time(web: Web, passing: Clock, kind: str) -> None:
    """Ten redirects have no ten times as long, nor has a server that asks for a password again and again."""

    def slow(handler: t.Any) -> bool:
        passing.now += 18
        if kind == "redirects":
            handler.status(302, Location="/again")
        else:
            handler.status(401, WWW_Authenticate='Digest realm="x", nonce="n", stale=true')
        return True

    web.handle = slow
    began = passing.now
    message = problem(web.url, retries=0, timeout=30, username="user", password="secret")
    assert passing.now - began < 72
    assert "bytes in 30 seconds, and nothing of the file among them" in message
    assert len(web.asked) <= 2


def test_many_slow_answers_together(web: Web, passing: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for each member, each of them just in time: what they may take together is bounded, too."""
    monkeypatch.setattr(exchange, "_ALLOWANCE", 3)
    # so that a small answer pays for no more than a moment
    monkeypatch.setattr(clock, "SLOWEST", 1_000_000)
    blobs = {f"blob-{n}": bytes(20_000) for n in range(200)}
    web.data = oci_archive(IMAGE, files=blobs)

    def slow(_handler: t.Any) -> bool:
        passing.now += 10
        return False

    web.handle = slow
    began = passing.now
    message = problem(web.url, timeout=40, retries=0)
    assert passing.now - began < 200
    assert "more than 120 seconds, and one for each KiB; check" in message
    assert len(web.asked) < 20
    # what arrives pays for its time: a large file is not cut off
    monkeypatch.setattr(exchange, "_ALLOWANCE", 0)
    monkeypatch.setattr(clock, "SLOWEST", 10)
    web.data = ARCHIVE
    with opened(web.url, timeout=40, retries=0) as source:
        assert read(source, BIG) == BIG.data


def test_parts_of_single_bytes(web: Web) -> None:
    """Each is an answer in time, and together they would be as many requests as the file has bytes."""

    def crumble(handler: t.Any) -> bool:
        start = int(handler.headers["Range"].partition("=")[2].partition("-")[0])
        handler.status(206, Content_Range=f"bytes {start}-{start}/{len(web.data)}", body=web.data[start : start + 1])
        return True

    web.handle = crumble
    message = problem(web.url, retries=4)
    assert "it sends parts of only 1 bytes (5 tries)" in message
    assert len(web.asked) == 5


def test_cookies_are_not_kept_without_end(web: Web) -> None:
    """One comes back; a server that sets others with each answer does not fill the memory."""
    web.data = oci_archive(IMAGE, files={f"b{n}": bytes(20_000) for n in range(30)})

    def bake(_handler: t.Any) -> bool:
        web.extra["Set-Cookie"] = f"c{len(web.asked)}=1"
        return False

    web.handle = bake
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "_MOST_COOKIES", 5)
        with opened(web.url):
            pass
    sent = [asked.headers.get("cookie", "").count("=") for asked in web.asked]
    assert len(sent) > 20
    assert sent[1] == 1
    assert max(sent) == 5
