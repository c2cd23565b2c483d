# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives behind a URL (docs/behaviour.md, section 1)."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import email.utils
import gzip
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils import urls
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hypervisor.oci.plugins.module_utils import _secrets
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError, SourceChangedError, SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._source import decompress, tar_index
from ansible_collections.hypervisor.oci.plugins.module_utils._remote import clock
from ansible_collections.hypervisor.oci.plugins.module_utils._remote import http
from ansible_collections.hypervisor.oci.plugins.module_utils._remote.http import HttpOptions
from ansible_collections.hypervisor.oci.plugins.module_utils._source.source import Source
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.plugins.modules import oci_image_info, oci_rootfs
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Index,
    Layer,
    docker_archive,
    file,
    oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.support import contents, give, run, without_waiting
from ansible_collections.hypervisor.oci.tests.unit.web import Talk, Web, endless, serving, talking


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no compression makes smaller, the same each time."""
    import random

    return random.Random(seed).getrandbits(8 * size).to_bytes(size, "big")


BIG = Layer(file("big", noise(3_000_000)))
SMALL = Layer(file("small", b"small"))
IMAGE = Image([BIG, SMALL], ref="demo:1")
OTHERS = [
    Image([Layer(file("f", noise(2_000_000, 7)))], platform="linux/arm64"),
    Image([Layer(file("g", noise(2_000_000, 8)))], platform="linux/s390x"),
]
ARCHIVE = oci_archive(IMAGE)
MULTI = oci_archive(Index(IMAGE, *OTHERS))
TREE = {"big": noise(3_000_000), "small": b"small"}


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are short, nothing is made durable, and no proxy or netrc of this machine is used."""
    without_waiting(monkeypatch)
    monkeypatch.setattr(http, "_FIRST_PAUSE", 0.01)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", "/nonexistent")


@pytest.fixture
def web() -> t.Iterator[Web]:
    """A server of ``MULTI``."""
    with serving(MULTI) as server:
        yield server


@contextlib.contextmanager
def opened(url: str, **options: t.Any) -> t.Iterator[Source]:
    """The source behind a URL."""
    with contextlib.closing(open_source(url, HttpOptions(**options))) as source:
        yield source


def read(source: Source, layer: Layer) -> bytes:
    """A blob as a layer is read."""
    with contextlib.closing(source.open(layer.path)) as reader:
        return b"".join(iter(lambda: reader.read(64 * 1024), b""))


def problem(url: str, **options: t.Any) -> str:
    """What opening says."""
    with pytest.raises(OciError) as caught, opened(url, **options):
        pass
    return caught.value.message


def pull(web: Web, tmp_path: Path, **changes: t.Any) -> dict[str, t.Any]:
    """Provision from the server."""
    changes = {"src": web.url, "url_retries": 3, **changes}
    return run(tmp_path / "dest" / "root", **changes)


def left(tmp_path: Path) -> list[str]:
    """What lies beside dest, and in a cache."""
    found = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
    return sorted(name for name in found if not name.startswith("dest/root/"))


# -- what is fetched


def test_only_the_index_and_the_chosen_blobs(web: Web, tmp_path: Path) -> None:
    result = pull(web, tmp_path)
    assert result["changed"]
    assert contents(tmp_path / "dest" / "root") == TREE
    wanted = BIG.size + SMALL.size
    documents = len(IMAGE.data) + len(IMAGE.config.data)
    assert wanted < web.sent <= 1.02 * wanted + documents
    # a blob is one request
    assert sum(asked.sent > 100_000 for asked in web.asked) == 1
    assert len(web.asked) <= 10
    for asked in web.asked:
        assert asked.status == 206
        assert asked.headers["accept-encoding"] == "identity"
        assert asked.headers["user-agent"] == "ansible-httpget"
    conditions = [asked.headers.get("if-range") for asked in web.asked]
    assert conditions == [None] + [web.etag] * (len(conditions) - 1)


def test_a_run_that_changes_nothing_fetches_no_blob(web: Web, tmp_path: Path) -> None:
    pull(web, tmp_path)
    web.asked.clear()
    result = pull(web, tmp_path)
    assert not result["changed"]
    assert web.sent < 30_000


def test_check_mode_fetches_no_blob_and_writes_nothing(web: Web, tmp_path: Path) -> None:
    result = pull(web, tmp_path, check_mode=True)
    assert result["changed"]
    assert web.sent < 30_000
    assert os.listdir(tmp_path) == []


def test_no_byte_is_fetched_twice() -> None:
    """Windows and blobs do not overlap: many small layers are read out of the windows."""
    layers = [Layer(file(f"f{n}", noise(5_000, n))) for n in range(30)]
    with serving(oci_archive(Image(layers))) as web, opened(web.url) as source:
        for layer in layers:
            assert read(source, layer) == layer.data
        assert web.sent <= len(web.data)
        assert len(web.asked) < 12


@pytest.mark.parametrize("order", ["sorted", "reversed"])
@pytest.mark.parametrize("style", ["new", "old"])
def test_other_archives(order: t.Any, style: t.Any, tmp_path: Path) -> None:
    data = docker_archive(IMAGE, repo_tags=[["demo:1"]], style=style, order=order)
    with serving(data) as web:
        pull(web, tmp_path)
        assert contents(tmp_path / "dest" / "root") == TREE
        assert web.sent <= len(data)


def test_long_extended_headers_and_many_members() -> None:
    members = {f"{'long' * 40}/{n}": b"x" * (n * 10) for n in range(400)}
    with serving(oci_archive(IMAGE, files=members)) as web, opened(web.url) as source:
        assert read(source, BIG) == BIG.data
        for name, data in members.items():
            assert source.size_of(name) == len(data)
        assert len(web.asked) < 40


def test_reading_again_from_the_beginning() -> None:
    with serving(ARCHIVE) as web, opened(web.url) as source:
        reader = source.open(BIG.path)
        assert reader.read(100_000) == BIG.data[:100_000]
        reader.close()
        assert read(source, BIG) == BIG.data


