# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every form of source behind one protocol (docs/behaviour.md, section 1)."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import tarfile
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._source import compressed, decompress, directory
from ansible_collections.hypervisor.oci.plugins.module_utils._source.source import Source
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    append,
    cut,
    docker_archive,
    fifo,
    file,
    flip,
    oci_archive,
    symlink,
    tar,
    write_layout,
)
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors

LAYER = Layer(file("a", b"content" * 100), compression="none")
IMAGE = Image([LAYER])
COMPRESSIONS = ["gzip", "gzip-members", "zstd", "zstd-frames", "zstd-stored", "xz", "xz-streams", "bzip2"]


@contextlib.contextmanager
def opened(path: Path | str, data: bytes | None = None) -> t.Iterator[Source]:
    """The source at a path, which ``data`` is written to first."""
    if data is not None:
        with open(path, "wb") as stream:
            stream.write(data)
    with contextlib.closing(open_source(os.fspath(path))) as source:
        yield source


def problem(path: Path | str, data: bytes | None = None) -> str:
    """What opening says."""
    with pytest.raises(SourceError) as caught, opened(path, data):
        pass
    return caught.value.message


def read(source: Source, name: str) -> bytes:
    """A blob."""
    with contextlib.closing(source.open(name)) as reader:
        data = reader.read()
        assert reader.length == len(data) == source.size_of(name)
    return data


# -- the forms


@pytest.mark.parametrize("prefix", ["", "./"])
def test_an_archive_is_read_in_place(tmp_path: Path, prefix: str) -> None:
    data = oci_archive(IMAGE, prefix=prefix)
    # the name says nothing of what it is
    with opened(tmp_path / "image.tar.gz", data) as source:
        assert (source.form, source.spooled_size) == ("archive", None)
        assert read(source, LAYER.path) == LAYER.data
        assert source.document(IMAGE.path) == IMAGE.data
        assert source.size_of("index.json") is not None
        assert source.size_of("nothing") is None
        assert source.spool(-1) is source


def test_a_layout_directory(tmp_path: Path) -> None:
    path = write_layout(tmp_path / "layout", IMAGE)
    with opened(path) as source:
        assert (source.form, source.spooled_size) == ("directory", None)
        assert read(source, LAYER.path) == LAYER.data
        assert source.document(IMAGE.path) == IMAGE.data
        assert source.size_of("nothing") is None
        assert source.size_of("index.json/below") is None
        assert source.spool(-1) is source


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_archive_compressed_as_a_whole(tmp_path: Path, compression: t.Any) -> None:
    plain = oci_archive(IMAGE)
    data = oci_archive(IMAGE, compression=compression)
    fd = os.open(tmp_path, os.O_RDONLY)
    with opened(tmp_path / "image.tar", data) as source:
        assert source.form == "compressed archive"
        assert source.spooled_size == len(plain)
        assert source.document(IMAGE.path) == IMAGE.data
        assert source.size_of(LAYER.path) == LAYER.size
        with contextlib.closing(source.spool(fd)) as spooled:
            assert read(spooled, LAYER.path) == LAYER.data
            assert spooled.spooled_size is None
            # the spool has no name
            assert os.listdir(tmp_path) == ["image.tar"]
    os.close(fd)


def test_a_whole_archive_takes_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def count(chunks: t.Iterator[bytes], kind: str) -> t.Iterator[bytes]:
        passes.append(kind)
        return decompress.decompressed(chunks, kind)

    monkeypatch.setattr(compressed, "decompressed", count)
    with opened(tmp_path / "i", docker_archive(IMAGE, compression="gzip")) as source:
        for name in ("index.json", "manifest.json", IMAGE.path, IMAGE.config.path):
            source.document(name)
    assert passes == ["gzip"]


