# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files read at any place (docs/behaviour.md, section 1)."""

from __future__ import annotations

import os
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._source.range_reader import FileAccess, RangeReader

if t.TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def access(tmp_path: Path) -> t.Iterator[FileAccess]:
    """A file of ten bytes."""
    (tmp_path / "file").write_bytes(b"0123456789")
    opened = FileAccess(str(tmp_path / "file"))
    yield opened
    opened.close()


def test_a_range_clamps_at_its_end(access: FileAccess) -> None:
    reader = RangeReader(access, 2, 5)
    assert (reader.length, reader.remaining) == (5, 5)
    assert reader.read(3) == b"234"
    assert reader.remaining == 2
    assert reader.read(100) == b"56"
    assert reader.read() == b""
    assert reader.read(1) == b""


def test_ranges_keep_their_own_positions(access: FileAccess) -> None:
    one, other = RangeReader(access, 0, 4), RangeReader(access, 4, 4)
    assert one.read(2) + other.read(2) + one.read() + other.read() == b"01452367"


@pytest.mark.parametrize(("offset", "length"), [(8, 3), (11, 0), (-1, 2), (0, -1), (2**62, 2**62)])
def test_a_range_beyond_the_file_is_an_error(access: FileAccess, offset: int, length: int) -> None:
    with pytest.raises(SourceError, match=r"ends before the .* fetch it again"):
        RangeReader(access, offset, length)


def test_a_file_that_shrinks_is_an_error(tmp_path: Path, access: FileAccess) -> None:
    reader = RangeReader(access, 0, 10)
    os.truncate(tmp_path / "file", 4)
    with pytest.raises(SourceError, match="became shorter while it was read"):
        reader.read()


def test_short_reads_are_gathered(access: FileAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, at: whole(fd, min(count, 3), at))
    assert access.read_at(1, 8) == b"12345678"
    assert access.read_at(5, 100) == b"56789"


def test_a_disk_that_fails_is_an_error(access: FileAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(SourceError, match=r"input/output error; check the disk"):
        access.read_at(0, 1)


def test_an_owned_file_is_closed_once_with_its_reader(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    access = FileAccess(str(tmp_path / "file"))
    reader = RangeReader(access, 0, 1, owned=True)
    reader.close()
    reader.close()
    with pytest.raises(SourceError, match="bad file descriptor"):
        access.read_at(0, 1)


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceError, match="is not a regular file; check src"):
        FileAccess(str(tmp_path / "fifo"))


@pytest.mark.parametrize("path", ["/dev/null", "/"])
def test_what_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(SourceError, match="is not a regular file; check src"):
        FileAccess(path)


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(SourceError, match="no such file or directory; check src"):
        FileAccess("/nonexistent/file")
