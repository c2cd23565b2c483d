# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a user reads while blobs travel (docs/behaviour.md, section 8)."""

from __future__ import annotations

import hashlib
import itertools
import threading
import types
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils import _progress
from ansible_collections.hypervisor.oci.plugins.plugin_utils._progress import LONG, Progress, running_module

NAME = "blobs/sha256/" + "0123456789abcdef" * 4
MEMBER = hashlib.sha256(b"../layer.tar").hexdigest()[:12]


def told(sizes: dict[str, int]) -> list[tuple[str, bool]]:
    """The lines of a transfer at a blob in two seconds."""
    lines: list[tuple[str, bool]] = []
    clock = iter([10.0, 10.0 + 2 * len(sizes)])
    progress = Progress("node1", sizes, lambda *line: lines.append(line), lambda: next(clock))
    for name in sizes:
        with progress.sending([name]):
            pass
    return lines


def test_each_blob_has_a_line_and_the_end_one() -> None:
    assert told({NAME: 10 << 20, "../layer.tar": 30 << 20}) == [
        ("[node1] sending blob 1 of 2, sha256:0123456789ab, 10.00 MB; 0.00 Bytes of 40.00 MB sent", True),
        (f"[node1] sending blob 2 of 2, member:{MEMBER}, 30.00 MB; 10.00 MB of 40.00 MB sent", True),
        ("[node1] sent 40.00 MB in 4.0 s, 10.00 MB/s", True),
    ]  # fmt: skip


def test_long_is_what_is_large_together() -> None:
    assert [is_long for _line, is_long in told({"a": LONG - 1})] == [False, False]
    assert [is_long for _line, is_long in told({"a": 1, "b": LONG - 1})] == [True] * 3


def test_what_failed_was_not_sent() -> None:
    lines: list[str] = []
    progress = Progress("n", {"a": 1}, lambda line, _long: lines.append(line))
    with pytest.raises(ValueError), progress.sending(["a"]):
        raise ValueError
    assert len(lines) == 1


def test_blobs_that_travel_together_have_one_line() -> None:
    lines: list[str] = []
    progress = Progress("n", {"a": 1, "b": 2, "c": 3}, lambda line, _long: lines.append(line), lambda: 1.0)  # fmt: skip
    for names in (["a", "b"], ["c"]):
        with progress.sending(names):
            pass
    assert len(lines) == 3
    assert lines[0] == "[n] sending blobs 1 to 2 of 3 together, 3.00 Bytes; 0.00 Bytes of 6.00 Bytes sent"  # fmt: skip
    assert lines[1].startswith("[n] sending blob 3 of 3, member:")
    assert lines[1].endswith("; 3.00 Bytes of 6.00 Bytes sent")


# -- work that takes long


@pytest.fixture(name="often")
def fixture_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines come at once, and each look at the clock is a second later."""
    monkeypatch.setattr(_progress, "_INTERVAL", 0.01)
    seconds = itertools.count()
    monkeypatch.setattr(_progress, "time", types.SimpleNamespace(monotonic=lambda: float(next(seconds))))


class Lines:
    """Lines that are displayed; ``third`` is set at the third."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, bool]] = []
        self.third = threading.Event()

    def display(self, line: str, is_long: bool) -> None:
        """Note a line."""
        self.lines.append((line, is_long))
        if len(self.lines) > 2:
            self.third.set()


@pytest.mark.usefixtures("often")
def test_a_transfer_that_takes_long_tells_how_far_it_is(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(bytes(2048))
    lines = Lines()
    progress = Progress("n", {"a": 2048}, lines.display)
    with open(path, "rb", buffering=0) as file, progress.sending(["a"], str(path)):
        file.read(1024)
        assert lines.third.wait(30)
    line, is_long = lines.lines[2]
    blob = "member:" + hashlib.sha256(b"a").hexdigest()[:12]
    assert line == f"[n] sending blob 1 of 1, {blob}, 1.00 KB of 2.00 KB, for 2 s so far"
    assert is_long


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("read", [0, 2048])
def test_what_a_connection_does_not_show_is_not_told(tmp_path: Path, read: int) -> None:
    """Nothing has been read yet, or the connection reads all before it sends anything."""
    path = tmp_path / "blob"
    path.write_bytes(bytes(2048))
    lines = Lines()
    with open(path, "rb", buffering=0) as file:
        file.read(read)
        with Progress("n", {"a": 2048}, lines.display).sending(["a"], str(path)):
            assert lines.third.wait(30)
    assert lines.lines[2][0].endswith(", 2.00 KB, for 2 s so far")
    assert " of 2.00 KB," not in lines.lines[2][0]


@pytest.mark.usefixtures("often")
def test_a_module_that_takes_long_tells_its_layer_where_it_can_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    for layer, words in ((None, "at work on the node"), ((3, 32), "unpacking layer 3 of 32")):
        lines = Lines()
        monkeypatch.setattr(_progress, "layer_progress", lambda found=layer: found)
        with running_module("n", "at work on the node", lines.display):
            assert lines.third.wait(30)
        assert lines.lines[2] == (f"[n] {words}, for 3 s so far", True)


def test_what_is_done_soon_is_not_told() -> None:
    lines = Lines()
    with running_module("n", "at work", lines.display):
        pass
    assert lines.lines == []
