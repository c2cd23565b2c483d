# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images that ask for too much, in whatever size; most are written as streams, in little memory."""

from __future__ import annotations

import bz2
import hashlib
import json
import lzma
import os
import typing as t
import zlib

from ansible_collections.hypervisor.oci.tests.images.builder import (
    Blob,
    Image,
    Index,
    Layer,
    digest as digest_of,
    directory,
    file,
    gzip_member,
    index_json,
    opaque,
    pax_records,
    symlink,
    tar,
    whiteout,
    write_layout,
    write_oci_archive,
    zstd_stored_frame,
)
from ansible_collections.hypervisor.oci.tests.images.documents import LAYER

MIB = 1024 * 1024
_BLOCK = 512


# -- layers as streams


def streamed(folder: str, parts: t.Iterable[bytes], level: int = 1) -> str:
    """A layout whose one layer is the gzip of these parts, end blocks added."""
    return layered(folder, [parts], level)


def layered(folder: str, layers: t.Iterable[t.Iterable[bytes]], level: int = 1) -> str:
    """A layout of several of them."""
    blobs = os.path.join(folder, "layers")
    os.makedirs(blobs)
    descriptors = []
    diff_ids = []
    for number, parts in enumerate(layers):
        descriptor, diff_id = _store(os.path.join(blobs, str(number)), parts, level)
        descriptors.append(descriptor)
        diff_ids.append(diff_id)
    image = Image([], diff_ids=diff_ids, manifest={"layers": descriptors})
    path = write_layout(os.path.join(folder, "layout"), image)
    for number, descriptor in enumerate(descriptors):
        name = descriptor["digest"].partition(":")[2]
        target = os.path.join(path, "blobs", "sha256", name)
        os.rename(os.path.join(blobs, str(number)), target)
    return path


def _store(path: str, parts: t.Iterable[bytes], level: int) -> tuple[dict[str, t.Any], str]:
    deflate = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    blob, content, size = hashlib.sha256(), hashlib.sha256(), 0
    with open(path, "wb") as stream:
        for part in _with_end(parts):
            content.update(part)
            data = deflate.compress(part) if part else deflate.flush()
            blob.update(data)
            size += stream.write(data)
    digest = f"sha256:{blob.hexdigest()}"
    descriptor = {"mediaType": LAYER + "+gzip", "digest": digest, "size": size}
    return descriptor, f"sha256:{content.hexdigest()}"


def _with_end(parts: t.Iterable[bytes]) -> t.Iterator[bytes]:
    """The parts, the end blocks, and nothing."""
    held: list[bytes] = []
    count = 0
    for part in parts:
        held.append(part)
        count += len(part)
        if count > MIB:
            yield b"".join(held)
            held, count = [], 0
    yield b"".join(held) + bytes(2 * _BLOCK)
    yield b""


def header(name: bytes, kind: bytes, size: int = 0, link: bytes = b"") -> bytes:
    """One header, made faster than the builder makes it."""
    block = bytearray(_BLOCK)
    block[0 : len(name)] = name
    block[100:108] = b"0000755\0"
    block[108:124] = b"0000000\0" * 2
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[156:157] = kind
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def extended(content: bytes, kind: bytes = b"x") -> bytes:
    """An extended header of these bytes."""
    size = len(content)
    return header(b"extended", kind, size) + content + bytes(-size % _BLOCK)


def _blob(folder: str, data: bytes, kind: str, diff_id: str = "sha256:" + "0" * 64) -> str:
    """An archive whose layer is this blob, whatever it holds."""
    layer = Blob(data, f"{LAYER}+{kind}")
    layer.diff_id = diff_id
    return write_oci_archive(os.path.join(folder, "a.tar"), Image([layer]))


# -- compressed streams


def gzip_bomb(folder: str, count: int) -> str:
    """``count`` times 64 MiB in a thousandth of it."""
    member = gzip_member(bytes(64 * MIB), 9)
    first = gzip_member(header(b"f", b"0", 8**11 - 1))
    return _blob(folder, first + member * count, "gzip")


