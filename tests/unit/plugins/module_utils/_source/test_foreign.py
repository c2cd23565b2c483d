# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What people give that is not an image archive, and what they are told (docs/behaviour.md, section 1)."""

from __future__ import annotations

import contextlib
import gzip
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.candidates import find_candidates
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.tests.images.builder import directory, file, symlink, tar

SAVE = "make an image archive, for example with: skopeo copy docker://NAME oci-archive:image.tar"
ISO = bytes(32769) + b"CD001" + bytes(4000)
EXT4 = bytes(1080) + b"\x53\xef" + bytes(4000)


def told(path: Path | str) -> str:
    """What a run says about it, without the path."""
    with pytest.raises(OciError) as caught, contextlib.closing(open_source(str(path))) as source:
        find_candidates(source)
    return caught.value.message.replace(f"'{path}'", "SRC")


@pytest.mark.parametrize(
    ("head", "what", "advice"),
    [
        (b"", "empty", SAVE),
        (b"\n <!DOCTYPE html><html>", "an HTML page, as servers send for errors and logins", "check the address"),
        (b"<HTML lang=en>", "an HTML page, as servers send for errors and logins", "check the address"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "a pointer of Git LFS, not the file",
            "git lfs pull",
        ),
        (b"$ANSIBLE_VAULT;1.1;AES256\n6162", "encrypted by ansible-vault", "ansible-vault decrypt"),
        (b"PK\x03\x04", "a zip archive", "give the image archive that"),
        (b"hsqs", "a squashfs file system", SAVE),
        (ISO, "an ISO image of a CD", SAVE),
        (EXT4, "an ext2, ext3 or ext4 file system", SAVE),
        ("größe".encode("utf-16"), "UTF-16 text", SAVE),
        (b"QFI\xfb", "a qcow2 disk image", SAVE),
        (b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC", "a Singularity or Apptainer image (SIF)", SAVE),
        (b'{"schemaVersion": 2}', "a JSON document", SAVE),
        (b'[\n {"Config": "x"}]', "a JSON document", SAVE),
        (b"!<arch>\ndebian-binary", "a Debian package or another ar archive", SAVE),
        (b"\x04\x22\x4d\x18", "compressed by lz4, which is not supported", "compress it with gzip, zstd, xz or bzip2"),
        ("s3cret: größe\n".encode() * 50, "text", SAVE),
        (b"#!/bin/sh\n", "text", SAVE),
        (bytes(9999), "full of zeros", SAVE),
        (b"\x80\x81\x82\n", "of an unknown kind (it begins with 80 81 82 0a)", SAVE),
        (b"text \x1b[2J", "of an unknown kind (it begins with 74 65 78 74 20 1b 5b 32)", SAVE),
    ],
)
def test_first_bytes(tmp_path: Path, head: bytes, what: str, advice: str) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(head)
    said = told(path)
    assert said.startswith(f"src SRC is not an image archive: it is {what}")
    assert advice in said
    assert "s3cret" not in said
    if len(head) < 5000 and head.strip(b"\0"):
        path.write_bytes(gzip.compress(head))
        assert told(path).startswith(f"src SRC is not an image archive: it is compressed, and inside it is {what}")


ROOT = [directory(name) for name in ("bin", "dev", "etc", "usr", "var")] + [
    file("etc/passwd"),
    file("usr/bin/env"),
    file("bin/sh"),
    file("var/lib/x"),
]
FOREIGN: dict[str, tuple[list[t.Any], str, str]] = {
    "docker export": ([file(".dockerenv"), *ROOT], "the output of docker export, without", "use docker save instead"),
    "a root": (ROOT, "a root file system without the settings", "podman import FILE NAME"),
    "a usr-merged root": (
        [symlink("bin", "usr/bin"), *ROOT[1:6]],
        "a root file system without",
        "podman import FILE NAME",
    ),
    "a chart": (
        [file("chart/Chart.yaml"), file("chart/values.yaml")],
        "a Helm chart, which has no root",
        "the chart names",
    ),
    "old docker save": (
        [file("repositories"), file("0a/layer.tar"), file("0a/json")],
        "the output of docker save before version 1.10",
        "docker load",
    ),
    "LXD": ([file("metadata.yaml"), file("rootfs/etc/passwd")], "an image of LXD or Incus", SAVE),
    "a nested layout": (
        [file("image/index.json", b"{}"), file("image/oci-layout", b"{}")],
        "an image layout inside of the folder 'image'",
        "tar -C FOLDER -cf image.tar .",
    ),
    "a part of a layout": ([file("oci-layout", b"{}"), file("blobs/sha256/0a")], "an incomplete image layout", SAVE),
    "something": ([file("readme.txt")], "a tar archive of other files", SAVE),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("prefix", ["", "./"])
def test_tars(tmp_path: Path, name: str, prefix: str) -> None:
    members, what, advice = FOREIGN[name]
    path = tmp_path / "image.tar"
    named = [replace(member, name=prefix.encode() + member.name) for member in members]
    for data in (tar(named), gzip.compress(tar(named))):
        path.write_bytes(data)
        said = told(path)
        assert said.startswith(f"src SRC is not an image archive: it is {what}")
        assert ", with neither index.json nor manifest.json; " in said
        assert advice in said


def test_directories(tmp_path: Path) -> None:
    for folder, names, what in (
        ("root", ["bin", "etc", "usr", "var"], "a root file system without the settings of an image"),
        # such as /etc
        ("etc", ["hosts", "passwd", "ssh", "systemd"], "a directory of other files"),
        ("chart", ["Chart.yaml", "values.yaml"], "a Helm chart"),
        ("above", ["image/index.json"], "an image layout inside of the folder 'image'"),
        ("empty", [], "a directory of other files"),
    ):
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch() if "." in name else path.mkdir()
        (tmp_path / folder).mkdir(exist_ok=True)
        said = told(tmp_path / folder)
        assert said.startswith(f"src SRC is not an image layout: it is {what}")


def test_a_folder_of_skopeo(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("Directory Transport Version: 1.1\n")
    (tmp_path / "manifest.json").write_text('{"schemaVersion": 2, "config": {}, "layers": []}')
    assert told(tmp_path) == (
        "manifest.json is the manifest of one image, not the list of images that docker save writes; this is a folder that"
        " skopeo writes as dir:, convert it with: skopeo copy dir:FOLDER oci-archive:image.tar"
    )


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (b'{"schemaVersion": 1, "fsLayers": []}', "is a manifest of Docker's obsolete schema 1, not the list"),
        (b'[{"ImageIndex": {"Digest": "x"}}]', "this is imgpkg's list, save the image with: skopeo copy"),
    ],
)
def test_other_lists(tmp_path: Path, manifest: bytes, said: str) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(tar([file("manifest.json", manifest)]))
    with contextlib.closing(open_source(str(path))) as source:
        try:
            message = find_candidates(source)[0].problem
        except OciError as error:
            message = error.message
    assert said in message


@pytest.mark.parametrize(
    ("src", "said"),
    [
        (
            "alpine:3.20",
            "set src to docker://alpine:3.20, or save the image with: skopeo copy docker://alpine:3.20 oci-archive:image.tar; then set src to image.tar",
        ),
        ("docker://alpine", "skopeo copy docker://alpine oci-archive:image.tar"),
        ("docker://quay.io/me/app:1", "skopeo copy docker://quay.io/me/app:1 oci-archive:image.tar"),
        ("localhost:5000/me/app:1", "skopeo copy docker://localhost:5000/me/app:1 oci-archive:image.tar"),
        ("quay.io/me/app@sha256:" + "0" * 64, "is the name of an image, not an archive or directory"),
        ("oci-archive:image.tar", "is skopeo's notation of an archive; set src to the path alone, and ref to the name"),
        ("oci:layout:tag", "is skopeo's notation of an image layout"),
    ],
)
def test_names_of_images(src: str, said: str) -> None:
    assert said in told(src)


@pytest.mark.parametrize(
    "src", ["image.tar", "/srv/images/app.tar", "files/app", "a b:c", "x:$(id)", "docker://$(id)", "a:b;c"]
)
def test_paths_are_paths(src: str) -> None:
    assert told(src) == "src SRC cannot be opened: no such file or directory; check the path"
