# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Faults, retries and redirects, and files that change (docs/behaviour.md, section 1)."""

from __future__ import annotations

import email.utils
import json
import signal
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError, SourceChangedError, SourceError
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file, oci_archive
from ansible_collections.hypervisor.oci.tests.unit.support import contents
from ansible_collections.hypervisor.oci.tests.unit.web import Web, serving
from ansible_collections.hypervisor.oci.tests.unit.remote import (
    ARCHIVE,
    BIG,
    IMAGE,
    MULTI,
    SMALL,
    TREE,
    left,
    noise,
    opened,
    problem,
    pull,
    read,
    redirecting,
)

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


# -- the modules


def test_a_run_that_is_ended_while_it_waits(web: Web, tmp_path: Path) -> None:
    """A signal does not wait for a server that stalls; the old tree stays, and what came of the blob."""
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
    assert "SIGTERM ended the run" in result["msg"]
    assert contents(tmp_path / "dest" / "root") == TREE
    state = "dest/.root.oci_rootfs"
    *beside, blob, record, root = left(tmp_path)
    assert beside == ["dest", state, f"{state}/partial"]
    assert blob.startswith(f"{state}/partial/") and (record, root) == (f"{state}/record.json", "dest/root")