def zstd_bomb(folder: str, count: int) -> str:
    """``count`` run-length blocks of 128 KiB in four bytes each, after one header."""
    start = zstd_stored_frame(header(b"f", b"0", 8**11 - 1), 20)
    block = (0 | 1 << 1 | 128 * 1024 << 3).to_bytes(3, "little") + b"\0"
    end = (1 | 1 << 1 | 1 << 3).to_bytes(3, "little") + b"\0"
    frame = b"\x28\xb5\x2f\xfd" + bytes([0, (20 - 10) << 3]) + block * count + end
    return _blob(folder, start + frame, "zstd")


def bzip2_bomb(folder: str, count: int) -> str:
    """``count`` times 43 MiB in 45 bytes each."""
    first = bz2.compress(header(b"f", b"0", 8**11 - 1))
    return _blob(folder, first + bz2.compress(bytes(43 * MIB)) * count, "bzip2")


def xz_bomb(folder: str, count: int) -> str:
    """``count`` times 64 MiB in a seven thousandth of it."""
    first = lzma.compress(header(b"f", b"0", 8**11 - 1))
    return _blob(folder, first + lzma.compress(bytes(64 * MIB)) * count, "xz")


def xz_dictionary(folder: str, size: int) -> str:
    """A stream that claims to need a large dictionary."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": size}]
    data = tar([file("f", b"x")])
    return _blob(folder, lzma.compress(data, filters=filters), "xz", digest_of(data))


def empty_streams(folder: str, kind: str, count: int) -> str:
    """A layer before very many streams of nothing."""
    compress: t.Callable[[bytes], bytes] = lzma.compress if kind == "xz" else bz2.compress
    data = tar([file("f", b"x")])
    return _blob(folder, compress(data) + compress(b"") * count, kind, digest_of(data))


def zstd_window(folder: str, log: int) -> str:
    """A frame that claims to need a large window."""
    data = tar([file("f", b"x")])
    return _blob(folder, zstd_stored_frame(data, log), "zstd")


def gzip_members(folder: str, count: int) -> str:
    """A layer in very many members."""
    data = tar([file("f", b"x")])
    layer = Layer(
        file("f", b"x"),
        compression=lambda _tar: gzip_member(data) + gzip_member(b"") * count,
        media_type=LAYER + "+gzip",
    )
    return write_oci_archive(os.path.join(folder, "a.tar"), Image([layer]))


def zstd_frames(folder: str, count: int) -> str:
    """A layer in very many frames."""
    data = tar([file("f", b"x")])
    layer = Layer(
        file("f", b"x"),
        compression=lambda _tar: zstd_stored_frame(data) + zstd_stored_frame(b"") * count,
        media_type=LAYER + "+zstd",
    )
    return write_oci_archive(os.path.join(folder, "a.tar"), Image([layer]))


# -- entries


def many_entries(folder: str, count: int) -> str:
    """Empty files, a thousand to a directory."""
    return streamed(folder, _files(count))


def _files(count: int) -> t.Iterator[bytes]:
    for number in range(count):
        if number % 1000 == 0:
            yield header(b"d%d/" % (number // 1000), b"5")
        yield header(b"d%d/f%d" % (number // 1000, number), b"0")


def many_files_above(folder: str, count: int) -> str:
    """The same files twice: what the second layer brings must be known by name."""
    return layered(folder, [_files(count), _files(count)])


def deep(folder: str, levels: int) -> str:
    """One entry below so many directories."""
    path = b"d/" * levels + b"f"
    return streamed(folder, [extended(pax_records({"path": path})), header(b"f", b"0")])


def deep_one_by_one(folder: str, levels: int) -> str:
    """A directory in each, every one with an entry of its own."""
    parts = (extended(pax_records({"path": b"d/" * level})) + header(b"d", b"5") for level in range(1, levels + 1))
    return streamed(folder, parts)


def implied(folder: str, count: int) -> str:
    """Directories that no entry brings: a hundred for each."""
    parts = (
        extended(pax_records({"path": b"%d/" % number + b"d/" * 99 + b"f"})) + header(b"f", b"0")
        for number in range(count // 100)
    )
    return streamed(folder, parts)


def endless_headers(folder: str, kind: bytes, count: int) -> str:
    """Extended headers of 64 KiB and no entry."""
    content = pax_records({"comment": b"c" * 65000})
    if kind in (b"L", b"K"):
        content = b"n" * 65000
    return streamed(folder, (extended(content, kind) for _number in range(count)))


def long_number(folder: str, key: str, digits: int) -> str:
    """A pax record whose number is very long."""
    entry = file("f", pax={key: b"9" * digits})
    return write_oci_archive(os.path.join(folder, "a.tar"), Image([Layer(entry)]))


def sparse_blocks(folder: str, count: int) -> str:
    """An old sparse header whose map goes on and on."""
    pair = b"%011o\0" % 0 * 2
    area = pair * 4 + b"\1" + b"%011o\0" % 10
    first = file("f", fields={"type": b"S", "sparse": area, "magic": b"ustar  \0"})
    more = pair * 21 + b"\1" + bytes(7)
    return streamed(folder, [first.render("gnu"), *([more] * count)])


def sparse_map(folder: str, count: int) -> str:
    """A map in the entry's data that claims ``count`` regions."""
    text = b"%d\n" % count + b"0\n0\n" * count
    pax: dict[t.Any, t.Any] = {"GNU.sparse.major": 1, "GNU.sparse.minor": 0, "GNU.sparse.realsize": 0}
    return streamed(folder, [file("f", text, pax=pax).render()])


