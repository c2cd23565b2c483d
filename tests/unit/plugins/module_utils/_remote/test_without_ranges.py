# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives that are read as a stream, and archives without end (docs/behaviour.md, sections 1 and 7)."""

from __future__ import annotations

import functools
import gzip
import os
import re
import tarfile
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import SourceChangedError, SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._source import decompress, tar_index
from ansible_collections.hypervisor.oci.plugins.module_utils._remote.options import HttpOptions
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.tests.images.builder import Image, oci_archive
from ansible_collections.hypervisor.oci.tests.unit.support import contents
from ansible_collections.hypervisor.oci.tests.unit.web import Web, endless, serving, talking
from ansible_collections.hypervisor.oci.tests.unit.remote import (
    ARCHIVE,
    BIG,
    IMAGE,
    SMALL,
    TREE,
    left,
    opened,
    problem,
    pull,
    waited,
)

_OK = b"HTTP/1.1 200 OK\r\n"


# -- servers without ranges, and archives that are compressed as a whole


def no_ranges(web: Web) -> None:
    """As a simple server."""
    web.ranges = False


def chunked(web: Web) -> None:
    """As a program that makes the answer on the way: no length, no version."""
    web.ranges, web.chunked, web.etag = False, True, None


# a file that does not change is compressed once
_gzip = functools.lru_cache(maxsize=None)(gzip.compress)


def compressing(web: Web) -> None:
    """As a server that compresses on the way although nobody asked for it."""
    web.ranges, web.encoding = False, _gzip
    web.extra["Content-Encoding"] = "gzip"


def compressing_parts(web: Web) -> None:
    """The same, of each range for itself."""
    web.encoding = _gzip
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
