# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lets umoci and buildah unpack an image, and compares a tree with theirs.

    oracle.py list FOLDER                       the images of a folder, one per platform, as JSON
    oracle.py compare IMAGE DIGEST WORK TREE    TREE against what the peers make of the manifest DIGEST

It reads archives with the standard library alone, so that it shares no code with what it judges. It
extracts them without a second thought: only for images that are known to be well-behaved.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import typing as t
from dataclasses import replace

# the comparer lies in another folder of the tests
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), *[os.pardir] * 4, "tools"))

from compare_trees import Ignore, Node, compare, read_tree  # noqa: E402

_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_OUR_TOKEN = "trusted.hypervisor_oci"
_ZSTD = b"\x28\xb5\x2f\xfd"
# Known differences. Ours: the mark by which the module knows its tree. Buildah's: the directory that it mounts
# is that of its own container, not the image's, and it cannot write times before 1970.
_OURS = Ignore(xattrs=frozenset([_OUR_TOKEN]))
_OURS_AND_BUILDAHS = replace(_OURS, paths=frozenset([b"."]), mtime_before_1970=True)
# A peer that hangs must not hang the tests.
_PATIENCE = 120
# Relative to the working directory: buildah takes no path with capitals in it.
_LAYOUT = "layout"
_REF = "oracle"
_IMAGE = f"oci:{_LAYOUT}:{_REF}"


def _run(work: str, *command: str) -> str:
    """The standard output of a command, run in ``work``; exits with its messages where it fails."""
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd=work, timeout=_PATIENCE, text=True
    )
    if result.returncode:
        sys.exit(f"{' '.join(command)}: {result.stderr}{result.stdout}")
    return result.stdout


# -- what there is


def list_images(folder: str) -> list[dict[str, t.Any]]:
    """One case per image and platform: its path, digest, what the digest is of, and platform."""
    cases = []
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        for case in _images_of(path):
            cases.append({"path": path, "name": f"{name} ({case['platform']})", **case})
    return cases


def _images_of(path: str) -> list[dict[str, t.Any]]:
    with _documents(path) as read:
        index = read("index.json")
        if index is not None:
            return list(_of_index(read, json.loads(index)))
        manifest = read("manifest.json")
        if manifest is None:
            sys.exit(f"{path} is neither an OCI image nor a docker archive")
        configs = [read(image["Config"]) for image in json.loads(manifest)]
        return [
            {
                "kind": "config",
                "digest": "sha256:" + hashlib.sha256(config).hexdigest(),
                "platform": _platform(json.loads(config)),
            }
            for config in configs
            if config is not None
        ]


@contextlib.contextmanager
def _documents(path: str) -> t.Iterator[t.Callable[[str], bytes | None]]:
    """A function that reads a member of an archive, or a file of a layout directory, by its name."""
    if os.path.isdir(path):

        def read_file(name: str) -> bytes | None:
            try:
                with open(os.path.join(path, name), "rb") as file:
                    return file.read()
            except FileNotFoundError:
                return None

        yield read_file
        return
    with tarfile.open(path) as archive:

        def read_member(name: str) -> bytes | None:
            try:
                file = archive.extractfile(name)
            except KeyError:
                return None
            return file.read() if file is not None else None

        yield read_member


def _of_index(read: t.Callable[[str], bytes | None], index: dict[str, t.Any]) -> t.Iterator[dict[str, t.Any]]:
    for descriptor in index["manifests"]:
        blob = read("blobs/" + descriptor["digest"].replace(":", "/"))
        if blob is None:
            continue
        document = json.loads(blob)
        if descriptor["mediaType"] in _INDEXES:
            yield from _of_index(read, document)
            continue
        config = read("blobs/" + document["config"]["digest"].replace(":", "/"))
        if config is None:
            continue
        platform = _platform(descriptor.get("platform") or json.loads(config))
        if not platform.startswith("unknown/"):
            yield {"kind": "manifest", "digest": descriptor["digest"], "platform": platform}


def _platform(document: dict[str, t.Any]) -> str:
    parts = [document["os"], document["architecture"], document.get("variant")]
    return "/".join(part for part in parts if part)


# -- what the peers make of it


def _make_layout(image: str, digest: str, work: str) -> None:
    """Write a layout directory with the one image into ``work``, under the reference that the peers are told."""
    with _documents(image) as read:
        if read("index.json") is not None:
            _copy_manifest(read, digest, os.path.join(work, _LAYOUT))
            return
    _uncompress(image, os.path.join(work, "docker.tar"))
    _run(work, "skopeo", "copy", "docker-archive:docker.tar", _IMAGE)


