# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The compressions of the image builder, undone by others (docs/behaviour.md, section 3)."""

from __future__ import annotations

import gzip
import struct
import typing as t
import zlib

import pytest
from ansible_collections.hypervisor.oci.tests.images.builder import (
    compress,
    gzip_member,
    skippable_frame,
    zstd_frame,
    zstd_stored_frame,
)

DATA = b"".join(b"%d\n" % number for number in range(40000))
GZIP = ("gzip", "gzip-members", "gzip-zeros")
ZSTD = ("zstd", "zstd-frames", "zstd-chunked", "zstd-stored")


def unzstd(data: bytes) -> bytes:
    """All frames in a row."""
    zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed")
    reader = zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(data, read_across_frames=True)
    return bytes(reader.read())


@pytest.mark.parametrize("compression", GZIP)
def test_gzip(compression: t.Any) -> None:
    """Section 3: the same bytes twice, and what was compressed comes back."""
    data = compress(DATA, compression)
    assert data == compress(DATA, compression)
    assert gzip.decompress(data) == DATA
    # no time, no name, no system
    assert data[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


def test_gzip_forms() -> None:
    """Section 3: several members; zeros at the end."""
    decompressor = zlib.decompressobj(31)
    first = decompressor.decompress(compress(DATA, "gzip-members"))
    assert 0 < len(first) < len(DATA) and decompressor.unused_data[:2] == b"\x1f\x8b"
    assert compress(DATA, "gzip-zeros") == compress(DATA, "gzip") + bytes(1024)


@pytest.mark.parametrize("compression", ZSTD)
@pytest.mark.parametrize("data", [DATA, bytes(1024), b""])
def test_zstd(compression: t.Any, data: bytes) -> None:
    """Section 3: all frames, skippable ones between them."""
    if compression != "zstd-stored":
        pytest.importorskip("zstandard", reason="zstandard is not installed")
    compressed = compress(data, compression)
    assert compressed == compress(data, compression)
    assert compressed[:4] == b"\x28\xb5\x2f\xfd"
    assert unzstd(compressed) == data


def test_zstd_forms() -> None:
    """Section 3: frames without a size and with a checksum, as a stream gives them; skippable frames."""
    zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed")
    parameters = zstandard.get_frame_parameters(zstd_frame(DATA))
    assert parameters.content_size in (-1, 2**64 - 1) and parameters.has_checksum
    assert skippable_frame(b"skip me") in compress(DATA, "zstd-frames")
    assert compress(DATA, "zstd-chunked").endswith(b"GNUlInUx")
    window = zstandard.get_frame_parameters(zstd_frame(DATA, window_log=20)).window_size
    assert window == 2**20


@pytest.mark.parametrize("window_log", [10, 17, 27, 31])
def test_zstd_stored_claims_a_window(window_log: int) -> None:
    """Section 3: windows are bounded, so a test has to be able to claim one."""
    data = zstd_stored_frame(DATA, window_log)
    assert unzstd(data) == DATA
    zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed")
    assert zstandard.get_frame_parameters(data).window_size == 2**window_log


def test_others() -> None:
    """None at all, one of the test's own, and one that there is not."""
    assert compress(DATA, "none") == DATA
    assert compress(DATA, lambda data: data[::-1]) == DATA[::-1]
    unknown: t.Any = "lzma"
    with pytest.raises(ValueError, match="unknown compression 'lzma'"):
        compress(DATA, unknown)


def test_gzip_trailer() -> None:
    """Section 3: the CRC and the size at the end of a member."""
    assert gzip_member(DATA)[-8:] == struct.pack("<LL", zlib.crc32(DATA), len(DATA))