def test_blobs_of_a_compressed_archive_need_a_spool(tmp_path: Path) -> None:
    with opened(tmp_path / "i", oci_archive(IMAGE, compression="gzip")) as source:
        with pytest.raises(SourceError, match="is compressed as a whole, so .* in place"):
            source.open(LAYER.path)
        with pytest.raises(SourceError, match="is not a JSON document; do not use"):
            source.document(LAYER.path)
        with pytest.raises(SourceError, match="holds no 'nothing'; fetch or save"):
            source.document("nothing")


def test_links_work_in_a_compressed_archive(tmp_path: Path) -> None:
    files = {"link.json": symlink("", "index.json")}
    data = oci_archive(IMAGE, files=files, compression="gzip")
    with opened(tmp_path / "image", data) as source:
        assert source.document("link.json") == source.document("index.json")


def test_documents_that_begin_with_blanks_are_kept(tmp_path: Path) -> None:
    files = {"a.json": b" \n\t\r[1]", "b.json": b'\n{"a": 1}' + b" " * 600}
    data = oci_archive(IMAGE, files=files, compression="gzip")
    with opened(tmp_path / "image", data) as source:
        assert source.document("a.json") == files["a.json"]
        assert source.document("b.json") == files["b.json"]


def test_a_full_disk_while_spooling_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_fd: int, _data: t.Any) -> int:
        raise OSError(28, "No space left on device")

    fd = os.open(tmp_path, os.O_RDONLY)
    with opened(tmp_path / "i", oci_archive(IMAGE, compression="gzip")) as source:
        before = open_descriptors()
        monkeypatch.setattr(os, "write", fail)
        with pytest.raises(OSError, match="No space left"):
            source.spool(fd)
        monkeypatch.undo()
        assert os.listdir(tmp_path) == ["i"]
        assert open_descriptors() == before
    os.close(fd)


# -- bounds


def test_documents_are_bounded(tmp_path: Path) -> None:
    big = b"[" + b" " * (4 * 1024 * 1024) + b"]"
    files = {"big.json": big, "fits.json": big[:-1][: 4 * 1024 * 1024]}
    message = r"the document 'big.json' has 4194306 bytes, more than 4194304, a fixed"
    write_layout(tmp_path / "layout", IMAGE, files=files)
    with open(tmp_path / "plain", "wb") as stream:
        stream.write(oci_archive(IMAGE, files=files))
    with open(tmp_path / "gzip", "wb") as stream:
        stream.write(oci_archive(IMAGE, files=files, compression="gzip"))
    for name in ("layout", "plain", "gzip"):
        with opened(tmp_path / name) as source:
            assert len(source.document("fits.json")) == 4 * 1024 * 1024
            with pytest.raises(SourceError, match=message):
                source.document("big.json")


def test_documents_of_a_stream_are_bounded_in_sum(tmp_path: Path) -> None:
    files = {f"{number}.json": b"[" + b" " * 4_000_000 for number in range(9)}
    data = oci_archive(IMAGE, files=files, compression="gzip")
    assert (
        "its documents hold more than 33554432 bytes, a fixed limit for archives that"
        " cannot be read in place" in problem(tmp_path / "image", data)
    )
    del files["8.json"]
    with opened(tmp_path / "image", oci_archive(IMAGE, files=files, compression="gzip")):
        pass


_FULL_SIZE = 4 << 30


def bomb(kind: str) -> bytes:
    """The image, compressed as a whole together with very many zeros."""
    zeros = gzip.compress(bytes(16 << 20), 9)
    image = oci_archive(IMAGE)
    if kind == "a member":
        header = tarfile.TarInfo("zeros")
        header.size = _FULL_SIZE
        head = gzip.compress(header.tobuf())
        return head + zeros * (_FULL_SIZE >> 24) + gzip.compress(image)
    if kind == "members":
        header = tarfile.TarInfo("zeros")
        header.size = 16 << 20
        member = gzip.compress(header.tobuf()) + zeros
        return member * (_FULL_SIZE >> 24) + gzip.compress(image)
    return gzip.compress(image) + zeros * (_FULL_SIZE >> 24)


