# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images to measure with: streamed to disk, the same bytes every time, by the standard library and zstandard.

The builder of images for tests holds an image in memory and checks what it is told; here, a million entries
matter and all of them are plain. The same tree comes in three compressions as image layout directories, each
with an archive of it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import tarfile
import typing as t
import zlib
from dataclasses import dataclass

TAG = "latest"
COMPRESSIONS = ("gzip", "zstd", "plain")

_PIECE = 1 << 20
_BLOCK = 512
# 2024-01-01
_TIME = 1704067200
_SUFFIXES = {"gzip": "+gzip", "zstd": "+zstd", "plain": ""}
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Member:
    """An entry of a layer: ``kind`` is the tar's type flag; data may come in pieces, of ``size`` bytes in all."""

    name: str
    kind: bytes = b"0"
    data: t.Iterable[bytes] = ()
    size: int = 0
    mode: int = 0o644
    link: str = ""


Layers = t.Sequence[t.Callable[[], t.Iterator[Member]]]


@dataclass(frozen=True)
class Case:
    """An image in one compression. ``layers`` are paths of blobs, the lowest first; ``archive`` may be missing."""

    image: str
    compression: str
    layout: str
    archive: str | None
    layers: tuple[str, ...]

    @property
    def name(self) -> str:
        """``image, compression``."""
        return f"{self.image}, {self.compression}"

    @property
    def size(self) -> int:
        """Bytes of all layers as they are stored."""
        return sum(os.path.getsize(path) for path in self.layers)


# -- what is in the trees


