# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Streams of gzip, zstd, xz and bzip2 (docs/behaviour.md, section 3)."""

from __future__ import annotations

import bz2
import contextlib
import importlib
import lzma
import os
import random
import subprocess
import sys
import tracemalloc
import typing as t
import zlib

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import MissingLibraryError
from ansible_collections.hypervisor.oci.plugins.module_utils._source import decompress, unzstd
from ansible_collections.hypervisor.oci.plugins.module_utils._source.decompress import decompressed
from ansible_collections.hypervisor.oci.plugins.module_utils._source.members import DecompressError
from ansible_collections.hypervisor.oci.plugins.module_utils._source.range_reader import CHUNK
from ansible_collections.hypervisor.oci.plugins.module_utils._source.unzstd import FrameWalker
from ansible_collections.hypervisor.oci.plugins.module_utils._source.zstd_program import zstd_program
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors
from ansible_collections.hypervisor.oci.tests.images.builder import (
    compress,
    gzip_member,
    skippable_frame,
    zstd_frame,
    zstd_stored_frame,
)

# noise, and the same noise again
DATA = random.Random(7).getrandbits(8 * 300_000).to_bytes(300_000, "big") * 2


@pytest.fixture(params=["zstandard", "standard library", "program"])
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each library that reads zstd, in turn; backports.zstd is what Python 3.14 has."""
    if request.param == "program":
        if zstd_program() is None:
            pytest.skip("the program zstd is not installed")
        monkeypatch.setattr(unzstd, "_zstd_library", _no_library)
        return
    names = ["zstandard"] if request.param == "zstandard" else ["compression.zstd", "backports.zstd"]
    for name in names:
        with contextlib.suppress(ImportError):
            library = importlib.import_module(name)
            monkeypatch.setattr(unzstd, "_zstd_library", lambda it=library: it)
            return
    pytest.skip(f"none of {', '.join(names)} is installed")


def _no_library() -> t.NoReturn:
    raise MissingLibraryError("zstandard", "to read it")


@pytest.fixture(params=["zlib", "isal", "zlib-ng"])
def _inflater(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each library that inflates, in turn."""
    names = {"zlib": "zlib", "isal": "isal.isal_zlib", "zlib-ng": "zlib_ng.zlib_ng"}
    try:
        library = importlib.import_module(names[request.param])
    except ImportError:
        pytest.skip(f"{request.param} is not installed")
    monkeypatch.setattr(decompress, "gzip_library", lambda: (str(request.param), library))


def pieces(data: bytes, size: int) -> t.Iterator[bytes]:
    """Data as a file gives it."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def whole(data: bytes, kind: str, size: int = 64 * 1024) -> bytes:
    """All that comes out, each piece bounded."""
    out = []
    for piece in decompressed(pieces(data, size), kind):
        assert 0 < len(piece) <= 1024 * 1024
        out.append(piece)
    return b"".join(out)


def overheard(piece: bytes, kind: str, limit: int) -> int:
    """How many bytes are read of a stream without end before it is refused."""
    read = [0]

    def endless() -> t.Iterator[bytes]:
        # of a broken product too, there is an end
        while read[0] < 20 * limit:
            read[0] += len(piece)
            yield piece

    with pytest.raises(
        DecompressError, match=f"its {kind} stream has more than {limit} bytes beyond its content, a fixed limit"
    ):
        for _piece in decompressed(endless(), kind):
            pass
    return read[0]


@pytest.mark.usefixtures("_inflater")
def test_gzip_members_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are, and with a byte now and then."""
    limit = 200_000
    monkeypatch.setattr(decompress, "_OVERHEAD_LIMIT", limit)
    empty = gzip_member(b"") * 50
    assert overheard(empty, "gzip", limit) <= limit + len(empty)
    little = empty + gzip_member(b"x")
    assert overheard(little, "gzip", limit) <= 1.01 * limit + len(little)
    # much content pays for as much
    paid = gzip_member(bytes(100_000)) + gzip_member(b"") * 4000
    assert whole(paid * 5, "gzip") == bytes(500_000)