def sparse_apparent(folder: str, size: int) -> str:
    """A file that is one hole."""
    pax: dict[t.Any, t.Any] = {"GNU.sparse.map": "", "GNU.sparse.size": size, "GNU.sparse.numblocks": 0}
    return streamed(folder, [file("f", b"", pax=pax).render()])


def link_chain(folder: str, count: int) -> str:
    """Entries below forty links, each through two thousand components."""
    way = "d/../" * 700
    links = [symlink(f"l{number}", f"{way}l{number + 1}").render() for number in range(38)]
    parts = [directory("d").render(), *links, directory("l38").render()]
    # between two of them the way must be gone again
    pairs = (header(b"l0/f%d" % number, b"0") + header(b"d/f%d" % number, b"0") for number in range(count))
    return streamed(folder, (part for group in (parts, pairs) for part in group))


def kept_links(folder: str, count: int) -> str:
    """Directories over links in a deep directory, for keep_dirlinks; a link leads there."""
    deepest = b"d/" * 1900
    parts = [extended(pax_records({"path": deepest})) + header(b"d", b"5")]
    parts.append(extended(pax_records({"linkpath": deepest})) + header(b"l", b"2"))
    pairs = (header(b"l/k%d" % number, b"2", link=b".") + header(b"l/k%d" % number, b"5") for number in range(count))
    return streamed(folder, (part for group in (parts, pairs) for part in group))


def opaque_again(folder: str, files: int, marks: int) -> str:
    """A big directory, and a layer that makes it opaque over and over, with things of its own in it."""
    parts = [directory("d").render()]
    below = (header(b"d/f%d" % number, b"0") for number in range(files))
    own = [header(b"d/g%d" % number, b"0") for number in range(files)]
    again = [opaque("d").render(), whiteout("d").render()] * marks
    lower = (part for group in (parts, below) for part in group)
    return layered(folder, [lower, own + again])


def opaque_layers(folder: str, files: int, layers: int) -> str:
    """Layer after layer that empties a directory and fills it again."""
    own = [header(b"d/f%d" % number, b"0") for number in range(files)]
    return layered(folder, [[opaque("d").render(), *own]] * layers)


def folders_removed(folder: str, count: int) -> str:
    """A directory of very many directories, replaced by a file."""
    below = (header(b"d/%d/" % number, b"5") for number in range(count))
    return layered(folder, [below, [header(b"d", b"0")]])


def hard_links(folder: str, count: int) -> str:
    """Names of one file."""
    links = (header(b"l%d" % number, b"1", link=b"f") for number in range(count))
    first = [header(b"f", b"0")]
    return streamed(folder, (part for group in (first, links) for part in group))