@pytest.mark.parametrize("size", [0, 1, 511])
def test_what_is_no_archive(size: int) -> None:
    with serving(b"<html>login</html>".ljust(size, b" ")[: size or None]) as web:
        if not size:
            web.data = b""
        message = problem(web.url)
        found = "is empty" if not size else "begins with 3c"
        assert f"src '{web.url}' {found}" in message


# -- servers without ranges, and archives that are compressed as a whole


def no_ranges(web: Web) -> None:
    """As a simple server."""
    web.ranges = False


def chunked(web: Web) -> None:
    """As a program that makes the answer on the way: no length, no version."""
    web.ranges, web.chunked, web.etag = False, True, None


def compressing(web: Web) -> None:
    """As a server that compresses on the way although nobody asked for it."""
    web.ranges, web.encoding = False, gzip.compress
    web.extra["Content-Encoding"] = "gzip"


def compressing_parts(web: Web) -> None:
    """The same, of each range for itself."""
    web.encoding = gzip.compress
    web.extra["Content-Encoding"] = "x-gzip"


def without_total(web: Web) -> None:
    """A size that the server does not say."""
    web.faults = ["unknown-total"]


STREAMS = [no_ranges, chunked, compressing, compressing_parts, without_total]


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_server_without_ranges(tmp_path: Path, kind: t.Callable[[Web], None], compression: t.Any) -> None:
    """One pass for the documents, one into a spool beside dest."""
    with serving(oci_archive(IMAGE, compression=compression)) as web:
        kind(web)
        if kind is without_total:
            web.faults *= 9
        with opened(web.url) as source:
            assert source.form == "stream"
        web.asked.clear()
        if kind is without_total:
            web.faults = ["unknown-total"] * 9
        result = pull(web, tmp_path, check_mode=True)
        assert result["changed"]
        assert os.listdir(tmp_path) == []
        if kind is without_total:
            web.faults = ["unknown-total"] * 9
        web.asked.clear()
        pull(web, tmp_path)
        assert contents(tmp_path / "dest" / "root") == TREE
        assert sum(asked.sent > 100_000 for asked in web.asked) == 2
        assert left(tmp_path) == [
            "dest", "dest/.root.oci_rootfs", "dest/.root.oci_rootfs/record.json", "dest/root",
        ]  # fmt: skip
        web.asked.clear()
        if kind is without_total:
            web.faults = ["unknown-total"] * 9
        assert not pull(web, tmp_path)["changed"]
        assert sum(asked.sent > 100_000 for asked in web.asked) == 1


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_an_archive_compressed_as_a_whole(tmp_path: Path, compression: t.Any) -> None:
    """With ranges, what breaks off goes on where it was."""
    with serving(oci_archive(IMAGE, compression=compression)) as web:
        web.faults = ["", "reset-middle", "short", ""]
        with opened(web.url) as source:
            assert source.form == "compressed archive"
        assert web.sent < 1.6 * len(web.data)
        pull(web, tmp_path)
        assert contents(tmp_path / "dest" / "root") == TREE


def test_a_stream_that_breaks_off_begins_again(tmp_path: Path) -> None:
    with serving(ARCHIVE) as web:
        web.ranges = False
        web.faults = ["short", "reset-middle", "", "reset", "short"]
        pull(web, tmp_path)
        assert contents(tmp_path / "dest" / "root") == TREE
        web.faults = ["short"] * 9
        message = problem(web.url, retries=2)
        assert "broke off" in message
        assert "(3 tries)" in message


def test_a_stream_is_not_mixed_of_two_versions(tmp_path: Path) -> None:
    other = oci_archive(Image([SMALL, BIG]))
    with serving(ARCHIVE) as web:
        web.ranges = False
        seen = []

        def change(_handler: t.Any) -> bool:
            seen.append(1)
            # in the middle of the first pass of the first run
            if len(seen) == 1:
                web.faults = ["short"]
            elif len(seen) == 2:
                web.data, web.etag = other, '"version-2"'
            return False

        web.handle = change
        pull(web, tmp_path)
        assert contents(tmp_path / "dest" / "root") == TREE


def test_an_encoding_that_nobody_can_undo() -> None:
    with serving(ARCHIVE) as web:
        web.ranges = False
        web.extra["Content-Encoding"] = "br"
        assert "the server encodes it as 'br'" in problem(web.url)


def test_a_damaged_stream_is_told() -> None:
    with serving(gzip.compress(ARCHIVE)[:-200_000]) as web:
        for web.ranges in (True, False):
            assert "its gzip stream ends too early" in problem(web.url)


# -- faults on the way


@pytest.mark.parametrize(
    "faults",
    [
        ["reset"],
        ["reset-middle"],
        ["short"],
        ["503", "500", "429"],
        ["502", "reset", "408"],
        ["stall"],
        ["drip"],
        ["part"],
        ["whole"],
    ],
)
@pytest.mark.parametrize("when", ["first", "index", "blob"])
def test_what_a_retry_cures(web: Web, tmp_path: Path, faults: list[str], when: str) -> None:
    """Everything arrives, and what had arrived is not asked for again."""
    web.data = ARCHIVE
    index = 1 if when == "index" else 0
    if when == "blob":
        with opened(web.url):
            index = len(web.asked)
        web.asked.clear()
    web.healthy, web.faults = index, list(faults)
    # what drips is one byte in a tenth of a second
    pull(web, tmp_path, timeout=1)
    assert contents(tmp_path / "dest" / "root") == TREE
    assert web.faults == []
    if faults == ["whole"]:
        # at first it is a server without ranges
        return
    # a reset also takes away what was on its way
    assert web.sent < (1.6 if "reset-middle" in faults else 1.02) * len(web.data)


def test_a_blob_goes_on_at_the_byte_that_was_reached() -> None:
    with serving(ARCHIVE) as web, opened(web.url) as source:
        web.asked.clear()
        web.faults = ["short", "reset-middle", "503"]
        assert read(source, BIG) == BIG.data
        starts = [asked.range[0] for asked in web.asked if asked.range]
        assert starts[0] < starts[1] < starts[2] == starts[3]