@pytest.mark.usefixtures("_library")
def test_zstd_frames_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skippable ones, and empty ones."""
    limit = 200_000
    monkeypatch.setattr(decompress, "_OVERHEAD_LIMIT", limit)
    skipped = b"\x50\x2a\x4d\x18" + (9_000).to_bytes(4, "little") + bytes(9_000)
    for empty in (skipped, zstd_stored_frame(b"") * 50):
        assert overheard(empty, "zstd", limit) <= limit + len(empty)


# -- gzip


@pytest.mark.usefixtures("_inflater")
@pytest.mark.parametrize("size", [1, 7, 65536, 10_000_000])
@pytest.mark.parametrize("compression", ["gzip", "gzip-members", "gzip-zeros"])
def test_gzip(compression: t.Any, size: int) -> None:
    data = DATA[:3000] if size < 10 else DATA
    assert whole(compress(data, compression), "gzip", size) == data


@pytest.mark.usefixtures("_inflater")
def test_zeros_between_gzip_members_are_fine() -> None:
    data = gzip_member(b"one") + bytes(700) + gzip_member(b"") + gzip_member(b"two")
    assert whole(data, "gzip", 100) == b"onetwo"


@pytest.mark.usefixtures("_inflater")
@pytest.mark.parametrize("left", [1, 8, 9, 500])
def test_a_cut_gzip_member_is_an_error(left: int) -> None:
    with pytest.raises(DecompressError, match="its gzip stream ends too early"):
        whole(gzip_member(DATA)[:-left], "gzip")


@pytest.mark.usefixtures("_inflater")
def test_a_cut_second_gzip_member_is_an_error() -> None:
    with pytest.raises(DecompressError, match="its gzip stream ends too early"):
        whole(gzip_member(DATA) + gzip_member(DATA)[:9], "gzip")


@pytest.mark.usefixtures("_inflater")
@pytest.mark.parametrize("tail", [b"garbage", bytes(512) + b"x" * 20])
def test_garbage_behind_gzip_is_an_error(tail: bytes) -> None:
    for size in (1, 64 * 1024):
        with pytest.raises(DecompressError, match="its gzip stream is followed by"):
            whole(gzip_member(b"data") + tail, "gzip", size)


@pytest.mark.usefixtures("_inflater")
@pytest.mark.parametrize("offset", [-1, -5, 3, 200])
def test_damaged_gzip_is_an_error(offset: int) -> None:
    data = bytearray(gzip_member(DATA[:1000] + bytes(1000)))
    data[offset] ^= 0xFF
    with pytest.raises(DecompressError, match="its gzip stream"):
        whole(bytes(data), "gzip")


def _peak(data: bytes, kind: str) -> int:
    tracemalloc.start()
    try:
        for _piece in decompressed(pieces(data, CHUNK), kind):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("_inflater")
def test_a_gzip_bomb_comes_in_small_pieces() -> None:
    bomb = gzip_member(bytes(64 * 1024 * 1024), level=9)
    assert len(bomb) < 100_000
    assert _peak(bomb, "gzip") < 2 * 1024 * 1024


# -- zstd


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("size", [1, 7, 65536, 10_000_000])
@pytest.mark.parametrize("compression", ["zstd", "zstd-frames", "zstd-chunked", "zstd-stored"])
def test_zstd(compression: t.Any, size: int) -> None:
    data = DATA[:3000] if size < 10 else DATA
    assert whole(compress(data, compression), "zstd", size) == data


@pytest.mark.usefixtures("_library")
def test_skippable_frames_anywhere() -> None:
    skip = skippable_frame(b"\x28\xb5\x2f\xfd" * 100_000)
    data = skip + zstd_frame(b"one") + skip + skip + zstd_frame(b"") + skip
    assert whole(data + zstd_frame(b"two"), "zstd") == b"onetwo"
    assert whole(skip, "zstd") == b""


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("size", [1000, 65536, 10_000_000])
@pytest.mark.parametrize("left", [1, 4, 5, 1000, 200_000])
def test_a_cut_zstd_frame_is_an_error(left: int, size: int) -> None:
    with pytest.raises(DecompressError, match="its zstd stream ends too early"):
        whole(zstd_frame(DATA)[:-left], "zstd", size)


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("kept", [1, 3, 4, 5, 9, 20])
def test_a_cut_second_zstd_frame_is_an_error(kept: int) -> None:
    data = zstd_frame(b"one" * 100) + zstd_frame(b"two" * 100)[:kept]
    with pytest.raises(DecompressError, match="its zstd stream ends too early"):
        whole(data, "zstd")


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("kept", [4, 7, 8, 50])
def test_a_cut_skippable_frame_is_an_error(kept: int) -> None:
    data = zstd_frame(b"one") + skippable_frame(bytes(100))[:kept]
    with pytest.raises(DecompressError, match="its zstd stream ends too early"):
        whole(data, "zstd")


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("tail", [bytes(8), b"garbage!", bytes(100_000)])
def test_garbage_behind_zstd_is_an_error(tail: bytes) -> None:
    with pytest.raises(DecompressError, match="its zstd stream"):
        whole(zstd_frame(b"data") + tail, "zstd")


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("offset", [-1, 4, 8, 200_000])
def test_damaged_zstd_is_an_error(offset: int) -> None:
    data = bytearray(zstd_frame(DATA))
    data[offset] ^= 0xFF
    with pytest.raises(DecompressError, match="its zstd stream"):
        whole(bytes(data), "zstd")


@pytest.mark.usefixtures("_library")
def test_zstd_windows_are_bounded() -> None:
    assert whole(zstd_stored_frame(b"data", window_log=27), "zstd") == b"data"
    with pytest.raises(DecompressError, match="a window of more than 134217728 bytes, a fixed limit"):
        whole(zstd_stored_frame(b"data", window_log=28), "zstd")


@pytest.mark.usefixtures("_library")
def test_a_zstd_bomb_comes_in_small_pieces() -> None:
    bomb = zstd_frame(bytes(64 * 1024 * 1024))
    assert len(bomb) < 100_000
    assert _peak(bomb, "zstd") < 4 * 1024 * 1024


@pytest.mark.usefixtures("_library")
def test_small_frames_do_not_copy_all_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    if unzstd._zstd_library is _no_library:
        pytest.skip("the program reads on by itself")
    library = unzstd._zstd_library()
    if not hasattr(library, "DecompressionParameter"):
        pytest.skip("zstandard's reader walks over frames itself")
    given = []

    class Decompressor:
        def __init__(self, **options: t.Any) -> None:
            self._real = library.ZstdDecompressor(**options)

        def __getattr__(self, name: str) -> t.Any:
            return getattr(self._real, name)

        def decompress(self, data: bytes, max_length: int) -> bytes:
            given.append(len(data))
            return bytes(self._real.decompress(data, max_length))

    class Library:
        ZstdDecompressor = Decompressor
        DecompressionParameter = library.DecompressionParameter
        ZstdError = library.ZstdError

    monkeypatch.setattr(unzstd, "_zstd_library", lambda: Library)
    data = (skippable_frame(b"") + zstd_frame(b"x")) * 2000
    assert whole(data, "zstd", CHUNK) == b"x" * 2000
    assert len(given) >= 4000
    assert max(given) <= 1024


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> t.Any:
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr(importlib, "import_module", refuse)
    monkeypatch.setattr(unzstd, "zstd_program", lambda: None)
    with pytest.raises(MissingLibraryError, match="library zstandard is missing") as e:
        whole(zstd_stored_frame(b"data"), "zstd")
    assert e.value.library == "zstandard"
    # gzip needs none
    assert whole(gzip_member(b"data"), "gzip") == b"data"


@pytest.mark.skipif(zstd_program() is None, reason="the program zstd is not installed")
@pytest.mark.parametrize("how", ["closed early", "damaged", "other format behind"])
def test_the_program_ends_with_the_stream(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """It is gone however the stream ends, and reads no format but zstd."""
    monkeypatch.setattr(unzstd, "_zstd_library", _no_library)
    before = open_descriptors()
    started = []
    real = subprocess.Popen.__init__

    def note(process: t.Any, *arguments: t.Any, **options: t.Any) -> None:
        started.append(process)
        real(process, *arguments, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", note)
    data = zstd_frame(DATA)
    if how == "closed early":
        stream = t.cast("t.Generator[bytes, None, None]", decompressed(pieces(data, 1000), "zstd"))
        assert next(stream)
        stream.close()
    else:
        data = data[:-9] + b"?" + data[-8:] if how == "damaged" else data + gzip_member(b"x")
        with pytest.raises(DecompressError, match="is damaged" if how == "damaged" else "is followed by other data"):
            whole(data, "zstd")
    (process,) = started
    assert process.returncode is not None
    assert open_descriptors() == before


def test_the_fastest_inflater_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def note(name: str) -> t.Any:
        asked.append(name)
        if name.startswith("isal"):
            raise ImportError(name)
        return sys

    monkeypatch.setattr(importlib, "import_module", note)
    assert decompress.gzip_library() == ("zlib-ng", sys)
    assert asked == ["isal.isal_zlib", "zlib_ng.zlib_ng"]


def test_the_standard_library_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def note(name: str) -> t.Any:
        asked.append(name)
        return sys

    monkeypatch.setattr(importlib, "import_module", note)
    unzstd._zstd_library()
    assert asked == ["compression.zstd"]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 1000, 10_000_000])
def test_the_walker_sees_each_end(size: int) -> None:
    stream = (
        zstd_frame(DATA) + skippable_frame(b"x" * 9) + zstd_stored_frame(b"y" * 500_000) + zstd_frame(os.urandom(10))
    )
    walker = FrameWalker()
    for piece in pieces(stream, size):
        walker.feed(piece)
    walker.finish()


def test_pieces_hold_the_order_of_the_stream() -> None:
    data = gzip_member(DATA)
    position = 0
    for piece in decompressed(pieces(data, 1000), "gzip"):
        assert DATA[position : position + len(piece)] == piece
        position += len(piece)
    assert zlib.crc32(DATA) == zlib.crc32(whole(data, "gzip"))


class _CountedZlib:
    """zlib, with a count of the bytes that decompressors were given."""

    error = zlib.error

    def __init__(self) -> None:
        self.given = 0

    def decompressobj(self, bits: int) -> t.Any:
        member = zlib.decompressobj(bits)
        library = self

        class Member:
            def decompress(self, data: bytes, most: int) -> bytes:
                library.given += len(data)
                return member.decompress(data, most)

            def __getattr__(self, name: str) -> t.Any:
                return getattr(member, name)

        return Member()


def test_many_small_gzip_members_cost_what_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    # section 3: time is bounded; each member of a hostile stream copied the rest of its chunk
    library = _CountedZlib()
    monkeypatch.setattr(decompress, "gzip_library", lambda: ("zlib", library))
    data = gzip_member(b"") * 5_000
    assert b"".join(decompressed(iter([data]), "gzip")) == b""
    assert library.given < 60 * len(data)


# -- xz and bzip2

STREAMS: dict[str, t.Callable[[bytes], bytes]] = {"xz": lzma.compress, "bzip2": bz2.compress}


@pytest.mark.parametrize("size", [1, 7, 65536, 10_000_000])
@pytest.mark.parametrize("compression", ["xz", "xz-streams", "bzip2", "bzip2-streams"])
def test_xz_and_bzip2(compression: t.Any, size: int) -> None:
    data = DATA[:3000] if size < 10 else DATA
    kind = compression.partition("-")[0]
    assert whole(compress(data, compression), kind, size) == data
    assert whole(compress(data, compression) + bytes(1024), kind, size) == data
    assert whole(compress(b"", kind), kind) == b""


@pytest.mark.parametrize("kind", STREAMS)
def test_every_cut_of_xz_and_bzip2_is_found(kind: str) -> None:
    data = STREAMS[kind](b"hello" * 100) + STREAMS[kind](b"world")
    first = len(STREAMS[kind](b"hello" * 100))
    for end in range(1, len(data)):
        if end == first:
            continue
        with pytest.raises(DecompressError, match=f"its {kind} stream (ends too early|is damaged)"):
            whole(data[:end], kind, 7)


@pytest.mark.parametrize("kind", STREAMS)
def test_damage_in_xz_and_bzip2_is_found(kind: str) -> None:
    data = bytearray(STREAMS[kind](DATA[:2000]))
    for offset in range(8, len(data), 97):
        data[offset] ^= 0xFF
        with pytest.raises(DecompressError, match=f"its {kind} stream "):
            whole(bytes(data), kind)
        data[offset] ^= 0xFF
    for tail in (b"junk", bytes(8) + b"junk"):
        with pytest.raises(DecompressError, match=f"its {kind} stream is followed by other data"):
            whole(bytes(data) + tail, kind)


@pytest.mark.parametrize("kind", STREAMS)
def test_xz_and_bzip2_streams_of_nothing(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    limit = 200_000
    monkeypatch.setattr(decompress, "_OVERHEAD_LIMIT", limit)
    empty = STREAMS[kind](b"") * 50
    assert overheard(empty, kind, limit) <= limit + len(empty)
    monkeypatch.setattr(decompress, "_MOST_STREAMS", 100)
    many = STREAMS[kind](b"x") * 102
    with pytest.raises(
        DecompressError, match=f"its {kind} stream consists of more than 100 parts, and one for each KiB"
    ):
        whole(many, kind)
    # content pays for as many
    assert whole(STREAMS[kind](bytes(2048)) * 300, kind) == bytes(2048) * 300


@pytest.mark.parametrize(("kind", "most"), [("gzip", 1040), ("zstd", 32_768), ("xz", 7100), ("bzip2", 32_768)])
def test_content_is_bounded_by_the_stream(monkeypatch: pytest.MonkeyPatch, kind: t.Any, most: int) -> None:
    """Only bzip2 can hold more: 45 MB of zeros take 40 bytes."""
    assert most <= decompress._MOST_RATIO
    monkeypatch.setattr(decompress, "_FREE_CONTENT", 2**20)
    data = compress(bytes(100 * 2**20), kind)
    if kind != "bzip2":
        assert len(whole(data, kind)) == 100 * 2**20
        return
    assert len(data) < 200
    with pytest.raises(
        DecompressError, match="its bzip2 stream holds more than 1048576 bytes, and 32768 times its own"
    ):
        whole(data, kind)


def test_the_dictionary_of_xz_is_bounded() -> None:
    allowed, large = (
        lzma.compress(b"x" * 100, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": size}])
        for size in (128 * 2**20, 256 * 2**20)
    )
    assert whole(allowed, "xz") == b"x" * 100
    with pytest.raises(DecompressError, match="needs a dictionary of more than 134217728 bytes, a fixed limit"):
        whole(large, "xz")


@pytest.mark.parametrize(("kind", "module"), [("xz", "lzma"), ("bzip2", "bz2")])
def test_a_python_without_the_module(monkeypatch: pytest.MonkeyPatch, kind: str, module: str) -> None:
    """Some builds leave it out."""
    data = STREAMS[kind](b"x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingLibraryError, match=f"{module} is missing: to read what is compressed by {kind}"):
        whole(data, kind)
