# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of the fleet that need no nodes: images, the web server, logs, packets, tables.

What a fleet proves of docs/behaviour.md, sections 1 and 7, is in the integration target oci_rootfs_fleet.
"""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import re
import struct
import tarfile
import threading
import typing as t

import pytest
from ansible_collections.hypervisor.oci.tests.fleet import fleet, page, samples, transcript, turns, webserver

# -- nodes


class Here(fleet.Node):
    """A node whose programs run here, and whose sshd is another program."""

    program: t.ClassVar[str] = ""

    def _inside(self, words: t.Sequence[str]) -> list[str]:
        if words[0] == "/usr/sbin/sshd":
            return ["sh", "-c", f"echo 'no hostkeys' >{self.folder}/log; {self.program}"]
        return [word.replace("/run/node", self.folder) for word in words]

    def listens(self, port: int) -> bool:
        """Nothing answers."""
        return False


@pytest.mark.parametrize(
    ("program", "seconds", "words"),
    [("exit 255", 60.0, "sshd ended with 255"), ("exec sleep 60", 0.5, "sshd: not seen within 0.5 s")],
)
def test_an_sshd_that_does_not_come_shows_its_log(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, program: str, seconds: float, words: str
) -> None:
    real, log = fleet.wait_for, tmp_path / "log"

    def wait_for(what: str, done: t.Callable[[], t.Any]) -> t.Any:
        real("a log", lambda: log.exists() and log.read_text())
        return real(what, done, seconds)

    monkeypatch.setattr(fleet, "wait_for", wait_for)
    monkeypatch.setattr(Here, "program", program)
    node = Here(fleet.Spec("alpha"), "127.0.0.1", str(tmp_path), "none")
    try:
        with pytest.raises(fleet.FleetError, match=f"alpha: {words}.*; its log: no hostkeys"):
            node.start_sshd()
    finally:
        process = vars(node)["_sshd"]
        process.kill()
        process.wait()


# -- images


def test_a_sample_tells_what_its_tree_holds() -> None:
    one = samples.sample("one", 4000, layers=2)
    assert set(one.files) == {*(f"data/{layer:02}/{part}" for layer in range(2) for part in range(4)), "etc/version"}
    assert one.version == "one linux/amd64\n"
    assert one.size == sum(one.blobs.values()) > 2 * 4000


def test_samples_are_the_same_each_time_and_share_what_did_not_change() -> None:
    old = samples.sample("old", 4000, layers=3)
    assert old.blobs == samples.sample("old", 4000, layers=3).blobs
    new = samples.sample("old", 4000, layers=3, changed={1: "new"})
    assert len(set(old.blobs) & set(new.blobs)) == 2
    arm = samples.sample("old", 4000, layers=3, platform="linux/arm64")
    assert not set(old.blobs) & set(arm.blobs)


def test_several_samples_make_an_index(tmp_path: pathlib.Path) -> None:
    amd64 = samples.sample("both", 400)
    arm64 = samples.sample("both", 400, platform="linux/arm64")
    path = samples.write(str(tmp_path), "both.tar", amd64, arm64)
    with tarfile.open(path) as archive:
        names = set(archive.getnames())
    for one in (amd64, arm64):
        assert {f"blobs/{digest.replace(':', '/')}" for digest in one.blobs} <= names


def test_a_tree_is_read_with_what_does_not_belong_to_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("folder")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert samples.tree(str(tmp_path)) == {"folder/file": empty, "link": "not a regular file"}


# -- the web server


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, (0, 100)),
        ("bytes=0-9", (0, 10)),
        ("bytes=90-", (90, 100)),
        ("bytes=90-500", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=100-", None),
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
    ],
)
def test_ranges(asked: str | None, expected: tuple[int, int] | None) -> None:
    assert webserver.byte_range(asked, 100) == expected


@pytest.fixture(name="served")
def _served(tmp_path: pathlib.Path) -> t.Iterator[tuple[http.client.HTTPConnection, pathlib.Path]]:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(bytes(range(100)))
    log = tmp_path / "log"
    server = webserver.Server(("127.0.0.1", 0), str(folder), str(log))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    try:
        yield client, log
    finally:
        client.close()
        server.shutdown()
        thread.join()
        server.server_close()


def _ask(client: http.client.HTTPConnection, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    client.request("GET", path, headers=named)
    answer = client.getresponse()
    return answer, answer.read()


def test_the_web_server_serves_and_counts(served: tuple[http.client.HTTPConnection, pathlib.Path]) -> None:
    client, log = served
    answer, body = _ask(client, "/file")
    assert (answer.status, body) == (200, bytes(range(100)))
    tag = answer.headers["ETag"]
    answer, body = _ask(client, "/file", Range="bytes=10-19", If_Range=tag)
    assert (answer.status, body) == (206, bytes(range(10, 20)))
    assert answer.headers["Content-Range"] == "bytes 10-19/100"
    answer, body = _ask(client, "/file", Range="bytes=10-19", If_Range='"other"')
    assert (answer.status, len(body)) == (200, 100)
    answer, body = _ask(client, "/file", Range="bytes=100-")
    assert (answer.status, body) == (416, b"")
    answer, body = _ask(client, "/../log")
    assert answer.status == 404
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert [(line["status"], line["sent"]) for line in lines] == [(200, 100), (206, 10), (200, 100)]


# -- logs and packets

_LOG = """\
2026-11-25 02:31:20,000 p=1 u=root n=ansible INFO| <10.0.0.1> SSH: EXEC ssh 10.0.0.1 'echo ~root'
2026-11-25 02:31:20,500 p=1 u=root n=ansible INFO| <10.0.0.1> PUT /tmp/offer TO /root/.ansible/tmp/x/offer
2026-11-25 02:31:20,500 p=1 u=root n=ansible INFO| <10.0.0.1> SSH: EXEC sftp [10.0.0.1]
2026-11-25 02:31:20,600 p=1 u=root n=ansible INFO| <10.0.0.1> (0, b'sftp> put', b'')
2026-11-25 02:31:21,000 p=1 u=root n=ansible INFO| <10.0.0.1> PUT /tmp/sha256-1 TO /srv/drop/sha256-1
2026-11-25 02:31:21,000 p=1 u=root n=ansible INFO| <10.0.0.2> SSH: EXEC ssh 10.0.0.2 'echo ~root'
2026-11-25 02:31:22,000 p=1 u=root n=ansible INFO| <10.0.0.1> (0, b'sftp> put', b'')
2026-11-25 02:31:22,000 p=1 u=root n=ansible INFO| <10.0.0.1> PUT /tmp/sha256-2 TO /srv/drop/sha256-2
2026-11-25 02:31:23,500 p=1 u=root n=ansible INFO| <10.0.0.1> (0, b'sftp> put', b'')
    "a line of a result": "<10.0.0.1> PUT"