class Text:
    """Bytes to cut files from: they compress as program text does (``dense=False``) or as binaries do."""

    def __init__(self, seed: int, size: int, dense: bool = False) -> None:
        self._bytes = _pool(seed, size, dense)
        self._rng = random.Random(seed)

    def cut(self, size: int) -> bytes:
        """Any ``size`` bytes."""
        whole = self._bytes
        if size >= len(whole):
            return (whole * (size // len(whole) + 1))[:size]
        start = self._rng.randrange(len(whole) - size)
        return whole[start : start + size]


@functools.lru_cache(maxsize=8)
def _pool(seed: int, size: int, dense: bool) -> bytes:
    rng = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbgkqjxz_"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 10))) for _turn in range(4000)]
    words += [" = ", "(", ");\n", "{\n    ", "}\n", "return ", "function ", ", "] * 250
    parts = []
    length = 0
    while length < size:
        part = " ".join(rng.choices(words, k=4000)).encode()
        if dense:
            part = part[: len(part) // 2] + _random_bytes(rng, len(part) // 4)
        parts.append(part)
        length += len(part)
    return b"".join(parts)


def _random_bytes(rng: random.Random, size: int) -> bytes:
    return rng.getrandbits(8 * size).to_bytes(size, "little") if size else b""


def _file(name: str, data: bytes, mode: int = 0o644) -> Member:
    return Member(name, b"0", (data,), len(data), mode)


def _folder(name: str) -> Member:
    return Member(name + "/", b"5", mode=0o755)


def system_tree(seed: int, entries: int, size: int) -> t.Iterator[Member]:
    """Like a distribution's: folders, small files, a few large binaries, symbolic and hard links."""
    rng = random.Random(seed)
    text = Text(seed, 8 << 20)
    binary = Text(seed + 1, 8 << 20, dense=True)
    yield _folder("usr")
    yield _folder(f"usr/lib{seed}")
    # a twentieth of the files hold two thirds of the bytes
    large = max(1, entries // 20)
    last = ""
    folder = ""
    for number in range(entries):
        if number % 14 == 0:
            folder = f"usr/lib{seed}/package-{number}"
            yield _folder(folder)
            continue
        name = f"{folder}/file-{number}"
        if number % 14 in (5,) and last:
            yield Member(name, b"2", link=os.path.basename(last), mode=0o777)
        elif number % 98 == 13 and last:
            yield Member(name, b"1", link=last)
        elif number % 20 == 3:
            last = name
            yield _file(name, binary.cut(_spread(rng, size * 2 // 3 // large)), 0o755)
        else:
            last = name
            yield _file(name, text.cut(_spread(rng, size // 3 // entries)))


def package_tree(seed: int, entries: int, size: int, top: str = "srv/app") -> t.Iterator[Member]:
    """Like ``node_modules``: a deep tree of very many small files."""
    rng = random.Random(seed)
    text = Text(seed, 16 << 20)
    path = ""
    for part in top.split("/"):
        path = f"{path}/{part}" if path else part
        yield _folder(path)
    modules = f"{path}/node_modules"
    yield _folder(modules)
    folder = modules
    for number in range(entries):
        if number % 6 == 0:
            depth = number // 6 % 4
            if depth == 0:
                folder = f"{modules}/module-{number:06d}"
            elif depth == 2:
                folder = f"{folder}/node_modules"
            else:
                folder = f"{folder}/component-{number:06d}"
            yield _folder(folder)
        else:
            data = text.cut(_spread(rng, size * 6 // 5 // entries))
            yield _file(f"{folder}/index-{number:06d}.js", data)


def one_file(size: int) -> t.Iterator[Member]:
    """One file, half random and half text."""

    def pieces() -> t.Iterator[bytes]:
        rng = random.Random(size)
        text = Text(size, min(size, 32 << 20))
        for source in (lambda count: _random_bytes(rng, count), text.cut):
            left = size // 2
            while left:
                count = min(left, _PIECE)
                yield source(count)
                left -= count

    yield _folder("data")
    yield Member("data/half-and-half.bin", b"0", pieces(), size // 2 * 2)


def changes(seed: int, entries: int, lower: int) -> t.Iterator[Member]:
    """A small layer over ``package_tree(…, entries=lower)``: files replaced, added, and whited out."""
    rng = random.Random(seed)
    text = Text(seed, 1 << 20)
    yield _folder("srv")
    yield _folder("srv/app")
    yield _folder("srv/app/node_modules")
    yield _folder(f"srv/app/layer-{seed}")
    replaced = rng.sample(range(lower // 24), min(entries // 8, lower // 24))
    for number in replaced:
        # the first file of a top module, whose folder comes along as builders have it
        module = 24 * number
        folder = f"srv/app/node_modules/module-{module:06d}"
        yield _folder(folder)
        name = f"index-{module + 1:06d}.js"
        if number % 4 == 0:
            yield _file(f"{folder}/.wh.{name}", b"")
        else:
            yield _file(f"{folder}/{name}", text.cut(_spread(rng, 3000)))
    for number in range(entries - len(replaced)):
        data = text.cut(_spread(rng, 3000))
        yield _file(f"srv/app/layer-{seed}/file-{number}", data)


def flat_tree(entries: int, start: int = 0) -> t.Iterator[Member]:
    """As many entries as that, nearly all of them files of 64 bytes, fifty in a folder."""
    data = b"a line of sixty-four bytes, its newline counted, for each file.\n"
    for number in range(start, start + entries):
        folder = f"many/{number // 5000:04d}/{number // 50:06d}"
        if number % 50 == 0:
            if number == start:
                yield _folder("many")
            if number % 5000 == 0 or number == start:
                yield _folder(os.path.dirname(folder))
            yield _folder(folder)
        else:
            yield _file(f"{folder}/file-{number:08d}", data)


def _spread(rng: random.Random, mean: int) -> int:
    """Sizes as files have them: many small ones, some of many times the ``mean``."""
    return max(1, int(mean * rng.lognormvariate(-0.72, 1.2)))


# -- what is measured


def few(quick: bool) -> Layers:
    """A distribution, its tools, an application, a fix: four layers, not many files."""
    scale = 40 if quick else 1
    lower = 4800 // scale
    return [
        lambda: system_tree(1, 6000 // scale, 120_000_000 // scale),
        lambda: system_tree(2, 6000 // scale, 250_000_000 // scale),
        lambda: package_tree(3, lower, 20_000_000 // scale),
        lambda: changes(4, 400 // scale, lower),
    ]


def many(quick: bool) -> Layers:
    """Very many small files over a small distribution."""
    scale = 40 if quick else 1
    return [
        lambda: system_tree(1, 6000 // scale, 100_000_000 // scale),
        lambda: package_tree(2, 80_000 // scale, 400_000_000 // scale),
    ]


def big(quick: bool) -> Layers:
    """One big file over a small distribution."""
    scale = 40 if quick else 1
    return [lambda: system_tree(1, 6000 // scale, 100_000_000 // scale), lambda: one_file(600_000_000 // scale)]


# What ``app`` is made of, from the bottom: entries and bytes.
_APP = ((6300, 165_000_000), (6900, 760_000_000), (960, 30_000_000), (60, 380_000))


def app(quick: bool, changed: int = 0) -> Layers:
    """An application of four layers and 750 MB, of which the top ``changed`` layers are those of another version."""
    scale = 20 if quick else 1
    layers = []
    for number, (entries, size) in enumerate(_APP):
        seed = number + 1 + (100 * changed if number >= len(_APP) - changed else 0)
        make = system_tree if number < 2 else package_tree
        layers.append(functools.partial(make, seed, entries // scale, size // scale))
    return layers


def npm(quick: bool) -> Layers:
    """92,000 entries, nearly all of them small files in the upper of two layers."""
    scale = 40 if quick else 1
    return [
        lambda: system_tree(1, 6300 // scale, 130_000_000 // scale),
        lambda: package_tree(2, 85_700 // scale, 420_000_000 // scale),
    ]


def stacked(count: int, entries: int, size: int) -> Layers:
    """About the same tree in ``count`` layers: half of it at the bottom, each other replaces and whites out a bit."""
    if count == 1:
        return [lambda: package_tree(1, entries, size)]
    half = entries // 2
    each = half // (count - 1)

    def upper(seed: int) -> t.Callable[[], t.Iterator[Member]]:
        return lambda: changes(seed, each, half)

    return [lambda: package_tree(1, half, size // 2), *(upper(seed) for seed in range(2, count + 1))]


def one_layer(entries: int) -> Layers:
    """So many entries in one layer."""
    return [lambda: flat_tree(entries)]


def second_layer(entries: int) -> Layers:
    """So many entries over as many others: half of them replace, half are new."""
    return [lambda: flat_tree(entries), lambda: flat_tree(entries, entries // 100 * 50)]


# -- how they are written


def build(folder: str, image: str, layers: Layers, compressions: t.Sequence[str]) -> list[Case]:
    """Write the image into ``folder`` as layouts and archives, in each of the compressions."""
    cases = []
    for compression in compressions:
        layout = os.path.join(folder, f"{image}-{compression}")
        blobs = os.path.join(layout, "blobs", "sha256")
        os.makedirs(blobs)
        descriptors, diff_ids = [], []
        for layer in layers:
            descriptor, diff_id = _write_layer(blobs, layer(), compression)
            descriptors.append(descriptor)
            diff_ids.append(diff_id)
        _write_documents(layout, blobs, descriptors, diff_ids)
        archive = f"{layout}.oci.tar"
        _write_archive(archive, layout)
        cases.append(Case(image, compression, layout, archive, layers_of(layout)))
    return cases


def layers_of(layout: str) -> tuple[str, ...]:
    """The paths of the layers of the layout's one image, the lowest first. It is trusted."""
    document = _load(os.path.join(layout, "index.json"))
    while "manifests" in document:
        document = _load(_blob(layout, document["manifests"][0]["digest"]))
    return tuple(_blob(layout, layer["digest"]) for layer in document["layers"])


def found(folder: str) -> list[Case]:
    """Images made elsewhere: layouts ``NAME/oci-COMPRESSION``, beside them ``NAME-COMPRESSION.oci.tar``."""
    cases = []
    for image in sorted(os.listdir(folder)):
        for compression in COMPRESSIONS:
            layout = os.path.join(folder, image, f"oci-{compression}")
            archive = os.path.join(folder, image, f"{image}-{compression}.oci.tar")
            if os.path.isfile(os.path.join(layout, "index.json")):
                cases.append(
                    Case(
                        image,
                        compression,
                        os.path.abspath(layout),
                        os.path.abspath(archive) if os.path.isfile(archive) else None,
                        layers_of(os.path.abspath(layout)),
                    )
                )
    return cases


class _Sink:
    """A blob on its way to disk: compressed, hashed and counted."""

    def __init__(self, file: t.BinaryIO, compression: str) -> None:
        self._file = file
        self._compressor = _compressor(compression)
        self.tar = hashlib.sha256()
        self.blob = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Take tar bytes."""
        self.tar.update(data)
        self._store(self._compressor.compress(data) if self._compressor else data)

    def finish(self) -> None:
        """The rest of the compressed stream."""
        if self._compressor:
            self._store(self._compressor.flush())

    def _store(self, data: bytes) -> None:
        self.blob.update(data)
        self.size += len(data)
        self._file.write(data)


def _compressor(compression: str) -> t.Any:
    if compression == "gzip":
        # zlib's own gzip header says no name and no time
        return zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    if compression == "zstd":
        # late, since it may be missing
        import zstandard

        return zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
    return None


def _write_layer(blobs: str, members: t.Iterator[Member], compression: str) -> tuple[dict[str, t.Any], str]:
    """Write a layer under its digest; returns its descriptor and its diff_id."""
    path = os.path.join(blobs, "unfinished")
    with open(path, "wb") as file:
        sink = _Sink(file, compression)
        pending: list[bytes] = []
        length = 0
        for piece in _pieces(members):
            pending.append(piece)
            length += len(piece)
            if length > _PIECE:
                sink.write(b"".join(pending))
                pending, length = [], 0
        sink.write(b"".join(pending))
        sink.finish()
    digest = sink.blob.hexdigest()
    os.rename(path, os.path.join(blobs, digest))
    media_type = _LAYER + _SUFFIXES[compression]
    return _descriptor(media_type, digest, sink.size), f"sha256:{sink.tar.hexdigest()}"


def _pieces(members: t.Iterator[Member]) -> t.Iterator[bytes]:
    """The bytes of a tar."""
    for member in members:
        yield header(member)
        yield from member.data
        yield bytes(-member.size % _BLOCK)
    yield bytes(2 * _BLOCK)


def header(member: Member) -> bytes:
    """An ustar header. Raises ``ValueError`` for a name that does not fit."""
    prefix, name = b"", member.name.encode()
    if len(name) > 100:
        slash = name.find(b"/", len(name) - 101)
        prefix, name = name[:slash], name[slash + 1 :]
        if slash < 1 or len(prefix) > 155 or not name:
            raise ValueError(f"{member.name} does not fit into an ustar header")
    block = b"%-b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%b" % (
        name.ljust(100, b"\0"),
        member.mode,
        0,
        0,
        member.size,
        _TIME + len(name),
        member.kind,
        member.link.encode().ljust(100, b"\0"),
    )
    block += b"ustar\x0000".ljust(88, b"\0") + prefix.ljust(155, b"\0")
    return b"%b%06o\0 %b" % (block[:148], sum(block), block[156:].ljust(356, b"\0"))


def _write_documents(layout: str, blobs: str, descriptors: list[dict[str, t.Any]], diff_ids: list[str]) -> None:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _write_blob(blobs, _CONFIG, config),
        "layers": descriptors,
    }
    listed = _write_blob(blobs, _MANIFEST, manifest)
    listed["platform"] = {"architecture": "amd64", "os": "linux"}
    listed["annotations"] = {"org.opencontainers.image.ref.name": TAG}
    index = {"schemaVersion": 2, "manifests": [listed]}
    for name, document in (("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
        with open(os.path.join(layout, name), "wb") as file:
            file.write(_json(document))


def _write_blob(blobs: str, media_type: str, document: t.Any) -> dict[str, t.Any]:
    data = _json(document)
    digest = hashlib.sha256(data).hexdigest()
    with open(os.path.join(blobs, digest), "wb") as file:
        file.write(data)
    return _descriptor(media_type, digest, len(data))


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, t.Any]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def _write_archive(path: str, layout: str) -> None:
    """A tar of the layout, in the order of the names."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        names = ["oci-layout", "index.json"]
        blobs = os.path.join("blobs", "sha256")
        names += [os.path.join(blobs, name) for name in sorted(os.listdir(os.path.join(layout, blobs)))]
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = os.path.getsize(os.path.join(layout, name))
            info.mtime = _TIME
            with open(os.path.join(layout, name), "rb") as file:
                archive.addfile(info, file)


def _json(document: t.Any) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _load(path: str) -> t.Any:
    with open(path, "rb") as file:
        return json.load(file)


def _blob(layout: str, digest: str) -> str:
    return os.path.join(layout, "blobs", *digest.split(":"))
