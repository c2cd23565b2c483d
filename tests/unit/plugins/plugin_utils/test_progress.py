# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a user reads while blobs travel (docs/behaviour.md, section 8)."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._progress import LONG, Progress

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
