# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A layer's blob as verified chunks (docs/behaviour.md, section 3)."""

from __future__ import annotations

import io
import tracemalloc
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import LayerError
from ansible_collections.hypervisor.oci.plugins.module_utils._image import image
from ansible_collections.hypervisor.oci.plugins.module_utils._image.digest import Digest
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.budget import Budget
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.pipeline import read_ahead
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.stream import LayerStream, drain, in_one_thread
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.tar_entries import TarReader
from ansible_collections.hypervisor.oci.plugins.module_utils._report import Report
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Blob,
    Layer,
    append,
    cut,
    digest,
    file,
    flip,
    gzip_member,
    zstd_stored_frame,
)

COMPRESSIONS: list[t.Any] = [
    "none", "gzip", "gzip-members", "gzip-zeros",
    "zstd", "zstd-frames", "zstd-chunked", "zstd-stored",
    "xz", "xz-streams", "bzip2", "bzip2-streams",
]  # fmt: skip
FRAME = b"\x50\x2a\x4d\x18" + ((1 << 20) - 8).to_bytes(4, "little") + bytes((1 << 20) - 8)
MEMBERS = (file("a", bytes(range(256)) * 40), file("b", b"b" * 3000))


class Drops(io.BytesIO):
    """A reader that gives few bytes at a time, as a slow disk may."""

    def __init__(self, data: bytes, piece: int) -> None:
        super().__init__(data)
        self.piece = piece

    def read(self, count: int | None = -1) -> bytes:
        """At most ``piece`` bytes."""
        return super().read(min(self.piece, count if count and count > 0 else self.piece))


def stream_of(layer: Blob, piece: int = 2**20, budget: Budget | None = None, **changes: t.Any) -> LayerStream:
    """The stream of what is stored for a layer."""
    fields: dict[str, t.Any] = {
        "digest": Digest(layer.digest),
        "size": layer.size,
        "media_type": layer.media_type,
        "diff_id": Digest(layer.diff_id),
        "name": layer.path,
        **changes,
    }
    return LayerStream(image.Layer(**fields), Drops(layer.stored, piece), budget or Budget(2**40, 10**6))


def refused(layer: Blob, **changes: t.Any) -> str:
    """What is wrong with it."""
    with pytest.raises(LayerError) as caught:
        drain(stream_of(layer, **changes))
    where, _colon, what = caught.value.message.partition(": ")
    assert where == f"layer {changes.get('digest', layer.digest)}"
    return what


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("piece", [1, 511, 513, 2**20])
def test_every_compression_gives_the_tar(compression: t.Any, piece: int) -> None:
    """Section 3: all members, trailing zeros; all frames, skippable ones too."""
    layer = Layer(*MEMBERS, compression=compression)
    stream = stream_of(layer, piece)
    assert b"".join(in_one_thread(stream)) == layer.tar
    assert stream.diff_id == layer.diff_id
    assert stream.compression == compression.partition("-")[0]
    assert stream.mislabelled is False


def test_a_blob_without_end() -> None:
    """A server may say that a blob has any size: what never becomes a tar is bounded all the same."""
    pytest.importorskip("zstandard")

    class Endless:
        """Frames to be skipped."""

        given = 0

        def read(self, _count: int = -1) -> bytes:
            """The next of them; so much that a broken product ends, too."""
            self.given += 1 << 20
            return FRAME if self.given < 200 << 20 else b""

    blob = Endless()
    size = 1 << 50
    digest = Digest("sha256:" + "0" * 64)
    layer = image.Layer(digest, size, "application/x", digest, "n")
    with pytest.raises(LayerError, match="stream has more than 67108864 bytes beyond its content"):
        drain(LayerStream(layer, blob, Budget(2**40, 10**6)))
    assert blob.given < 70 << 20


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_layer_of_nothing(compression: t.Any) -> None:
    layer = Layer(compression=compression, end_blocks=0)
    if compression == "none":
        assert layer.data == b""
    assert drain(stream_of(layer)) == layer.diff_id == digest(b"")


def test_sha512() -> None:
    """Section 1: sha256 and sha512 are known, of blob and of content."""
    layer = Layer(*MEMBERS, algorithm="sha512", diff_id_algorithm="sha512")
    assert drain(stream_of(layer)) == layer.diff_id
    bad = Layer(*MEMBERS, algorithm="sha512", edit_stored=flip(-1), compression="none")
    assert "the blob's content has the digest " in refused(bad)


