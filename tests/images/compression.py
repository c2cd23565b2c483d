# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compressions of layers and archives, the same bytes every time.

zlib's output may differ between its versions (and zlib-ng's does), never between runs of one; so no test should
hold the digest of a compressed layer as a constant. ``zstandard`` is imported only where it is needed.
"""

from __future__ import annotations

import bz2
import hashlib
import json
import lzma
import struct
import typing as t
import zlib

CompressionName = t.Literal[
    "none",
    "gzip",
    "gzip-members",
    "gzip-zeros",
    "zstd",
    "zstd-frames",
    "zstd-chunked",
    "zstd-stored",
    "xz",
    "xz-streams",
    "bzip2",
    "bzip2-streams",
]
Compression = t.Union[CompressionName, t.Callable[[bytes], bytes]]

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_CHUNK = 64 * 1024
# The most that one block of a zstd frame holds.
_ZSTD_BLOCK = 128 * 1024


def compress(data: bytes, compression: Compression) -> bytes:
    """The data in one of the compressions above, or in what a function makes of it.

    ``gzip-members`` and ``zstd-frames`` are several of them in a row, the latter with a skippable frame in the
    middle; ``gzip-zeros`` has zeros behind; ``zstd-chunked`` is as podman pushes it, its table of contents in
    skippable frames; ``zstd-stored`` is a frame that compresses nothing and needs no ``zstandard``. ``xz-streams`` and
    ``bzip2-streams`` are several in a row, those of xz with padding between them.
    """
    if callable(compression):
        return compression(data)
    if compression == "none":
        return data
    if compression == "gzip":
        return gzip_member(data)
    if compression == "gzip-members":
        return b"".join(gzip_member(chunk) for chunk in _chunks(data))
    if compression == "gzip-zeros":
        return gzip_member(data) + bytes(1024)
    if compression == "zstd":
        return zstd_frame(data)
    if compression == "zstd-frames":
        first, *rest = [zstd_frame(chunk) for chunk in _chunks(data)]
        return first + skippable_frame(b"skip me") + b"".join(rest)
    if compression == "zstd-chunked":
        return _zstd_chunked(data)
    if compression == "zstd-stored":
        return zstd_stored_frame(data)
    if compression == "xz":
        return lzma.compress(data)
    if compression == "xz-streams":
        return bytes(4).join(lzma.compress(chunk) for chunk in _chunks(data))
    if compression == "bzip2":
        return bz2.compress(data)
    if compression == "bzip2-streams":
        return b"".join(bz2.compress(chunk) for chunk in _chunks(data))
    raise ValueError(f"unknown compression {compression!r}")


def gzip_member(data: bytes, level: int = 6) -> bytes:
    """One gzip member without a name and a time."""
    deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(data) + deflate.flush()
    header = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return header + body + struct.pack("<LL", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def zstd_frame(data: bytes, level: int = 3, window_log: int | None = None) -> bytes:
    """One zstd frame as a stream gives it: with a checksum, without the content's size."""
    # late, since most images need none
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        write_checksum=True,
        write_content_size=False,
        **({} if window_log is None else {"window_log": window_log}),
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return bytes(compressor.compress(data) + compressor.flush())


def zstd_stored_frame(data: bytes, window_log: int = 17) -> bytes:
    """One zstd frame of uncompressed blocks, by the standard library; ``window_log`` is what it claims to need."""
    frame = _ZSTD_MAGIC + bytes([0, window_log - 10 << 3])
    size = min(_ZSTD_BLOCK, 1 << window_log)
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    for number, chunk in enumerate(chunks or [b""], 1):
        last = number >= len(chunks)
        frame += struct.pack("<L", last | len(chunk) << 3)[:3] + chunk
    return frame


def skippable_frame(data: bytes, number: int = 0) -> bytes:
    """A zstd frame that readers skip."""
    return struct.pack("<LL", 0x184D2A50 + number, len(data)) + data


def _chunks(data: bytes) -> list[bytes]:
    """At least two pieces where there are two bytes, cut where no tar block ends."""
    size = min(_CHUNK, len(data) // 2) + 1
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    return chunks or [data]


def _zstd_chunked(data: bytes) -> bytes:
    frames = b"".join(zstd_frame(chunk) for chunk in _chunks(data))
    text = json.dumps({"version": 1, "entries": []}).encode()
    manifest = zstd_frame(text)
    offset = len(frames) + 8
    footer = struct.pack("<QQQQ", offset, len(manifest), len(text), 1) + b"GNUlInUx"
    return frames + skippable_frame(manifest) + skippable_frame(footer)


def digest(data: bytes, algorithm: str = "sha256") -> str:
    """``algorithm:hex``, by any algorithm that hashlib knows."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
