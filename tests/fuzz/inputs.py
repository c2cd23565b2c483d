# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inputs: one archive for each target, seed and number, the same on every run.

Each target aims at one reader, and makes everything around its fault right, digests included.
"""

from __future__ import annotations

import hashlib
import json
import typing as t
from random import Random

from ansible_collections.hypervisor.oci.tests.fuzz import drift, mutate
from ansible_collections.hypervisor.oci.tests.fuzz.mutate import pick
from ansible_collections.hypervisor.oci.tests.fuzz.seeds import CONFIG, LAYOUT, Seed, image_of, many_images, seeds, tiny
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Blob,
    Image,
    Index,
    Layer,
    docker_archive,
    file,
    Raw,
    hardlink,
    index_json,
    layout_files,
    oci_archive,
    raw,
    symlink,
    tar,
)
from ansible_collections.hypervisor.oci.tests.images.compression import CompressionName
from ansible_collections.hypervisor.oci.tests.images.tarfiles import Member

_SEEDS = seeds()
_NAMES = tuple(_SEEDS)
for _seed in _SEEDS.values():
    for _members in _seed.layers:
        mutate.remember(_members)

_COMPRESSIONS: tuple[CompressionName, ...] = (*("none", "none", "gzip", "gzip-members", "zstd", "zstd-frames"),)

# In which order they take turns: what is deeper comes oftener.
TURNS = (
    *("layer", "documents", "layer", "archive", "gzip", "layer", "docker", "zstd"),
    *("layer", "archive", "whole", "documents", "drift"),
)


def make(target: str, seed: str, number: int) -> bytes:
    """The archive of this number. Raises ``KeyError`` for an unknown target."""
    random = Random(f"{target}/{seed}/{number}")
    data = TARGETS[target](random)
    if random.random() < 0.02 and not data.startswith((LAYOUT, drift.DRIFT)):
        data = mutate.blinds(random, data)
    return data


# -- layers


def _layer(random: Random) -> bytes:
    """Entries, headers and pax records of layers, every digest right."""
    seed = _SEEDS[pick(random, _NAMES)]
    touched = random.randrange(len(seed.layers))
    layers = []
    for place, members in enumerate(seed.layers):
        compression = pick(random, _COMPRESSIONS)
        if place == touched or random.random() < 0.2:
            changed = _other_members(random, members)
            layers.append(Layer(*changed, compression=compression))
        else:
            layers.append(_untouched(members, compression))
    options: dict[str, t.Any] = {}
    if random.random() < 0.03:
        options["diff_ids"] = [layer.diff_id for layer in layers[::-1]]
    return oci_archive(Image(layers, seed.config, **options))


_layers: dict[tuple[int, CompressionName], Layer] = {}


def _untouched(members: tuple[Member, ...], compression: CompressionName) -> Layer:
    key = (id(members), compression)
    if key not in _layers:
        _layers[key] = Layer(*members, compression=compression)
    return _layers[key]


def _other_members(random: Random, members: t.Sequence[Member]) -> list[Raw]:
    how = random.randrange(8)
    if how == 0:
        # entries of another seed, so that links meet files and whiteouts
        other = pick(random, _SEEDS[pick(random, _NAMES)].layers)
        members = [*members, *other[: random.randrange(len(other)) + 1]]
    changed = mutate.members(random, members)
    if how < 4:
        return changed
    data = tar(changed, end_blocks=pick(random, (0, 1, 2, 2, 3)))
    change = mutate.headers if how < 7 else mutate.blinds
    return [raw(change(random, data))]


def _seed_tar(random: Random) -> bytes:
    seed = _SEEDS[pick(random, _NAMES)] if random.random() < 0.3 else tiny()
    return tar(seed.layers[0])


def _gzip(random: Random) -> bytes:
    """The gzip stream of a layer; the digest is right, and the diff_id that of the tar it was made of."""
    data = _seed_tar(random)
    stream = mutate.gzip_frames(random, data)
    return _one_layer(data, stream, "application/vnd.oci.image.layer.v1.tar+gzip")


def _zstd(random: Random) -> bytes:
    """The same with zstd."""
    data = _seed_tar(random)
    stream = mutate.zstd_frames(random, data)
    return _one_layer(data, stream, "application/vnd.oci.image.layer.v1.tar+zstd")


def _one_layer(data: bytes, stream: bytes, media_type: str) -> bytes:
    layer = Layer(raw(data), end_blocks=0, compression="none", edit_blob=lambda _blob: stream, media_type=media_type)
    return oci_archive(Image([layer]))


# -- documents


def _documents(random: Random) -> bytes:
    """Config, manifest, indexes and index.json; digests above a change are right."""
    seed = tiny()
    layers = [Layer(*members) for members in (*seed.layers, (file("b", "x"),))]
    where = random.randrange(6)
    plain = Image(layers, CONFIG, ref="fuzz:1")
    config = plain.config.data
    if where in (0, 5):
        config = mutate.document(random, config)
    changed = Image(layers, ref="fuzz:1", config_document=config)
    if where in (1, 5):
        changed = Image(layers, ref="fuzz:1", config_document=config, manifest=mutate.document(random, changed.data))
    contents: tuple[Blob, ...] = pick(random, ((changed,), (Index(changed, ref="n"),), (many_images(), changed)))
    if where == 2:
        index = Index(changed)
        contents = (Index(changed, document=mutate.document(random, index.data)),)
    listed = index_json(contents)
    if where == 3:
        listed = mutate.document(random, listed)
    layout = b'{"imageLayoutVersion":"1.0.0"}'
    if where == 4:
        layout = mutate.document(random, layout)
    files: dict[str, t.Any] = {"oci-layout": layout}
    if random.random() < 0.8:
        return oci_archive(*contents, index=listed, files=files)
    files.update(layout_files(*contents, index=listed), **files)
    for name in list(files):
        files[name] = files[name].decode("latin-1")
        if random.random() < 0.02:
            files[name] = None
    return LAYOUT + json.dumps(files).encode()


def _docker(random: Random) -> bytes:
    """What docker save writes, its manifest.json and its links."""
    style = t.cast(t.Any, pick(random, ("old", "old", "new")))
    images = [image_of(tiny(), 0), image_of(_SEEDS["links"], 1)]
    images = images[: pick(random, (1, 2))]
    options: dict[str, t.Any] = {"repo_tags": [["fuzz:1", "other:2"]], "style": style}
    if style == "old":
        options["compressed"] = random.random() < 0.5
        if random.random() < 0.3:
            options["links"] = pick(random, ("symlink", "hardlink"))
    how = random.randrange(4)
    if how == 0:
        options["edit_tar"] = lambda data: mutate.headers(random, data)
    elif how == 1:
        config = images[0].config
        changed = mutate.document(random, config.data)
        images[0] = Image(images[0].layers, config_document=changed)
    else:
        entries = [
            {
                "Config": image.config_digest.partition(":")[2] + ".json",
                "RepoTags": ["fuzz:1"],
                "Layers": _names_of_layers(images[:1]) if style == "old" else [],
            }
            for image in images
        ]
        text = json.dumps(entries).encode()
        options["manifest"] = mutate.document(random, text)
    return docker_archive(*images, **options)


def _names_of_layers(images: list[Image]) -> list[str]:
    names = []
    parent = ""
    for layer in images[0].layers:
        parent = hashlib.sha256(f"{parent} {layer.diff_id}".encode()).hexdigest()
        names.append(f"{parent}/layer.tar")
    return names


# -- archives


def _archive(random: Random) -> bytes:
    """The outer tar: its headers, members twice, links among its members, what comes before and behind."""
    image = image_of(_small(random))
    if random.random() < 0.3:
        image = image.listed(ref="again")
    how = random.randrange(8)
    options: dict[str, t.Any] = {
        "prefix": pick(random, ("", "", "./", "/", "../", ".//", "a/../")),
        "order": pick(random, ("sorted", "reversed")),
        "dialect": pick(random, ("pax", "gnu", "ustar")),
        "directories": random.random() < 0.7,
        "end_blocks": pick(random, (0, 1, 2, 2, 20)),
    }
    if how < 3:
        options["edit_tar"] = lambda data: mutate.headers(random, data)
    elif how == 3:
        options["edit"] = lambda data: mutate.blinds(random, data)
    elif how == 4:
        options["files"] = {
            image.config.path: symlink("", pick(random, _LINKS)),
            "c": image.config.data,
            "d": hardlink("", pick(random, ("c", "d", "nothing", "/c", "../c"))),
        }
    elif how == 5:
        options["members"] = mutate.members(random, [file("index.json", b"{}"), file("oci-layout", b"{}")])
    else:
        members: list[Member] = [
            file(name, content) for name, content in _files_of(image).items() if random.random() < 0.95
        ]
        return tar(mutate.members(random, members), end_blocks=2)
    try:
        return oci_archive(image, **options)
    except ValueError:
        # a name that the dialect cannot say
        options["dialect"] = "pax"
        return oci_archive(image, **options)


_LINKS = (
    *("../../c", "../../d", "../../../c", "/c", "../../c/", "../../blobs", "./x", ""),
    *("../../../../../../../../../../tmp/oci-fuzz-target/victim", "../../index.json"),
)


def _files_of(image: Image) -> dict[str, bytes]:
    files = image.files()
    files["index.json"] = index_json([image])
    files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    return files


def _small(random: Random) -> Seed:
    return tiny() if random.random() < 0.7 else _SEEDS["system"]


def _whole(random: Random) -> bytes:
    """An archive that is compressed as a whole: the stream, or the tar inside."""
    data = oci_archive(image_of(tiny()))
    if random.random() < 0.5:
        data = mutate.headers(random, data)
    if random.random() < 0.5:
        return mutate.gzip_frames(random, data)
    return mutate.zstd_frames(random, data)


TARGETS: dict[str, t.Callable[[Random], bytes]] = {
    "layer": _layer,
    "gzip": _gzip,
    "zstd": _zstd,
    "documents": _documents,
    "docker": _docker,
    "archive": _archive,
    "whole": _whole,
    "drift": drift.damaged,
}