def _copy_manifest(read: t.Callable[[str], bytes | None], digest: str, layout: str) -> None:
    blobs = os.path.join(layout, "blobs", "sha256")
    os.makedirs(blobs)

    def copy(digest: str) -> bytes:
        name = "blobs/" + digest.replace(":", "/")
        data = read(name)
        if data is None:
            sys.exit(f"{name} is missing")
        with open(os.path.join(layout, name), "wb") as file:
            file.write(data)
        return data

    data = copy(digest)
    manifest = json.loads(data)
    for descriptor in [manifest["config"], *manifest["layers"]]:
        copy(descriptor["digest"])
    descriptor = {
        "mediaType": manifest.get("mediaType", _MANIFEST),
        "digest": digest,
        "size": len(data),
        "annotations": {"org.opencontainers.image.ref.name": _REF},
    }
    index = {"schemaVersion": 2, "manifests": [descriptor]}
    for name, document in (("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
        with open(os.path.join(layout, name), "w", encoding="utf-8") as file:
            json.dump(document, file)


def _uncompress(source: str, target: str) -> None:
    with open(source, "rb") as file, open(target, "wb") as copy:
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if is_gzip:
            with gzip.GzipFile(fileobj=file) as data:
                shutil.copyfileobj(data, copy)
        else:
            shutil.copyfileobj(file, copy)


def _has_zstd(work: str) -> bool:
    folder = os.path.join(work, _LAYOUT, "blobs", "sha256")
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            if file.read(4) == _ZSTD:
                return True
    return False


@contextlib.contextmanager
def _umoci(work: str) -> t.Iterator[str]:
    # two folders deep: it was seen to delete what lies above its root
    root = os.path.join(work, "umoci", "deep", "rootfs")
    os.makedirs(os.path.dirname(root))
    _run(work, "umoci", "raw", "unpack", "--image", f"{_LAYOUT}:{_REF}", root)
    yield root


@contextlib.contextmanager
def _buildah(work: str) -> t.Iterator[str]:
    file_system = _run(work, "stat", "--file-system", "--format=%T", ".").strip()
    driver = "vfs" if file_system in ("overlayfs", "tmpfs") else "overlay"
    buildah = ["buildah", "--root", os.path.join(work, "storage")]
    buildah += ["--runroot", os.path.join(work, "run"), "--storage-driver", driver]
    container = _run(work, *buildah, "from", _IMAGE).split()[-1]
    try:
        yield _run(work, *buildah, "mount", container).strip()
    finally:
        _run(work, *buildah, "umount", container)
        _run(work, *buildah, "rm", container)


class Judgement(t.NamedTuple):
    """What a peer says of one tree: a line for each difference."""

    peer: str
    tree: str
    lines: list[str]


def differences_from_peers(
    image: str, digest: str, work: str, trees: t.Mapping[str, dict[bytes, Node]]
) -> list[Judgement]:
    """What each peer says of each tree, by its name. Says who is missing."""
    os.makedirs(work)
    _make_layout(image, digest, work)
    peers: list[tuple[str, t.Any, Ignore]] = []
    if not shutil.which("umoci"):
        print("umoci: skipped, it is not installed")
    elif _has_zstd(work):
        print("umoci: skipped, it knows no zstd")
    else:
        peers.append(("umoci", _umoci, _OURS))
    if shutil.which("buildah"):
        peers.append(("buildah", _buildah, _OURS_AND_BUILDAHS))
    else:
        print("buildah: skipped, it is not installed")
    if not peers:
        sys.exit("no peer can unpack this image")
    found = []
    for name, unpack, known in peers:
        with unpack(work) as root:
            theirs = read_tree(root)
        found += [Judgement(name, tree, compare(trees[tree], theirs, known)) for tree in trees]
    return found


def compare_with_peers(image: str, digest: str, work: str, tree: str) -> bool:
    """Prints what each peer says; false where one of them sees a difference."""
    ours = read_tree(tree)
    equal = True
    for name, _tree, lines in differences_from_peers(image, digest, work, {tree: ours}):
        print(f"{name}: {len(lines)} differences in {len(ours)} paths")
        for line in lines[:50]:
            print(line)
        equal = equal and not lines
    return equal


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("list")
    listing.add_argument("folder")
    comparing = verbs.add_parser("compare")
    for name in ("image", "digest", "work", "tree"):
        comparing.add_argument(name)
    options = parser.parse_args()
    if options.verb == "list":
        print(json.dumps(list_images(options.folder)))
        return 0
    equal = compare_with_peers(options.image, options.digest, options.work, options.tree)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