def test_retries_are_bounded() -> None:
    with serving(ARCHIVE) as web:
        web.faults = ["503"] * 99
        message = problem(web.url, retries=2)
        assert message == (
            f"src '{web.url}' cannot be fetched: the server answered 503 Service Unavailable (3 tries);"
            " check the server and the network, or raise url_retries and timeout"
        )
        assert len(web.faults) == 96
        web.faults = ["503"] * 2
        with opened(web.url, retries=2):
            pass


def test_progress_gives_retries_back() -> None:
    """A long transfer over a bad line ends, a server that gives a little each time does not keep it for ever."""
    data = oci_archive(Image([Layer(file("f", noise(12_000_000)), compression="none")]))
    with serving(data) as web, opened(web.url, retries=1) as source:
        web.faults = ["short"] * 3
        layer = Layer(file("f", noise(12_000_000)), compression="none")
        assert read(source, layer) == layer.data
        web.faults = ["part"] * 99
        with pytest.raises(SourceError, match="parts of only 1000 bytes"):
            read(source, layer)


@pytest.mark.parametrize(("said", "least", "most"), [("1", 0.7, 4), ("soon", 0, 0.7), ("999999", 0.3, 2)])
def test_a_pause_that_the_server_asks_for(
    monkeypatch: pytest.MonkeyPatch, said: str, least: float, most: float
) -> None:
    """Retry-After is heard, within bounds."""
    if said == "999999":
        monkeypatch.setattr(http, "_LONGEST_PAUSE", 0.5)
    with serving(ARCHIVE) as web:
        busy = [True]

        def answer(handler: t.Any) -> bool:
            if not busy:
                return False
            busy.pop()
            handler.status(503, Retry_After=said)
            return True

        web.handle = answer
        began = time.monotonic()
        web.data = ARCHIVE[:8192] + b"\0" * 1024
        with contextlib.suppress(SourceError), opened(web.url):
            pass
        assert least <= time.monotonic() - began <= most


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{port.getsockname()[1]}/x"
        message = problem(url, retries=1)
    assert "cannot be fetched: it cannot be reached or read (connection refused) (2 tries)" in message


def test_a_server_that_says_nothing() -> None:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        port.listen(8)
        url = f"http://127.0.0.1:{port.getsockname()[1]}/x"
        began = time.monotonic()
        message = problem(url, retries=1, timeout=0.3)
        assert "it sent nothing for 0.3 seconds (2 tries)" in message
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 206 OK\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes 0-9/9999\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 70000 + b"\r\n\r\n",
        b"",
    ],
)
def test_what_is_no_http(answer: bytes) -> None:
    with serving(ARCHIVE) as web:

        def say(handler: t.Any) -> bool:
            handler.wfile.write(answer)
            return True

        web.handle = say
        message = problem(web.url, retries=1)
        assert "cannot be fetched" in message
        assert "(2 tries)" in message


@pytest.mark.parametrize("fault", ["other-start", "no-range", "other-length", "beyond", "multipart"])
@pytest.mark.parametrize("healthy", [0, 1])
def test_answers_that_cannot_be_believed(fault: str, healthy: int) -> None:
    with serving(ARCHIVE) as web:
        web.healthy, web.faults = healthy, [fault] * 9
        message = problem(web.url)
        assert "were asked for, and the server answered with the Content-Range" in message
        # no retry cures that
        assert len(web.faults) == 8


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "the server answered 401 Unauthorized; check url_username, url_password and headers"),
        (403, "the server answered 403 Forbidden; check url_username"),
        (404, "the server answered 404 Not Found; check the URL"),
        (407, "give the proxy's user and password in the environment"),
        (410, "the server answered 410 Gone; check the URL"),
        (418, "the server answered 418"),
        (304, "the server answered 304"),
        (204, "the server answered 204"),
        (501, "the server answered 501"),
    ],
)
def test_a_status_that_stays(status: int, words: str) -> None:
    with serving(ARCHIVE) as web:
        web.faults = [str(status)] * 9
        assert words in problem(web.url)
        assert len(web.faults) == 8


# -- servers that keep a node waiting

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


def waited(work: t.Callable[[], str], longest: float = 6.0) -> tuple[str, float]:
    """What an attack comes to, and after how long; an empty text where it does not end."""
    found: list[tuple[str, float]] = []
    began = time.monotonic()

    def attempt() -> None:
        found.append((work(), time.monotonic() - began))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(longest)
    return found[0] if found else ("", longest)


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
    """Bytes that are none of the file are no progress, however many they are."""
    with talking(endless(first, again)) as port:
        url = f"http://127.0.0.1:{port}/x"
        message, took = waited(lambda: problem(url, retries=0, timeout=0.5))
    assert took < 3
    assert "and nothing of the file among them" in message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (endless(b"", b"X: y\r\n", 0.05, ask=False), "and nothing of the file among"),
        (_WAITS["a handshake"], "no connection was made within 0.5 seconds"),
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
        message, took = waited(lambda: problem("https://images.example.org/x", retries=0, timeout=0.5))
    assert took < 3
    assert words in message


@pytest.mark.parametrize("kind", ["redirects", "challenges"])
def test_slow_steps_to_an_answer_share_its_time(web: Web, kind: str) -> None:
    """Ten redirects have no ten times as long, nor has a server that asks for a password again and again."""

    def slow(handler: t.Any) -> bool:
        time.sleep(0.3)
        if kind == "redirects":
            handler.status(302, Location="/again")
        else:
            handler.status(401, WWW_Authenticate='Digest realm="x", nonce="n", stale=true')
        return True

    web.handle = slow
    began = time.monotonic()
    message = problem(web.url, retries=0, timeout=0.5, username="user", password="secret")
    assert time.monotonic() - began < 1.2
    assert "bytes in 0.5 seconds, and nothing of the file among them" in message
    assert len(web.asked) <= 2


