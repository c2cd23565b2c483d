# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The containers that the image builder writes (docs/behaviour.md, section 1; image-layout.md)."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pathlib
import stat
import tarfile
import typing as t

import pytest
from ansible_collections.hypervisor.oci.tests.images.builder import (
    OCI_LAYOUT,
    Image,
    Index,
    Layer,
    char,
    directory,
    docker_archive,
    fifo,
    file,
    flip,
    hardlink,
    oci_archive,
    symlink,
    whiteout,
    write_docker_archive,
    write_layout,
    write_oci_archive,
)


def images() -> list[Image]:
    """Two images that share a layer."""
    shared = Layer(directory("etc"), file("etc/motd", "hello\n"))
    return [
        Image([shared, Layer(whiteout("etc/motd"), compression="none")], ref="one"),
        Image([shared], platform="linux/arm64", ref="two"),
    ]


def contents(data: bytes) -> dict[str, bytes]:
    """The regular files of a tar, by the standard library."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            if info.isreg():
                found[info.name] = t.cast("t.IO[bytes]", archive.extractfile(info)).read()
    return found


def names(data: bytes) -> list[str]:
    """The names of all members, in order."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


def check_layout(files: dict[str, bytes]) -> None:
    """The shape of image-layout.md."""
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(files["index.json"])
    assert index["schemaVersion"] == 2
    blobs = {
        name.replace("blobs/", "").replace("/", ":"): data for name, data in files.items() if name.startswith("blobs/")
    }
    assert set(files) - {"oci-layout", "index.json", "manifest.json"} == {
        "blobs/" + digest.replace(":", "/") for digest in blobs
    }
    for digest, data in blobs.items():
        assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
    pending = list(index["manifests"])
    reached = set()
    while pending:
        descriptor = pending.pop()
        data = blobs[descriptor["digest"]]
        assert descriptor["size"] == len(data)
        reached.add(descriptor["digest"])
        if descriptor["mediaType"].endswith("manifest.v1+json"):
            manifest = json.loads(data)
            pending += [manifest["config"], *manifest["layers"]]
        elif descriptor["mediaType"].endswith("index.v1+json"):
            pending += json.loads(data)["manifests"]
    assert reached == set(blobs)


def test_oci_archive(tmp_path: pathlib.Path) -> None:
    """Section 1: a tar of an image layout, the same bytes each time."""
    path = write_oci_archive(tmp_path / "image.tar", *images())
    data = pathlib.Path(path).read_bytes()
    assert data == oci_archive(*images())
    check_layout(contents(data))
    assert names(data)[:2] == ["blobs", "blobs/sha256"]
    assert len(names(data)) == len(set(names(data)))
    first, second = images()
    assert [
        (entry["digest"], entry["annotations"]["org.opencontainers.image.ref.name"])
        for entry in json.loads(contents(data)["index.json"])["manifests"]
    ] == [(first.manifest_digest, "one"), (second.manifest_digest, "two")]


def test_nested_index(tmp_path: pathlib.Path) -> None:
    """Section 2: an index that index.json lists."""
    index = Index(*images(), ref="both")
    data = oci_archive(index)
    check_layout(contents(data))
    (entry,) = json.loads(contents(data)["index.json"])["manifests"]
    assert entry["digest"] == index.digest


def test_layout_directory(tmp_path: pathlib.Path) -> None:
    """Section 1: the same files on disk as in an archive."""
    root = pathlib.Path(write_layout(tmp_path / "layout", *images()))
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert found == contents(oci_archive(*images()))


def test_layout_directory_with_links_and_pipes(tmp_path: pathlib.Path) -> None:
    """Section 1: symlinks are followed, a FIFO is never waited for: both can be made."""
    image = images()[0]
    root = write_layout(
        tmp_path / "layout",
        image,
        files={
            image.path: symlink("", "../../elsewhere"),
            image.config.path: fifo(""),
            image.layers[0].path: hardlink("", "oci-layout"),
            "elsewhere": image.data,
            "empty": directory(""),
            "index.json": None,
        },
    )
    assert os.readlink(os.path.join(root, image.path)) == "../../elsewhere"
    assert stat.S_ISFIFO(os.stat(os.path.join(root, image.config.path)).st_mode)
    assert os.path.samefile(os.path.join(root, image.layers[0].path), os.path.join(root, "oci-layout"))
    assert os.listdir(os.path.join(root, "empty")) == []
    assert not os.path.exists(os.path.join(root, "index.json"))
    with pytest.raises(ValueError, match="cannot be put into a directory"):
        write_layout(tmp_path / "other", files={"null": char("null", 1, 3)})


def test_prefix_order_and_directories() -> None:
    """Section 1: member names may start with ./; the order is the writer's."""
    plain = names(oci_archive(*images(), directories=False))
    assert plain == sorted(plain) and plain[-2:] == ["index.json", "oci-layout"]
    dotted = oci_archive(*images(), prefix="./", directories=False)
    # others clean the prefix away, so look at the bytes
    assert dotted.startswith(b"./blobs/sha256/")
    assert [name.replace("./", "", 1) for name in names(dotted)] == plain
    assert names(oci_archive(*images(), order="reversed", directories=False)) == plain[::-1]
    order = ["index.json", plain[3]]
    assert names(oci_archive(*images(), order=order, directories=False)) == order + [
        name for name in plain if name not in order
    ]