# -- the bytes decide


@pytest.mark.parametrize("actual", ["none", "gzip", "zstd-stored"])
@pytest.mark.parametrize("base", [
    "application/vnd.oci.image.layer.v1.tar{}",
    "application/vnd.oci.image.layer.nondistributable.v1.tar{}",
])  # fmt: skip
@pytest.mark.parametrize("said", ["", "+gzip", "+zstd"])
def test_a_media_type_that_says_otherwise(actual: t.Any, base: str, said: str) -> None:
    """Section 3."""
    layer = Layer(*MEMBERS, compression=actual, media_type=base.format(said))
    stream = stream_of(layer)
    assert drain(stream) == layer.diff_id
    assert stream.mislabelled is ((said[1:] or "none") != actual.partition("-")[0])


def test_an_old_archive_says_nothing_of_a_compression() -> None:
    """Section 1: the bytes tell the compression, the diff_id is all that is checked."""
    layer = Layer(*MEMBERS)
    stream = stream_of(
        layer, digest=Digest(layer.diff_id), size=None, digest_is_diff_id=True,
        media_type="application/vnd.oci.image.layer.v1.tar",
    )  # fmt: skip
    assert drain(stream) == layer.diff_id
    assert (stream.compression, stream.mislabelled) == ("gzip", False)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\x04\x22\x4d\x18" + b"x" * 600, "compressed by lz4, which is not supported"),
        (b"PK\3\4" + b"x" * 600, "a zip archive"),
        (b"7z\xbc\xaf\x27\x1c" + b"x" * 600, "a 7z archive"),
        (b"hello", "text"),
        (b"{}", "a JSON document"),
        (b"\x1f", "of an unknown kind (it begins with 1f)"),
        (b"x" * 512, "text"),
        (b"\xff" * 512, "of an unknown kind (it begins with ff ff ff ff ff ff ff ff)"),
    ],
)
def test_bytes_that_are_none_of_these(data: bytes, shown: str) -> None:
    """Section 3: an error that says what they are."""
    text = refused(Blob(data, "application/vnd.oci.image.layer.v1.tar+gzip"))
    assert text == (
        f"the blob is not a tar, plain or compressed by gzip, zstd, xz or bzip2: it is {shown};"
        " build the image with one of these compressions"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": b"-1"}, "the size field"),
        ({"uid": b"12x"}, "the uid field"),
        ({"checksum": 1}, "the checksum of a tar header is wrong"),
    ],
)
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_wrong_field_in_the_first_header(fields: t.Any, message: str, compression: t.Any) -> None:
    """The reader of entries says what is wrong, plain or not."""
    layer = Layer(file("a", fields=fields), compression=compression)
    reader = TarReader(in_one_thread(stream_of(layer)), layer.digest, Report(), Budget(2**40, 100))
    with pytest.raises(LayerError, match=message):
        list(reader)


# -- size, digest


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd-stored"])
def test_a_blob_of_another_content(compression: t.Any) -> None:
    """Section 3: digest and size are computed to the very end of the stream."""
    layer = Layer(*MEMBERS, compression=compression)
    text = refused(layer, digest=Digest(digest(b"other")))
    assert text == (
        f"the blob's content has the digest {layer.digest[7:]};" " the archive is damaged: fetch the image again"
    )


@pytest.mark.parametrize("size", [0, 1, -1, 10**6])
def test_a_blob_of_another_size(size: int) -> None:
    layer = Layer(*MEMBERS)
    assert refused(layer, size=size) == (
        f"the blob has {layer.size} bytes, but its descriptor says {size};"
        " fetch the image again or, if that does not help, build it again"
    )


def test_bytes_behind_the_tar_are_hashed() -> None:
    """Section 3: what follows the end blocks counts for the diff_id."""
    layer = Layer(*MEMBERS, edit_tar=append(b"behind the end"))
    assert drain(stream_of(layer)) == layer.diff_id == digest(layer.tar)