def many_xattrs(folder: str, count: int) -> str:
    """Extended attributes of one file."""
    records: dict[t.Any, t.Any] = {f"SCHILY.xattr.user.{number}": b"v" for number in range(count)}
    return streamed(folder, [extended(pax_records(records)), header(b"f", b"0")])


def directory_xattrs(folder: str, count: int) -> str:
    """Directories with nearly a MiB of extended attributes each."""
    names = [f"SCHILY.xattr.user.{number}" for number in range(15)]
    records: dict[t.Any, t.Any] = {name: b"v" * 65000 for name in names}
    content = pax_records(records)
    # what is the same must not be taken for what costs nothing
    parts = (
        extended(content.replace(b"=vvvvvvvv", b"=%08d" % number)) + header(b"d%d/" % number, b"5")
        for number in range(count)
    )
    return streamed(folder, parts)


def small_directory_xattrs(folder: str, count: int) -> str:
    """Directories with as many small extended attributes as a header holds."""
    pairs = [(f"SCHILY.xattr.user.{number}", b"") for number in range(30_000)]
    content = pax_records(t.cast(t.Any, pairs))
    parts = (extended(content) + header(b"d%d/" % number, b"5") for number in range(count))
    return streamed(folder, parts)


# -- documents


def big_document(folder: str, what: str, size: int) -> str:
    """A document of so many bytes, blanks mostly, which cost nothing to parse."""
    blanks = b" " * size
    path = os.path.join(folder, "a.tar")
    image = Image([Layer(file("f"))])
    if what == "config":
        changed = Image([Layer(file("f"))], config_document=image.config.data + blanks)
        return write_oci_archive(path, changed)
    if what == "manifest":
        changed = Image([Layer(file("f"))], manifest=image.data + blanks)
        return write_oci_archive(path, changed)
    if what == "index.json":
        return write_oci_archive(path, image, index=index_json([image]) + blanks)
    index = Index(image)
    return write_oci_archive(path, Index(image, document=index.data + blanks))