def test_files_and_members() -> None:
    """Section 1: any document of any bytes, links and devices in the outer tar, the same name twice."""
    image = images()[0]
    data = oci_archive(
        image,
        prefix="./",
        files={
            "index.json": b"[]",
            "oci-layout": None,
            image.path: symlink("ignored", "../../index.json"),
            image.config.path: hardlink("ignored", "index.json"),
            "node": char("ignored", 1, 3),
        },
        members=[file("./index.json", b"{}"), fifo("pipe")],
        end_blocks=0,
        edit=flip(0),
    )
    data = flip(0)(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {info.name.replace("./", "", 1): info for info in archive}
        assert [info.size for info in archive if info.name.endswith("index.json")] == [2, 2]
    assert found[image.path].linkname == "../../index.json"
    assert found[image.config.path].linkname == "./index.json"
    assert found["node"].ischr() and found["pipe"].isfifo()
    assert "oci-layout" not in found


def test_changed_index() -> None:
    """Section 1: index.json with junk, or of any bytes."""
    found = contents(oci_archive(*images(), index={"layers": []}))
    assert json.loads(found["index.json"])["layers"] == []
    assert contents(oci_archive(index=b"\xff"))["index.json"] == b"\xff"


def test_compressed_as_a_whole() -> None:
    """Section 1: any of these tars compressed as a whole."""
    assert gzip.decompress(oci_archive(*images(), compression="gzip")) == oci_archive(*images())


@pytest.mark.parametrize("dialect", ["v7", "gnu", "ustar", "pax"])
def test_dialects_of_the_outer_tar(dialect: t.Any) -> None:
    """Section 1: the outer tar in any dialect."""
    assert contents(oci_archive(*images(), dialect=dialect)) == contents(oci_archive(*images()))


def test_docker_archive_new(tmp_path: pathlib.Path) -> None:
    """Section 1: Docker 25 and later: manifest.json and an image layout in the same tar."""
    first, second = images()
    path = write_docker_archive(tmp_path / "saved.tar", first, second, repo_tags=[["one:1", "one:2"]])
    found = contents(pathlib.Path(path).read_bytes())
    check_layout(found)
    entries = json.loads(found["manifest.json"])
    assert [entry["RepoTags"] for entry in entries] == [["one:1", "one:2"], None]
    assert [entry["Config"] for entry in entries] == [first.config.path, second.config.path]
    assert entries[0]["Layers"] == [layer.path for layer in first.layers]
    assert entries[0]["LayerSources"][first.layers[0].diff_id] == first.layers[0].descriptor()


def test_docker_archive_of_an_index() -> None:
    """Section 2: the images of an index, but those that are not there."""
    first, second = images()
    gone = Image([Layer(file("gone"))], missing=True)
    found = contents(docker_archive(Index(first, gone, Index(second))))
    assert [entry["Config"] for entry in json.loads(found["manifest.json"])] == [first.config.path, second.config.path]


def test_docker_archive_old() -> None:
    """Section 1: the old form: <id>/layer.tar, plain tars, configs by their digest."""
    first, second = images()
    data = docker_archive(first, second, style="old", repo_tags=[["one:1"], []])
    found = contents(data)
    assert "index.json" not in found and "oci-layout" not in found
    entries = json.loads(found["manifest.json"])
    assert [entry["RepoTags"] for entry in entries] == [["one:1"], []]
    for image, entry in zip((first, second), entries):
        assert entry["Config"] == image.config_digest[7:] + ".json"
        assert found[entry["Config"]] == image.config.data
        assert [found[name] for name in entry["Layers"]] == [getattr(layer, "tar", b"") for layer in image.layers]
        assert all(name.endswith("/layer.tar") for name in entry["Layers"])
    compressed = docker_archive(first, style="old", compressed=True)
    names_of_layers = json.loads(contents(compressed)["manifest.json"])[0]["Layers"]
    assert contents(compressed)[names_of_layers[0]] == first.layers[0].data


@pytest.mark.parametrize("links", ["symlink", "hardlink"])
def test_docker_archive_with_links(links: t.Any) -> None:
    """Section 1: layers may be symlinks or hard links inside the tar."""
    image = images()[0]
    data = docker_archive(image, style="old", links=links, prefix="./")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for name, layer in zip(json.loads(contents(data)["./manifest.json"])[0]["Layers"], image.layers):
            info = archive.getmember("./" + name)
            assert info.issym() if links == "symlink" else info.islnk()
            stream = archive.extractfile(info)
            assert stream is not None and stream.read() == getattr(layer, "tar", b"")


def test_missing_and_replaced_in_the_old_form() -> None:
    """Section 2: a layer that is not there, a manifest.json of any bytes."""
    image = Image([Layer(file("a"), missing=True), Layer(file("b"), edit_stored=flip(0))])
    found = contents(docker_archive(image, style="old"))
    gone, broken = json.loads(found["manifest.json"])[0]["Layers"]
    assert gone not in found
    assert found[broken][1:] == getattr(image.layers[1], "tar", b"")[1:]
    assert found[broken][0] != ord("b")
    odd = contents(docker_archive(image, style="old", manifest=b"null"))
    assert odd["manifest.json"] == b"null"


def test_misspelt_options() -> None:
    """A fault that is not made would be a test that cannot fail."""
    wrong: t.Any = {"prefx": "./"}
    for make in (oci_archive, docker_archive):
        with pytest.raises(TypeError, match="prefx"):
            make(**wrong)
    with pytest.raises(KeyError):
        oci_archive(order=["no such name"])


def test_layout_version() -> None:
    """Section 1: what oci-layout holds."""
    assert contents(oci_archive())["oci-layout"] == OCI_LAYOUT