@pytest.mark.parametrize("kind", ["a member", "members", "behind the end"])
def test_max_size_bounds_what_is_compressed_as_a_whole(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 MiB that become 4 GiB: told as soon as it is known, and what a header says is known at once."""
    came = [0]

    def counted(chunks: t.Iterator[bytes], coding: str) -> t.Iterator[bytes]:
        for piece in decompress.decompressed(chunks, coding):
            came[0] += len(piece)
            yield piece

    monkeypatch.setattr(compressed, "decompressed", counted)
    limit = 40 << 20
    (tmp_path / "image").write_bytes(bomb(kind))
    with pytest.raises(SourceError) as caught:
        open_source(str(tmp_path / "image"), max_size=limit)
    assert caught.value.message == (
        f"'{tmp_path}/image' is compressed as a whole, and holds more than the {limit} bytes of max_size;"
        " raise max_size if you trust it, or save only the image that you need"
    )
    assert came[0] <= (1 << 20 if kind == "a member" else limit + (1 << 20))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_max_size_counts_every_byte_of_the_archive(tmp_path: Path, compression: t.Any) -> None:
    """One less is too little; a plain archive is read in place, and has nothing to bound here."""
    size = len(oci_archive(IMAGE))
    path = tmp_path / "image"
    path.write_bytes(oci_archive(IMAGE, compression=compression))
    with contextlib.closing(open_source(str(path), max_size=size)) as source:
        assert source.spooled_size == size
    with pytest.raises(SourceError, match=f"more than the {size - 1} bytes of max_size"):
        open_source(str(path), max_size=size - 1)
    path.write_bytes(oci_archive(IMAGE))
    open_source(str(path), max_size=1).close()


def test_a_spool_is_what_was_scanned(tmp_path: Path) -> None:
    """A file that is written to between the passes fills no disk."""
    path = tmp_path / "image"
    data = oci_archive(IMAGE)
    fd = os.open(tmp_path, os.O_RDONLY)
    for more, word in ((data + bytes(10_000_000), "more"), (data[:-512], "fewer")):
        with opened(path, gzip.compress(data)) as source:
            path.write_bytes(gzip.compress(more).ljust(path.stat().st_size, b"\0"))
            with pytest.raises(SourceError) as caught:
                reread = open_source(str(path))
                source._access = reread._access  # type: ignore[attr-defined]
                source.spool(fd)
        assert f"(its content had {len(data)} bytes, and now has {word})" in (caught.value.message)
    os.close(fd)
    assert os.listdir(tmp_path) == ["image"]


def test_a_directory_holds_no_descriptors(tmp_path: Path) -> None:
    path = write_layout(tmp_path / "layout", IMAGE)
    with opened(path) as source:
        before = open_descriptors()
        for _number in range(50):
            read(source, LAYER.path)
            source.document("index.json")
        assert open_descriptors() == before


# -- what is no source


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not an image archive: it is empty; make an"),
        (b"PK\x03\x04" + bytes(600), "is not an image archive: it is a zip archive; give the"),
        (b"short", "is not an image archive: it is text; make an"),
        (bytes(10240), "is not an image archive: it is full of zeros; make"),
        (b"\x28\xb5\x2f\xfd\x00", "its zstd stream ends too early; fetch it again"),
        (b"\x1f\x8b\x08\x00", "its gzip stream ends too early; fetch it again"),
        (b"\x1f\x8b" + bytes(90), "its gzip stream is damaged"),
        (oci_archive(IMAGE, edit=flip(3)), "is a damaged tar near byte 0: the checksum of a tar header is wrong"),
        (oci_archive(IMAGE, edit=cut(2000)), "it ends in the middle of a"),
        (oci_archive(IMAGE, compression="gzip", edit=cut(-1)), "its gzip stream ends"),
        (oci_archive(IMAGE, compression="zstd", edit=cut(-1)), "its zstd stream ends"),
        (
            oci_archive(IMAGE, compression="gzip", edit=append(b"junk")),
            "its gzip stream is followed by other data; fetch it again",
        ),
        (
            oci_archive(IMAGE, compression="gzip", edit_tar=cut(2000)),
            "holds a damaged tar near byte 2000: it ends in the middle of a",
        ),
        (
            oci_archive(IMAGE, compression="zstd", edit_tar=flip(3)),
            "holds a damaged tar near byte 0: the checksum of a tar header is wrong",
        ),
        (tar([file("n" * 1000)], dialect="gnu", end_blocks=0)[:1536], "it ends after an extended header"),
    ],
)
def test_what_is_no_image_archive(tmp_path: Path, data: bytes, message: str) -> None:
    said = problem(tmp_path / "image", data)
    assert message in said
    assert "image'" in said
    advice = said.rpartition("; ")[2]
    assert advice.startswith(
        ("make an image archive, for example with: ", "give the image archive that", "fetch it again")
    )


def test_a_compressed_tar_that_ends_in_an_extended_header(tmp_path: Path) -> None:
    data = oci_archive(
        Image([Layer()]),
        members=[file("n" * 1000)],
        dialect="gnu",
        end_blocks=0,
        edit_tar=cut(-512),
        compression="gzip",
    )
    assert "it ends after an extended header" in problem(tmp_path / "image", data)


def test_a_missing_source() -> None:
    said = problem("/nonexistent/image.tar")
    assert said == ("src '/nonexistent/image.tar' cannot be opened: no such file or directory;" " check the path")
    assert "cannot be opened: it contains a NUL or undecodable" in problem("/a\0b")


def test_a_directory_that_is_no_layout(tmp_path: Path) -> None:
    assert problem(tmp_path) == (
        f"src '{tmp_path}' is not an image layout: it is a directory of other files, with neither index.json nor"
        " manifest.json; set src to an image archive or layout; make an image archive, for example with: skopeo copy docker://NAME oci-archive:image.tar"
    )


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "is not a regular file; check src" in problem(tmp_path / "fifo")


def test_devices_and_sockets_are_refused(tmp_path: Path) -> None:
    assert "is not a regular file; check src" in problem("/dev/zero")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(tmp_path / "s"))
        assert "cannot be opened: no such device or address" in problem(tmp_path / "s")


def test_a_source_that_may_not_be_read(tmp_path: Path) -> None:
    # imported while the collection may be read, too
    assert directory.LayoutDirectory.form == "directory"
    (tmp_path / "file").write_bytes(oci_archive(IMAGE))
    layout = write_layout(tmp_path / "layout", IMAGE)
    for path in (str(tmp_path / "file"), layout):
        os.chmod(path, 0)
    # pytest closes its own folders, more of them where it runs on several cores
    for folder in (tmp_path, *tmp_path.parents):
        if "pytest" in str(folder) and folder.stat().st_uid == os.geteuid():
            os.chmod(folder, 0o755)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        said = [problem(tmp_path / "file"), problem(layout)]
    finally:
        os.seteuid(user)
        os.chmod(layout, 0o700)
    assert said == [
        f"'{tmp_path}/file' cannot be opened: permission denied; check src",
        f"src '{layout}' cannot be opened: permission denied; check the path",
    ]


# -- a layout directory is hostile, too


def test_a_confined_layout_is_left_by_no_name_without_a_digest(tmp_path: Path) -> None:
    """Links inside are followed, as ``docker save`` made them; a digest says what a blob must hold."""
    (tmp_path / "out").write_text("secret")
    layout = Path(write_layout(tmp_path / "layout", IMAGE))
    blob = layout / IMAGE.layers[0].path
    os.rename(blob, tmp_path / "blob")
    blob.symlink_to(tmp_path / "blob")
    (layout / "a" / "b").mkdir(parents=True)
    (layout / "a" / "b" / "file").write_text("x")
    (layout / "folder").symlink_to("a/./b")
    (tmp_path / "folder").symlink_to("/")
    links = {
        "inside": "folder/../b/file",
        "up": "../out",
        "through": "a/../../out",
        "back": "../layout/a/b/file",
        "absolute": str(tmp_path / "out"),
        "own": str(layout / "a" / "b" / "file"),
        "by": "../folder/etc/passwd",
        "loop": "loop",
    }
    for name, target in links.items():
        (layout / name).symlink_to(target)
    source = directory.LayoutDirectory(str(layout))
    before = open_descriptors()
    for name in ("up", "through", "back", "absolute", "own"):
        assert source.document(name) in (b"secret", b"x")
    source.confined = True
    assert source.document("inside") == source.document("a/b/file") == b"x"
    assert source.document("index.json")
    source.open(IMAGE.layers[0].path).close()
    for name in ("up", "through", "back", "absolute", "own", "by"):
        with pytest.raises(SourceError, match=f"'{name}' of .* is a link out of the directory, and no digest says"):  # fmt: skip
            source.document(name)
    with pytest.raises(SourceError, match="too many levels"):
        source.document("loop")
    # what takes a file's place between two looks
    (layout / "fifo").mkdir()
    with pytest.raises(SourceError, match="is not a regular file"):
        directory.open_beneath(str(layout), "fifo")
    assert open_descriptors() == before


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "blobs/..", "a\0b", "\ud800"])
def test_names_that_lead_out_of_a_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"{}")
    path = write_layout(tmp_path / "layout", IMAGE)
    with opened(path) as source:
        for ask in (source.size_of, source.open, source.document):
            with pytest.raises(SourceError, match="is not a path inside it; do"):
                ask(name)


def test_symlinks_in_a_directory_are_followed(tmp_path: Path) -> None:
    """Blobs are often links into a store."""
    store = tmp_path / "store"
    store.write_bytes(LAYER.data)
    files = {LAYER.path: symlink("", str(store))}
    with opened(write_layout(tmp_path / "layout", IMAGE, files=files)) as source:
        assert read(source, LAYER.path) == LAYER.data


@pytest.mark.parametrize("to", [fifo("x"), symlink("x", "/dev/zero"), symlink("x", "/")])
def test_blobs_in_a_directory_must_be_files(tmp_path: Path, to: t.Any) -> None:
    """Nothing is waited for."""
    files = {LAYER.path: to}
    with opened(write_layout(tmp_path / "layout", IMAGE, files=files)) as source:
        for ask in (source.size_of, source.open, source.document):
            with pytest.raises(SourceError, match="is not a regular file; do not use"):
                ask(LAYER.path)


def test_dangling_links_and_loops_in_a_directory(tmp_path: Path) -> None:
    files = {"dangling": symlink("", "nothing"), "loop": symlink("", "loop")}
    with opened(write_layout(tmp_path / "layout", IMAGE, files=files)) as source:
        assert source.size_of("dangling") is None
        with pytest.raises(SourceError, match="holds no 'dangling'; fetch or save"):
            source.open("dangling")
        with pytest.raises(SourceError, match="cannot be read: too many levels"):
            source.size_of("loop")


def test_an_index_that_is_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"root:hash")
    path = write_layout(tmp_path / "layout", files={"index.json": symlink("", "../secret")})
    with opened(path) as source:
        # the administrator's own link: read it, whatever becomes of it
        assert source.document("index.json") == b"root:hash"


def test_no_file_stays_open(tmp_path: Path) -> None:
    before = open_descriptors()
    for data in (b"junk", oci_archive(IMAGE, edit=cut(900)), b"\x1f\x8bjunk"):
        problem(tmp_path / "image", data)
    with opened(tmp_path / "image", oci_archive(IMAGE)) as source:
        read(source, LAYER.path)
    assert open_descriptors() == before