2026-11-25 02:31:29,000 p=1 u=root n=ansible INFO| <10.0.0.1> (0, b'{}', b'')
"""


def test_a_log_tells_when_blobs_were_on_their_way() -> None:
    found = transcript.read_log(_LOG.splitlines())
    assert found["10.0.0.1"].commands == 2
    assert found["10.0.0.1"].ended - found["10.0.0.1"].began == 2.5
    assert found["10.0.0.2"] == transcript.Story(1, 0.0, 0.0)


def _packet(data: bytes, flags: int = 0x10, options: int = 12) -> bytes:
    tcp = bytes(12) + bytes([(20 + options) // 4 << 4, flags]) + bytes(6 + options)
    total = 20 + len(tcp) + len(data)
    internet = b"\x45\0" + struct.pack(">H", total) + bytes(5) + b"\x06" + bytes(10)
    return bytes(12) + b"\x08\x00" + internet + tcp + data


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (_packet(b"hello"), (5, False)),
        (_packet(b""), (0, False)),
        (_packet(b"", 0x02, 20), (0, True)),
        (_packet(b"", 0x12, 20), (0, False)),
        # what is shorter than 60 bytes may be filled up
        (_packet(b"", 0x10, 0) + bytes(6), (0, False)),
        (bytes(12) + b"\x08\x06" + bytes(46), (0, False)),
        (b"", (0, False)),
    ],
)
def test_what_a_packet_carries(packet: bytes, expected: tuple[int, bool]) -> None:
    assert turns.tcp_payload(packet) == expected


# -- tables


def _case(name: str, nodes: int, cpu: float, size: float) -> dict[str, t.Any]:
    one = {
        "seconds": 2.0,
        "cpu": cpu,
        "task": [1.0] * nodes,
        "bytes": [size] * nodes,
        "payload": [size] * nodes,
        "node_cpu": [0.3] * nodes,
    }
    case = {"case": name, "nodes": nodes, "samples": [one]}
    return {**case, "commands": 4, "turns": 20, "handshakes": 1}


def _cases() -> list[dict[str, t.Any]]:
    known = {"nothing": 0.0, "ping": 100e3}
    for way in ("push", "pull"):
        known[f"up to date, {way}"] = 300e3
        known[f"one changed layer of ten, {way}"] = 1600e3
        known[f"new image, {way}"] = 11e6
    known["new image, push without -C"] = 11e6
    return [
        _case(name, nodes, 1 + nodes * (0.5 if size < 5e6 else 0.6), size)
        for name, size in known.items()
        for nodes in (1, 8)
    ]


def _results() -> dict[str, t.Any]:
    move = {"transfer": [2.0, 2.2], "whole": 3.0, "after": [1.0, 1.0], "seconds": 5.0, "bytes": [1.0, 1.0]}
    image = {"image": "ten", "nodes": 2, "layers": 10, "size": 2_500_000}
    return {
        "per_node": _cases(),
        "crowd": [_case("ping", 32, 17.0, 100e3)],
        "at_once": [{**image, "rate": "10mbit", "samples": [move]}],
        "settings": [{**_case("x", 8, 3.0, 300e3), "setting": "forks 8"}],
        "strategies": [{"strategy": "free", "samples": [{"others": 3.0, "slow": 9.0}]}],
        "memory": {"1": 200.0, "8": 400.0},
        "machine": {
            "Processor": "A processor, 2 cores",
            "Memory": "24 GiB",
            "System": "Debian",
            "Python": "3.11.7, OpenSSL",
            "ansible-core": "2.19.14",
        },
        "run": {"runs": 1, "nodes": 2, "rate": "10mbit", "load": {"before": 0.1, "stolen": 0.0}},
    }


def test_costs_are_a_line_through_the_smallest_and_the_largest_fleet() -> None:
    cost = page.cpu_cost(_cases(), "ping")
    assert cost == page.Cost(1.0, 0.5)
    assert cost.of(10_000) == 5001.0


def test_a_transfer_is_set_beside_what_the_links_allow() -> None:
    line = page.at_once(_results()["at_once"]).splitlines()[2]
    assert line.startswith("| ten, 2 nodes | 10 | 2.50 | 2.00 | 2.10 (2.00–2.20) | 1.05 | 1.50 |")


def test_larger_fleets_follow_from_what_was_measured() -> None:
    rows = page.fleet_new_image(_cases()).splitlines()
    # 10,000 nodes: CPU, all images from here, images of 250 racks and what all nodes are told
    assert rows[-1].startswith("| 10,000 | 1.7 h | 110.00 | 1.7 h | 5.67 | 0.43 | 3.00 | 107.00 |")
    # 0.1 s for 10.7 MB
    assert page.megabyte(_cases()).splitlines()[2] == "| new image, push | 9 |"
    assert page.crowd(_cases(), _results()["crowd"]).splitlines()[2].split(" | ")[1:4] == [
        "17.0",
        "17.0 (17.0–17.0)",
        "1.00",
    ]


@pytest.mark.parametrize(("rate", "expected"), [("10mbit", 1e7), ("1gbit", 1e9), ("512kbit", 512e3)])
def test_rates(rate: str, expected: float) -> None:
    assert page.bits(rate) == expected


def test_an_invalid_rate() -> None:
    with pytest.raises(ValueError, match="invalid rate 'fast'"):
        page.bits("fast")


def test_the_page_gets_all_tables_and_keeps_its_text(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "fleet.md"
    marks = "\n".join(
        f"Text of {name}.\n\n<!-- measured: {name} -->\nformer\n<!-- end -->" for name in page.tables(_results())
    )
    path.write_text(marks, "utf-8")
    for _turn in range(2):
        page.rewrite(str(path), _results())
        text = path.read_text("utf-8")
        assert "former" not in text
        assert "Text of machine." in text
        assert text.count("2.10 (2.00–2.20)") == 1


def test_a_page_without_a_mark_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected one place for the table machine, found 0"):
        page.replaced("text", "machine", "table")


def test_the_page_in_the_repository_has_all_marks() -> None:
    root = os.path.abspath(__file__).rsplit(os.sep, 4)[0]
    path = os.path.join(root, "docs", "fleet.md")
    page.check(path)
    written = page.tables(_results())
    assert tuple(written) == page.TABLES
    text = pathlib.Path(path).read_text("utf-8")
    for name, content in written.items():
        there = text.partition(f"<!-- measured: {name} -->\n\n")[2]
        assert _head(there) == _head(content), name


def _head(table: str) -> str:
    """Return a table's first line without its numbers, which differ between runs."""
    return re.sub(r"[0-9]+", "", table.partition("\n")[0])