# -- stages


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_stages_give_work_to_threads_where_there_is_some(compression: t.Any) -> None:
    """A plain layer is only read and hashed once: handing it on would cost more than it saves."""
    layer = Layer(*MEMBERS, compression=compression)
    stream = stream_of(layer)
    first, steps = stream.stages()
    assert len(steps) == (0 if compression == "none" else 2)
    with read_ahead(first, *steps) as chunks:
        assert b"".join(chunks) == layer.tar
    assert stream.diff_id == layer.diff_id


# -- streams that end too early, even where the tar inside is whole


@pytest.mark.parametrize("compression", ["gzip", "gzip-members", "zstd", "zstd-frames", "zstd-stored"])  # fmt: skip
def test_a_compressed_stream_cut_anywhere(compression: t.Any) -> None:
    """Section 3: an error, although size and digest of the blob are right."""
    kind = compression.partition("-")[0]
    whole = Layer(file("f", b"content"), compression=compression)
    ends = set()
    if compression == "gzip-members":
        # where a member ends, the stream may
        ends = {len(gzip_member(whole.tar[: len(whole.tar) // 2 + 1]))}
    for length in range(4, whole.size):
        layer = Layer(file("f", b"content"), compression=compression, edit_blob=cut(length))
        try:
            found = drain(stream_of(layer))
        except LayerError as error:
            assert error.message.startswith(f"layer {layer.digest}: its {kind} stream ")
            assert error.message.endswith("; fetch or build the image again")
            continue
        # whole members or frames: then the content is another
        assert found != whole.diff_id
        ends.discard(length)
        assert compression in ("gzip-members", "zstd-frames")
    assert not ends


def test_the_message_of_a_stream_that_ends_too_early() -> None:
    for compression in ("gzip", "zstd"):
        layer = Layer(*MEMBERS, compression=compression, edit_blob=cut(-1))
        assert refused(layer) == (f"its {compression} stream ends too early; fetch or build the image again")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("offset", [-1, -3, 20])
def test_a_compressed_stream_with_a_wrong_byte(compression: t.Any, offset: int) -> None:
    """A checksum of the compression itself tells, although the blob's digest is right."""
    layer = Layer(*MEMBERS, compression=compression, edit_blob=flip(offset))
    assert refused(layer).startswith(f"its {compression} stream is damaged (")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_garbage_behind_a_compressed_stream(compression: t.Any) -> None:
    layer = Layer(*MEMBERS, compression=compression, edit_blob=append(b"garbage"))
    assert refused(layer).startswith(f"its {compression} stream is ")


# -- bounds


@pytest.mark.parametrize(("window_log", "fits"), [(27, True), (28, False), (31, False)])
def test_zstd_windows(window_log: int, fits: bool) -> None:
    """Section 3: 128 MiB at most."""
    layer = Layer(
        *MEMBERS, compression=lambda data: zstd_stored_frame(data, window_log),
        media_type="application/vnd.oci.image.layer.v1.tar+zstd",
    )  # fmt: skip
    if fits:
        assert drain(stream_of(layer)) == layer.diff_id
    else:
        assert refused(layer).startswith("its zstd stream ")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_bomb_comes_in_bounded_pieces(compression: t.Any) -> None:
    """Section 3: memory does not grow with the size of blobs or files."""
    layer = Layer(file("f", bytes(64 * 1024 * 1024)), compression=compression)
    assert layer.size < 1024 * 1024
    stream = stream_of(layer)
    size = 0
    tracemalloc.start()
    try:
        for chunk in in_one_thread(stream):
            assert len(chunk) <= 1024 * 1024
            size += len(chunk)
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert size == len(layer.tar)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd-stored"])
def test_max_size(compression: t.Any) -> None:
    """Section 7, limits: decompressed bytes; the message names the option."""
    layer = Layer(*MEMBERS, compression=compression)
    size = len(layer.tar)
    assert drain(stream_of(layer, budget=Budget(size, 1))) == layer.diff_id
    assert refused(layer, budget=Budget(size - 1, 1)) == (
        f"the image's layers hold more than {size - 1} bytes when decompressed;"
        " raise max_size if you trust this image"
    )


def test_max_size_stops_a_bomb_early() -> None:
    layer = Layer(file("f", bytes(64 * 1024 * 1024)))
    budget = Budget(10**6, 1)
    with pytest.raises(LayerError, match="raise max_size"):
        drain(stream_of(layer, budget=budget))
    assert budget.size < 3 * 10**6