def test_many_slow_answers_together(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for each member, each of them just in time: what they may take together is bounded, too."""
    monkeypatch.setattr(http, "_ALLOWANCE", 3)
    # so that a small answer pays for no more than a moment
    monkeypatch.setattr(clock, "SLOWEST", 1_000_000)
    blobs = {f"blob-{n}": bytes(20_000) for n in range(200)}
    web.data = oci_archive(IMAGE, files=blobs)

    def slow(_handler: t.Any) -> bool:
        time.sleep(0.1)
        return False

    web.handle = slow
    began = time.monotonic()
    message = problem(web.url, timeout=0.4, retries=0)
    assert time.monotonic() - began < 4
    assert "more than 1.2 seconds, and one for each KiB; check" in message
    assert len(web.asked) < 20
    # what arrives pays for its time: a large file is not cut off
    monkeypatch.setattr(http, "_ALLOWANCE", 0)
    monkeypatch.setattr(clock, "SLOWEST", 1024)
    web.data = ARCHIVE
    with opened(web.url, timeout=0.4, retries=0) as source:
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
        patch.setattr(http, "_MOST_COOKIES", 5)
        with opened(web.url):
            pass
    sent = [asked.headers.get("cookie", "").count("=") for asked in web.asked]
    assert len(sent) > 20
    assert sent[1] == 1
    assert max(sent) == 5


# -- archives without end


class Endless:
    """A file of 2**50 bytes that repeats itself behind its beginning."""

    def __init__(self, first: bytes, again: bytes) -> None:
        self._first = first
        self._again = again

    def __len__(self) -> int:
        return 2**50

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _step = part.indices(len(self))
        stop = min(stop, start + 8_000_000)
        head = self._first[start:stop]
        start = max(start - len(self._first), 0)
        count = stop - part.start - len(head)
        offset = start % len(self._again)
        times = (offset + count) // len(self._again) + 1
        return head + (self._again * times)[offset : offset + count]


def extended(size: int) -> bytes:
    """An extended header of a name."""
    header = tarfile.TarInfo("x")
    header.type = tarfile.GNUTYPE_LONGNAME
    header.size = size
    padded = size + -size % 512
    return header.tobuf(tarfile.GNU_FORMAT) + bytes(padded)


@pytest.mark.parametrize("size", [0, 600, 1_000_000])
@pytest.mark.parametrize("ranges", [True, False])
def test_extended_headers_without_end(web: Web, size: int, ranges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in place by windows, or as a stream: they are bounded for the archive as a whole."""
    # the same sooner
    limit = 4 << 20
    monkeypatch.setattr(tar_index, "_MOST_EXTENDED_SIZE", limit)
    again = extended(size)
    web.ranges = ranges
    web.data = t.cast(bytes, Endless(b"", again * (8_000_000 // len(again))))
    if not ranges:
        # as much as is taken of it
        web.data = again * (12_000_000 // len(again))
    message, _took = waited(lambda: problem(web.url), 20)
    assert f"its extended headers hold more than {limit} bytes, a fixed limit; it is not an image archive" in message


def skippable(size: int) -> bytes:
    """A zstd frame that holds nothing."""
    return b"\x50\x2a\x4d\x18" + size.to_bytes(4, "little") + bytes(size)


def nothing(kind: str) -> tuple[bytes, bytes]:
    """Headers of an answer, and a piece that may be repeated for ever without any content."""
    import zstandard

    if kind == "gzip":
        return b"", gzip.compress(b"") * 1000
    if kind == "zstd":
        return b"", skippable(100_000)
    # a hundred bytes become a MiB that becomes nothing
    return b"Content-Encoding: zstd\r\n", zstandard.compress(skippable(1 << 20)) * 100


@pytest.mark.parametrize("kind", ["gzip", "zstd", "zstd within zstd"])
def test_a_stream_of_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes arrive, and nothing ever comes of them: empty members, frames to be skipped, in two codings."""
    pytest.importorskip("zstandard")
    if kind == "gzip":
        monkeypatch.setattr(decompress, "_OVERHEAD_LIMIT", 1 << 20)
    headers, again = nothing(kind)
    with talking(endless(_OK + headers + b"\r\n", again)) as port:
        url = f"http://127.0.0.1:{port}/x"
        message, _took = waited(lambda: problem(url, retries=0), 15)
    assert re.search(r"its (gzip|zstd) stream has more than \d+ bytes beyond its content, a fixed limit", message)


@pytest.mark.parametrize("kind", ["plain", "gzip", "zstd", "encoded"])
def test_max_size_bounds_a_stream(kind: str) -> None:
    """Whatever coding it is in, and also what follows the end of the tar: a server goes on with it in vain."""
    zstandard = pytest.importorskip("zstandard")
    code: t.Callable[[bytes], bytes] = {"plain": bytes, "zstd": zstandard.compress}.get(kind, gzip.compress)
    headers = b"Content-Encoding: gzip\r\n" if kind == "encoded" else b""
    begun = _OK + headers + b"\r\n" + code(oci_archive(Image([SMALL])))
    again = code(bytes(1 << 20))
    with talking(endless(begun, again)) as port:
        url = f"http://127.0.0.1:{port}/x"

        def attack() -> str:
            with pytest.raises(SourceError) as caught:
                open_source(url, HttpOptions(retries=0), 20_000_000)
            return caught.value.message

        message, _took = waited(attack, 15)
    assert "and holds more than the 20000000 bytes of max_size; raise max_size" in message


def test_a_large_archive_from_a_server_without_ranges(web: Web, tmp_path: Path) -> None:
    """Told when the first header says so, with the option that decides; nothing is written."""
    web.ranges = False
    with pytest.raises(SourceError) as caught:
        pull(web, tmp_path, max_size=1_000_000)
    assert caught.value.message == (
        f"'{web.url}' comes from a server that does not serve ranges of bytes, and holds more than the 1000000 bytes of"
        " max_size; raise max_size if you trust it, or save only the image that you need"
    )
    assert len(web.asked) == 1
    assert left(tmp_path) == []
    # one that is read in place may have other images of any size
    web.ranges = True
    pull(web, tmp_path, max_size=4_000_000)
    assert contents(tmp_path / "dest" / "root") == TREE


def test_a_stream_that_becomes_larger(web: Web, tmp_path: Path) -> None:
    """The second pass writes no more than the first one found, which is what there was room for."""
    web.ranges, web.chunked, web.etag = False, True, None
    small = oci_archive(Image([SMALL]))
    versions = [gzip.compress(small), gzip.compress(small + bytes(5_000_000))]

    def change(_handler: t.Any) -> bool:
        web.data = versions[len(web.asked) % 2]
        return False

    web.handle = change
    with pytest.raises(SourceChangedError) as caught:
        pull(web, tmp_path)
    assert f"its content had {len(small)} bytes, and now has more" in caught.value.message
    assert left(tmp_path) == []


# -- a file that changes


def replace(web: Web, data: bytes, how: str) -> None:
    """Another version of the file."""
    web.data = data
    if how == "etag":
        web.etag = '"version-2"'
    elif how == "weak":
        web.etag = 'W/"version-2"'
    elif how == "date":
        web.modified = email.utils.formatdate(time.time() - 1000, usegmt=True)


@pytest.mark.parametrize("how", ["etag", "weak", "date", "size", "gone"])
def test_a_file_that_changes_in_the_middle(web: Web, tmp_path: Path, how: str) -> None:
    """One clean restart of the whole, with what is there now."""
    web.data = ARCHIVE
    if how == "weak":
        web.etag = 'W/"version-1"'
    elif how != "etag":
        web.etag = None
    if how == "date":
        web.modified = email.utils.formatdate(time.time() - 2000, usegmt=True)
    new = Image([BIG, Layer(file("new", "new"))])
    data = oci_archive(new, members=[file("padding", b"x" * 99_999)])
    seen: list[int] = []

    def change(handler: t.Any) -> bool:
        seen.append(1)
        if how == "gone" and len(seen) == 3:
            # shorter than where the next part would begin
            web.data = ARCHIVE[:1000]
        elif how == "gone" and len(seen) == 4:
            web.data = data
        elif how != "gone" and len(seen) == 3:
            replace(web, data, how)
        return False

    web.handle = change
    result = pull(web, tmp_path)
    assert result["manifest_digest"] == new.manifest_digest
    assert contents(tmp_path / "dest" / "root") == {"big": TREE["big"], "new": b"new"}


def test_a_file_that_changes_all_the_time(web: Web, tmp_path: Path) -> None:
    pull(web, tmp_path, digest=IMAGE.manifest_digest)
    before = contents(tmp_path / "dest" / "root")
    changes: list[int] = []

    def change(_handler: t.Any) -> bool:
        changes.append(1)
        web.etag = f'"version-{len(changes)}"'
        return False

    web.handle = change
    with pytest.raises(SourceChangedError) as caught:
        pull(web, tmp_path, recreate=True)
    assert "changed while it was read (its ETag is another one); run again when" in caught.value.message
    assert len(changes) == 4
    # nothing half done
    assert contents(tmp_path / "dest" / "root") == before
    assert left(tmp_path) == [
        "dest", "dest/.root.oci_rootfs", "dest/.root.oci_rootfs/record.json", "dest/root",
    ]  # fmt: skip


def test_a_date_is_a_condition_once_it_is_old_enough(web: Web) -> None:
    """RFC 9110, section 8.8.2.2: a file that was changed a moment ago may be changed once more in that second."""
    web.etag = None
    for age, sent in ((10, False), (3600, True)):
        web.modified = email.utils.formatdate(time.time() - age, usegmt=True)
        web.asked.clear()
        with opened(web.url):
            pass
        assert web.asked[-1].headers.get("if-range") == (web.modified if sent else None)
    web.modified = "yesterday"
    with opened(web.url):
        pass
    assert "if-range" not in web.asked[-1].headers


def test_a_mirror_that_is_not_to_be_trusted(web: Web, tmp_path: Path) -> None:
    """``digest`` pins what may come, whatever the server sends."""
    pull(web, tmp_path, digest=IMAGE.manifest_digest)
    web.data = oci_archive(Image([SMALL]))
    web.etag = '"version-2"'
    with pytest.raises(OciError, match="holds no image for linux/amd64 with the digest"):
        pull(web, tmp_path, digest=IMAGE.manifest_digest)
    # a blob that is another one than its digest says
    web.data = MULTI.replace(BIG.data[1000:2000], bytes(1000))
    web.etag = None
    with pytest.raises(OciError, match=BIG.digest):
        pull(web, tmp_path, digest=IMAGE.manifest_digest, recreate=True)
    assert contents(tmp_path / "dest" / "root") == TREE


# -- redirects


def redirecting(target: str | None, status: int = 302) -> t.Callable[[t.Any], bool]:
    """Every request is sent elsewhere."""

    def redirect(handler: t.Any) -> bool:
        handler.status(status, **({"Location": target} if target else {}))
        return True

    return redirect


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_stay_with_their_origin(web: Web, status: int, tmp_path: Path) -> None:
    """User, password and headers are for the URL's own origin; another port is another one."""
    with serving(b"") as first:
        first.handle = redirecting(web.url + "?signature=1", status)
        with opened(
            first.url,
            username="user",
            password="secret",
            force_basic_auth=True,
            headers={"X-Token": "secret", "Cookie": "secret"},
        ) as source:
            assert read(source, BIG) == BIG.data
        # it is asked once, and then its answer is remembered
        assert len(first.asked) == 1
        assert first.asked[0].headers["x-token"] == "secret"
        assert first.asked[0].headers["authorization"].startswith("Basic ")
    assert len(web.asked) > 2
    for asked in web.asked:
        assert "secret" not in str(asked.headers)
        assert "authorization" not in asked.headers
        assert asked.path == "/image.tar?signature=1"
        assert asked.headers["accept-encoding"] == "identity"


def test_credentials_go_on_to_the_same_origin(web: Web) -> None:
    def redirect(handler: t.Any) -> bool:
        if handler.path == "/image.tar":
            handler.status(302, Location="/other/place")
            return True
        return False

    web.handle = redirect
    with opened(web.url, username="user", password="secret", force_basic_auth=True, headers={"X-Token": "1"}):
        pass
    assert {asked.path for asked in web.asked} == {"/image.tar", "/other/place"}
    for asked in web.asked:
        assert "authorization" in asked.headers
        assert asked.headers["x-token"] == "1"


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "http://[::1", "gopher://x"]
)
def test_redirects_that_are_not_followed(web: Web, location: str) -> None:
    web.handle = redirecting(location)
    message = problem(web.url)
    # some are found wrong by Python already
    assert (
        "other than an http or https URL" in message
        or "redirects to is not a valid URL" in message
        or "the server sent an invalid answer" in message
    )
    assert len(web.asked) == 1


def test_redirects_are_bounded(web: Web) -> None:
    web.handle = redirecting("/again")
    assert "it redirects more than 10 times" in problem(web.url)
    web.handle = redirecting(None)
    assert "it redirects to nowhere" in problem(web.url)


@pytest.mark.parametrize("status", ["403", "404"])
def test_a_redirect_that_ran_out_is_asked_for_again(web: Web, status: str) -> None:
    """Signed URLs hold for minutes; the first one is asked for a fresh one, once."""
    with serving(b"") as first:
        first.handle = redirecting(web.url)
        with opened(first.url) as source:
            web.faults = [status]
            assert read(source, BIG) == BIG.data
        assert len(first.asked) == 2
        web.faults = [status] * 9
        message = problem(first.url)
        assert f"the server answered {status}" in message
        assert f"for '{web.url}', to which it redirects" in message


def test_a_mirror_that_fails_is_left(web: Web) -> None:
    """A retry begins with the URL itself, which may lead to another mirror."""
    with serving(b"") as first, serving(web.data) as second:
        first.handle = redirecting(web.url)
        with opened(first.url) as source:
            first.handle = redirecting(second.url)
            web.faults = ["503"]
            assert read(source, BIG) == BIG.data
        assert second.sent > BIG.size // 2


# -- credentials


def guarded(scheme: str) -> t.Callable[[t.Any], bool]:
    """A server that wants user and password."""
    good = "Basic " + base64.b64encode("üser:p@ss:word".encode()).decode()

    def guard(handler: t.Any) -> bool:
        said = handler.headers.get("Authorization", "")
        if said == good or (scheme == "digest" and said.startswith("Digest ")):
            return False
        challenge = 'Digest realm="x", nonce="n", qop="auth"' if scheme == "digest" else 'Basic realm="x"'
        handler.status(401, WWW_Authenticate=challenge)
        return True

    return guard


@pytest.mark.parametrize("force", [False, True])
def test_basic_authentication(web: Web, force: bool) -> None:
    web.handle = guarded("basic")
    with opened(web.url, username="üser", password="p@ss:word", force_basic_auth=force):
        pass
    assert (web.asked[0].status == 401) is not force
    # the same in the URL itself
    url = web.url.replace("//", "//%C3%BCser:p%40ss%3Aword@")
    with opened(url, force_basic_auth=force) as source:
        assert source.path == web.url
    assert "401" in problem(web.url)
    assert "401" in problem(web.url, username="üser", password="wrong")


def test_digest_authentication(web: Web) -> None:
    web.handle = guarded("digest")
    with opened(web.url, username="user", password="secret"):
        pass
    assert any(asked.headers.get("authorization", "").startswith("Digest ") for asked in web.asked)
    assert "secret" not in str(web.asked)


def test_netrc(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    netrc.chmod(0o600)
    with opened(web.url):
        pass
    assert web.asked[0].headers["authorization"].startswith("Basic ")
    # another port of the same host is another origin
    with serving(b"") as first:
        first.handle = redirecting(web.url)
        web.asked.clear()
        with opened(first.url):
            pass
        assert first.asked[0].headers["authorization"].startswith("Basic ")
        assert not any("authorization" in asked.headers for asked in web.asked)
    netrc.write_text("machine 127.0.0.1 nonsense\n")
    assert "the .netrc of the user who runs the module is damaged" in problem(web.url)


def test_netrc_stays_with_its_origin(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another port is another origin, although it has the name that the file speaks of."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with serving(b"") as first:
        first.handle = redirecting(web.url, 302)
        with opened(first.url) as source:
            assert read(source, BIG) == BIG.data
        assert first.asked[0].headers["authorization"].startswith("Basic ")
    assert web.asked
    assert not any("authorization" in asked.headers for asked in web.asked)


# -- what a URL is


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


def test_a_proxy_of_the_environment(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Used where use_proxy says so; what a proxy sees of an http URL is the whole of it."""
    monkeypatch.setenv("http_proxy", web.url.rpartition("/")[0])
    monkeypatch.setenv("no_proxy", "")
    with opened("http://images.example.org/a.tar"):
        pass
    assert web.asked[0].path == "http://images.example.org/a.tar"
    with pytest.raises(SourceError, match="cannot be fetched"):
        open_source("http://localhost:1/a.tar", HttpOptions(use_proxy=False, retries=0))


# -- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An authority, two servers and a client, made by openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not here to make certificates")
    folder = tmp_path_factory.mktemp("tls")
    names = {name: str(folder / name) for name in ("ca", "server", "other", "client")}

    def call(*words: str) -> None:
        subprocess.run([openssl or "", *words], check=True, capture_output=True, cwd=folder)

    # whatever this machine's own openssl.cnf says
    (folder / "cnf").write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=ca\n[dn]\n[ca]\n"
        "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
    )
    # fmt: off
    new = ("req", "-config", "cnf", "-newkey", "rsa:2048", "-nodes")
    call(*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    for name, extra in (
        ("server", "subjectAltName=IP:127.0.0.1"),
        ("other", "subjectAltName=IP:127.0.0.9"),
        ("client", "extendedKeyUsage=clientAuth"),
    ):
        call(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / f"{name}.ext").write_text(extra + "\nauthorityKeyIdentifier=keyid\n")
        call("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
             "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem")
    # fmt: on
    return names


@contextlib.contextmanager
def secured(certificates: dict[str, str], client: bool = False, name: str = "server") -> t.Iterator[Web]:
    """A server with a certificate of the authority, which may want one of its clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates[name] + ".pem", certificates[name] + ".key")
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates["ca"] + ".pem")
    with serving(MULTI, tls=context) as web:
        yield web


def test_an_authority_of_ones_own(certificates: dict[str, str], tmp_path: Path) -> None:
    ca_path = certificates["ca"] + ".pem"
    with secured(certificates) as web:
        pull(web, tmp_path, ca_path=ca_path)
        assert contents(tmp_path / "dest" / "root") == TREE
        began = len(web.asked)
        message = problem(web.url)
        assert "the certificate of '127.0.0.1' is not trusted" in message
        assert "ca_path" in message
        # nothing was asked, and no retry cures it
        assert len(web.asked) == began
        with opened(web.url, validate_certs=False):
            pass
    with secured(certificates, name="other") as web:
        message = problem(web.url, ca_path=ca_path)
        assert "is not trusted: IP address mismatch" in message
        assert web.asked == []


@pytest.mark.skipif(
    not hasattr(urls, "make_context"), reason="this ansible-core forgets ca_path where there is a client certificate"
)
def test_a_client_certificate(certificates: dict[str, str]) -> None:
    ca_path = certificates["ca"] + ".pem"
    cert, key = certificates["client"] + ".pem", certificates["client"] + ".key"
    with secured(certificates, client=True) as web:
        with opened(web.url, ca_path=ca_path, client_cert=cert, client_key=key):
            pass
        assert "cannot be fetched" in problem(web.url, ca_path=ca_path, retries=0)
        assert "no TLS connection can be made" in problem(
            web.url, ca_path=ca_path, client_cert=cert, client_key=certificates["server"] + ".key"
        )
        # nor does it go to another origin
        with secured(certificates) as first:
            first.handle = redirecting(web.url)
            assert "cannot be fetched" in problem(
                first.url, ca_path=ca_path, client_cert=cert, client_key=key, retries=0
            )


def test_https_never_redirects_to_http(certificates: dict[str, str], web: Web) -> None:
    ca_path = certificates["ca"] + ".pem"
    with secured(certificates) as first:
        first.handle = redirecting(web.url)
        message = problem(first.url, ca_path=ca_path)
        assert f"redirects from https to '{web.url}', which is not protected" in message
        assert web.asked == []
        # the other way is fine
        web.handle = redirecting(first.url)
        first.handle = lambda _handler: False
        with opened(web.url, ca_path=ca_path):
            pass


def test_a_server_that_speaks_no_tls(web: Web) -> None:
    message = problem(web.url.replace("http:", "https:"))
    assert "no TLS connection can be made: wrong version number" in message


# -- the cache


def test_a_blob_in_the_cache_is_not_fetched(web: Web, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    pull(web, tmp_path, cache_dir=str(cache))
    web.asked.clear()
    again = pull(web, tmp_path, cache_dir=str(cache), recreate=True)
    assert again["report"]["counts"]["blobs_from_cache"] == 2
    assert web.sent < 30_000
    # one changed layer
    changed = Layer(file("changed", noise(500_000, 5)))
    web.data, web.etag = oci_archive(Image([BIG, changed])), '"version-2"'
    web.asked.clear()
    result = pull(web, tmp_path, cache_dir=str(cache))
    assert result["report"]["counts"]["blobs_from_cache"] == 1
    assert changed.size < web.sent < 1.05 * changed.size
    assert contents(tmp_path / "dest" / "root")["changed"] == noise(500_000, 5)


def test_no_spool_is_made_where_all_is_in_the_cache(web: Web, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    web.ranges = False
    pull(web, tmp_path, cache_dir=str(cache))
    web.asked.clear()
    pull(web, tmp_path, cache_dir=str(cache), recreate=True)
    assert len(web.asked) == 1
    # a damaged one is fetched again, from a spool that is made then
    path = cache / "sha256" / BIG.digest[7:]
    path.write_bytes(bytes(BIG.size))
    again = pull(web, tmp_path, cache_dir=str(cache), recreate=True)
    assert again["report"]["counts"]["cache_entries_damaged"] == 1
    assert contents(tmp_path / "dest" / "root") == TREE
    assert path.read_bytes() == BIG.data


# -- the modules


def call(
    module: t.Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], **params: t.Any
) -> tuple[dict[str, t.Any], str]:
    """What a module returns, and all that it writes."""
    give(monkeypatch, params)
    with pytest.raises(SystemExit):
        module.main()
    output = capfd.readouterr()
    result = json.loads(output.out)
    # how ansible-core 2.22 is told of secrets, which it takes out before it shows anything
    result.pop("_ansible_new_secrets", None)
    return result, json.dumps(result) + output.err


SECRETS = ("s3cret", "t0ken", "us3r")


def test_secrets_are_in_no_result(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    url = web.url.replace("//", "//us3r:s3cret@") + "?token=t0ken"
    arguments: dict[str, t.Any] = {
        "src": url,
        "dest": str(tmp_path / "x"),
        "platform": "linux/amd64",
        "headers": {"X-Token": "s3cret"},
        "force_basic_auth": True,
        "_ansible_diff": True,
    }
    result, written = call(oci_rootfs, monkeypatch, capfd, **arguments)
    assert result["changed"]
    # newer releases of ansible-core return the invocation only when they are asked to
    assert ("X-Token" in written) is ("invocation" in result)
    assert not any(secret in written for secret in SECRETS)
    assert web.asked[0].headers["x-token"] == "s3cret"
    assert "authorization" in web.asked[0].headers
    for headers in ('{"X-Token": "s3cret"}', "X-Token=s3cret", {"X-Token": "s3cret"}):
        result, written = call(oci_rootfs, monkeypatch, capfd, **{**arguments, "headers": headers})
        assert ("X-Token" in written) is ("invocation" in result)
        assert not any(secret in written for secret in SECRETS)
        assert web.asked[-1].headers["x-token"] == "s3cret"
    record = next(tmp_path.glob(".x.oci_rootfs/record.json")).read_text()
    assert not any(secret in record for secret in SECRETS)
    # in messages, the query is not shown either
    for fault in ("404", "503", "other-start"):
        web.faults = [fault] * 9
        result, written = call(oci_rootfs, monkeypatch, capfd, **{**arguments, "url_retries": 0})
        assert result["failed"]
        assert f"'{web.url}?...'" in result["msg"]
        assert not any(secret in result["msg"] for secret in SECRETS)
        assert not any(secret in written for secret in SECRETS)
        web.faults = []
    web.data = b"no archive at all"
    result, written = call(oci_rootfs, monkeypatch, capfd, **arguments)
    assert "so it is not a tar" in result["msg"]
    assert "s3cret" not in written
    arguments["src"] = "http://us3r:s3cret@host:port/"
    result, written = call(oci_rootfs, monkeypatch, capfd, **arguments)
    assert "src is not a valid URL" in result["msg"]
    assert "s3cret" not in written


@pytest.mark.parametrize("module", [oci_rootfs, oci_image_info])
def test_secrets_are_in_no_log_of_the_node(
    module: t.Any, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ansible writes each module's arguments to syslog before the module itself does anything."""
    logged: list[str] = []
    monkeypatch.setattr(AnsibleModule, "log", lambda _self, message, **_more: logged.append(message))
    arguments: dict[str, t.Any] = {
        "src": web.url.replace("//", "//us3r:s3cret@") + "?token=t0ken",
        "headers": "X-Token=s3cret",
    }
    if module is oci_rootfs:
        arguments.update(dest=str(tmp_path / "x"), platform="linux/amd64")
    result, written = call(module, monkeypatch, capfd, **arguments)
    assert not result.get("failed")
    assert web.asked[0].path == "/image.tar?token=t0ken"
    assert "Invoked with" in logged[0]
    assert "/image.tar?********" in logged[0]
    assert not any(secret in text for secret in SECRETS for text in (*logged, written))
    # arguments that are wrong are shown as well
    for wrong in ({"timeout": "abc"}, {"unknown": 1}, {"headers": "s3cret"}):
        result, written = call(module, monkeypatch, capfd, **{**arguments, **wrong})
        assert result["failed"]
        assert not any(secret in written for secret in SECRETS)


def test_secrets_are_told_to_ansible(
    web: Web, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From ansible-core 2.22 on, it masks what is registered; and no short word, which would be a part of others."""
    told: list[str] = []
    monkeypatch.setattr(_secrets, "register_secrets", told.extend)
    src = web.url.replace("//", "//us3r:s3cr%65t@") + "?a=b&signature=t0ken"
    call(oci_image_info, monkeypatch, capfd, src=src, headers={"A": "h34der", "B": "1"})
    assert {"us3r:s3cr%65t", "s3cret", "a=b&signature=t0ken", "h34der"} <= set(told)
    assert "1" not in told
    monkeypatch.setattr(_secrets, "register_secrets", None)
    result, _written = call(oci_image_info, monkeypatch, capfd, src=src)
    assert result["form"] == "archive"


def test_the_info_module(
    web: Web, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    url = web.url.replace("//", "//us3r:s3cret@")
    result, written = call(oci_image_info, monkeypatch, capfd, src=url)
    assert "s3cret" not in written
    assert result["form"] == "archive"
    platforms = [image["platform"] for image in result["images"]]
    assert platforms == ["linux/amd64", "linux/arm64", "linux/s390x"]
    assert web.sent < 30_000
    # a file that changes is read anew, once
    seen: list[int] = []

    def change(_handler: t.Any) -> bool:
        seen.append(1)
        if len(seen) == 2:
            web.data, web.etag = oci_archive(IMAGE), '"version-2"'
        return False

    web.handle = change
    result, _written = call(oci_image_info, monkeypatch, capfd, src=url)
    assert len(result["images"]) == 1
    web.handle = lambda _handler: False
    web.ranges = False
    result, _written = call(oci_image_info, monkeypatch, capfd, src=url)
    assert result["form"] == "stream"
    assert os.listdir(tmp_path) == []


def test_a_run_that_is_ended_while_it_waits(web: Web, tmp_path: Path) -> None:
    """A signal does not wait for a server that stalls; the old tree stays, and nothing else."""
    pull(web, tmp_path)
    web.data = oci_archive(Image([Layer(file("other", noise(3_000_000, 9)))]))
    web.etag = '"version-2"'
    web.asked.clear()
    with opened(web.url):
        web.healthy = len(web.asked)
    web.asked.clear()
    web.faults = ["stall"]
    arguments = {"src": web.url, "dest": str(tmp_path / "dest" / "root"), "platform": "linux/amd64", "timeout": 600}
    program = (
        "import sys, json; sys.path[:0] = json.loads(sys.argv[1])\n"
        "from ansible.module_utils import basic\n"
        "basic._ANSIBLE_ARGS = sys.argv[2].encode(); basic._ANSIBLE_PROFILE = 'legacy'\n"
        "from ansible_collections.hypervisor.oci.plugins.modules import oci_rootfs\n"
        "oci_rootfs.main()\n"
    )
    text = json.dumps({"ANSIBLE_MODULE_ARGS": arguments})
    process = subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(sys.path), text], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 30
        while not (web.asked and web.asked[-1].sent > 100_000):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.3)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, _err = process.communicate(timeout=15)
        assert time.monotonic() - began < 10
    finally:
        process.kill()
        process.wait()
    result = json.loads(out)
    assert "the run was ended by SIGTERM" in result["msg"]
    assert contents(tmp_path / "dest" / "root") == TREE
    assert left(tmp_path) == [
        "dest", "dest/.root.oci_rootfs", "dest/.root.oci_rootfs/record.json", "dest/root",
    ]  # fmt: skip