def many_values(folder: str) -> str:
    """A config of nearly 4 MiB whose values are as small, and so as many, as can be."""
    image = Image([Layer(file("f"))])
    junk = b',"junk":[' + b"{}," * (4 * MIB // 3 - 1000) + b"0]}"
    document = image.config.data[:-1] + junk
    changed = Image([Layer(file("f"))], config_document=document)
    return write_oci_archive(os.path.join(folder, "a.tar"), changed)


def deep_document(folder: str, depth: int = 4 * MIB) -> str:
    """A manifest that is nested so deep."""
    changed = Image([Layer(file("f"))], manifest=b"[" * depth)
    return write_oci_archive(os.path.join(folder, "a.tar"), changed)


def many_layers(folder: str, count: int) -> str:
    """The same layer over and over."""
    path = os.path.join(folder, "a.tar")
    return write_oci_archive(path, Image([Layer(file("f"))] * count))


def nested_indexes(folder: str, count: int) -> str:
    """An index in an index in an index."""
    inner: t.Any = Image([Layer(file("f"))])
    for _level in range(count):
        inner = Index(inner)
    return write_oci_archive(os.path.join(folder, "a.tar"), inner)


def repeated_index(folder: str, count: int) -> str:
    """One index of nearly 4 MiB, listed over and over."""
    inner = Index(Image([Layer(file("f"))]), document={"junk": "x" * (4 * MIB - 2000)})
    names = [inner.listed(ref=f"n{number}") for number in range(count)]
    return write_oci_archive(os.path.join(folder, "a.tar"), *names)


def repeated_manifest(folder: str, count: int) -> str:
    """One image under very many names, in an index that is itself listed many times."""
    image = Image([Layer(file("f"))])
    item = image.descriptor()
    del item["platform"]
    items = [{**item, "annotations": {"org.opencontainers.image.ref.name": str(number)}} for number in range(count)]
    names = [Index(image, document={"manifests": items, "n": number}) for number in range(4)]
    return write_oci_archive(os.path.join(folder, "a.tar"), *names)


def shared_config(folder: str, count: int) -> str:
    """Many manifests of one config of nearly 4 MiB."""
    ports: dict[str, t.Any] = {f"port-number-{number:011}/tcp": {} for number in range(115_000)}
    layer = Layer(file("f"))
    first = Image([layer], {"ExposedPorts": ports}, descriptor={"platform": None})
    contents = []
    for number in range(count):
        document = json.loads(first.data)
        document["number"] = number
        data = json.dumps(document).encode()
        contents.append(Blob(data, first.media_type))
    files = first.files()
    del files[first.path]
    path = os.path.join(folder, "a.tar")
    return write_oci_archive(path, *contents, files=t.cast(t.Any, files))


def saved_again(folder: str, count: int) -> str:
    """A docker save archive that lists one image of a large config over and over."""
    image = Image([Layer(file("f"))], {"Labels": {f"l{number}": "x" * MIB for number in range(3)}})
    return _saved(folder, image, count)


def saved_names(folder: str, count: int) -> str:
    """The same with a small one, which becomes one image of many names."""
    return _saved(folder, Image([Layer(file("f"))]), count)


def _saved(folder: str, image: Image, count: int) -> str:
    entries = [{"Config": "c", "RepoTags": [f"n:{number}"], "Layers": ["l"]} for number in range(count)]
    files = {"c": image.config.data, "l": image.layers[0].data}
    files["manifest.json"] = json.dumps(entries).encode()
    path = os.path.join(folder, "a.tar")
    with open(path, "wb") as stream:
        stream.write(tar([file(name, data) for name, data in files.items()]))
    return path


# -- archives


def many_members(folder: str, count: int, compressed: bool = False) -> str:
    """An outer tar of empty members before the image's own."""
    image = Image([Layer(file("f"))])
    own = [file(name, data) for name, data in image.files().items()]
    own.append(file("index.json", index_json([image])))
    parts = (header(b"m%d" % number, b"0") for number in range(count))
    path = os.path.join(folder, "a.tar")
    _write_tar(path, parts, tar(own), compressed)
    return path


def long_names(folder: str, count: int, compressed: bool) -> str:
    """Members of an outer tar whose names have nearly a MiB each."""
    image = Image([Layer(file("f"))])
    own = [file(name, data) for name, data in image.files().items()]
    own.append(file("index.json", index_json([image])))
    parts = (
        extended(pax_records({"path": b"%d" % number + b"n" * 1_000_000})) + header(b"m", b"0")
        for number in range(count)
    )
    path = os.path.join(folder, "a.tar")
    _write_tar(path, parts, tar(own), compressed)
    return path


def _write_tar(path: str, parts: t.Iterable[bytes], end: bytes, compressed: bool) -> None:
    deflate = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    with open(path, "wb") as stream:
        for part in (*parts, end) if not compressed else ():
            stream.write(part)
        if compressed:
            for part in parts:
                stream.write(deflate.compress(part))
            stream.write(deflate.compress(end) + deflate.flush())


def outer_bomb(folder: str, count: int) -> str:
    """A compressed archive with a member that decompresses to ``count`` times 64 MiB."""
    first = gzip_member(header(b"f", b"0", count * 64 * MIB))
    path = os.path.join(folder, "a.tar.gz")
    image = Image([Layer(file("f"))])
    own = [file(name, data) for name, data in image.files().items()]
    own.append(file("index.json", index_json([image])))
    with open(path, "wb") as stream:
        stream.write(first)
        member = gzip_member(bytes(64 * MIB), 9)
        for _number in range(count):
            stream.write(member)
        stream.write(gzip_member(tar(own)))
    return path


def many_documents(folder: str, count: int) -> str:
    """A compressed archive of documents of 1 MiB that nothing speaks of."""
    image = Image([Layer(file("f"))])
    own = [file(name, data) for name, data in image.files().items()]
    own.append(file("index.json", index_json([image])))
    parts = (header(b"m%d" % number, b"0", MIB) + b"{" + b" " * (MIB - 1) for number in range(count))
    path = os.path.join(folder, "a.tar.gz")
    _write_tar(path, parts, tar(own), True)
    return path
