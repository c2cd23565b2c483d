# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images as files: OCI archives, layout directories and ``docker save`` archives.

Each is a set of named contents, to which a test can add, and where it can change or take out any by ``files``.
"""

from __future__ import annotations

import hashlib
import json
import os
import typing as t
from dataclasses import replace

from .compression import Compression, compress
from .documents import Blob, Change, Edit, Image, Index, Layer, index_json
from .tarfiles import Dialect, Entry, Member, directory, file, hardlink, symlink, check_options, tar

if t.TYPE_CHECKING:
    from typing_extensions import Unpack

Path = t.Union[str, bytes, "os.PathLike[str]"]
# What stands under a name: bytes, a link, node or other entry, or None for nothing at all.
Content = t.Union[bytes, Entry, None]
Files = t.Mapping[str, Content]

OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class ArchiveOptions(t.TypedDict, total=False):
    """How an archive is written.

    ``files``: content by name over what belongs there: bytes, an entry (a symlink, a device, ...) that gets
    this name, ``None`` takes it out.
    ``members``: entries behind all others: the same names again, or whatever else.
    ``prefix``: before each name, such as ``./``. ``order``: ``sorted`` (hard links behind), ``reversed``, or
    names that come first.
    ``directories``: with entries for the directories. ``dialect``, ``end_blocks``: of the tar.
    ``compression``: of the whole. ``edit_tar``, ``edit``: of the bytes before and after it.
    """

    files: Files
    members: t.Sequence[Member]
    prefix: str
    order: t.Literal["sorted", "reversed"] | t.Sequence[str]
    directories: bool
    dialect: Dialect
    end_blocks: int
    compression: Compression
    edit_tar: Edit
    edit: Edit


class OciOptions(ArchiveOptions, total=False):
    """How an OCI archive is written. ``index``: fields over those of index.json, or its bytes."""

    index: Change


class DockerOptions(ArchiveOptions, total=False):
    """How a ``docker save`` archive is written.

    ``style``: ``new`` (the default) as of Docker 25, with an image layout in the same tar, or ``old``.
    ``repo_tags``: the tags of each image in turn; null for an image without tags.
    ``manifest``: the bytes of manifest.json. ``index``: as in an OCI archive, in the new style.
    ``links``, in the old style: layers are links to ``DIFF_ID.tar``, as podman makes them.
    ``compressed``, in the old style: layers are stored as compressed as they say; else as plain tars.
    """

    style: t.Literal["old", "new"]
    repo_tags: t.Sequence[t.Sequence[str] | None]
    manifest: bytes
    index: Change
    links: t.Literal["symlink", "hardlink"]
    compressed: bool


# -- OCI


def oci_archive(*contents: Blob, **options: Unpack[OciOptions]) -> bytes:
    """An OCI archive whose index.json lists these."""
    check_options(options, OciOptions)
    return _archive(layout_files(*contents, index=options.get("index")), options)


def write_oci_archive(path: Path, *contents: Blob, **options: Unpack[OciOptions]) -> str:
    """Write an OCI archive to ``path``, which is returned as text."""
    return _write(path, oci_archive(*contents, **options))


def write_layout(path: Path, *contents: Blob, index: Change | None = None, files: Files | None = None) -> str:
    """Write an image layout directory, which must not be there yet.

    ``files`` as in an archive; of entries, symlinks, hard links, directories and FIFOs can be made.
    """
    root = os.fsdecode(path)
    os.makedirs(root)
    content_by_name = {**layout_files(*contents, index=index), **(files or {})}
    for name in _ordered(content_by_name, "sorted"):
        content = content_by_name[name]
        if content is not None:
            _write_file(root, os.path.join(root, name), content)
    return root


def layout_files(*contents: Blob, index: Change | None = None) -> dict[str, Content]:
    """What an image layout holds, by name."""
    files: dict[str, Content] = {}
    for content in contents:
        files.update(content.files())
    files["index.json"] = index_json(contents, change=index)
    files["oci-layout"] = OCI_LAYOUT
    return files


# -- docker save


def docker_archive(*contents: Blob, **options: Unpack[DockerOptions]) -> bytes:
    """What ``docker save`` writes of these images; an index counts as the images that it lists."""
    check_options(options, DockerOptions)
    images = list(_images(contents))
    repo_tags = options.get("repo_tags", ())
    tags = [*repo_tags, *[None] * (len(images) - len(repo_tags))]
    files: dict[str, Content] = {}
    if options.get("style", "new") == "new":
        files.update(layout_files(*contents, index=options.get("index")))
        entries = [_new_entry(image) for image in images]
    else:
        entries = [_old_entry(image, options, files) for image in images]
    for entry, names in zip(entries, tags):
        entry["RepoTags"] = None if names is None else list(names)
    files["manifest.json"] = options.get("manifest", _json(entries))
    return _archive(files, options)


def write_docker_archive(path: Path, *contents: Blob, **options: Unpack[DockerOptions]) -> str:
    """Write what ``docker_archive`` makes to ``path``, which is returned as text."""
    return _write(path, docker_archive(*contents, **options))


def _images(contents: t.Iterable[Blob]) -> t.Iterator[Image]:
    for content in contents:
        if isinstance(content, Index):
            yield from _images(content.contents)
        elif isinstance(content, Image) and not content.missing:
            yield content


def _new_entry(image: Image) -> dict[str, t.Any]:
    return {
        "Config": image.config.path,
        "RepoTags": None,
        "Layers": [layer.path for layer in image.layers],
        "LayerSources": {layer.diff_id: layer.descriptor() for layer in image.layers},
    }


def _old_entry(image: Image, options: DockerOptions, files: dict[str, Content]) -> dict[str, t.Any]:
    """The entry of manifest.json; what it speaks of is put into ``files``."""
    config_name = _hex(image.config.digest) + ".json"
    if not image.config.missing:
        files[config_name] = image.config.stored
    names = []
    parent = ""
    for layer in image.layers:
        parent = hashlib.sha256(f"{parent} {layer.diff_id}".encode()).hexdigest()
        name = f"{parent}/layer.tar"
        names.append(name)
        if layer.missing:
            continue
        files[f"{parent}/VERSION"] = b"1.0"
        files[f"{parent}/json"] = _json({"id": parent})
        content = layer.stored
        if isinstance(layer, Layer) and not options.get("compressed"):
            content = layer.stored_tar
        target = _hex(layer.diff_id) + ".tar"
        if "links" not in options:
            files[name] = content
            continue
        files[target] = content
        if options["links"] == "symlink":
            files[name] = symlink(name, "../" + target)
        else:
            files[name] = hardlink(name, target)
    return {"Config": config_name, "RepoTags": None, "Layers": names}


# -- the files themselves


def _archive(files: dict[str, Content], options: ArchiveOptions) -> bytes:
    files = {**files, **options.get("files", {})}
    prefix = options.get("prefix", "")
    members: list[Member] = []
    seen: set[str] = set()
    for name in _ordered(files, options.get("order", "sorted")):
        content = files[name]
        if content is None:
            continue
        if options.get("directories", True):
            for folder in _new_parents(name, seen):
                members.append(directory(prefix + folder))
        members.append(_member(prefix, name, content))
    data = tar(
        [*members, *options.get("members", ())],
        dialect=options.get("dialect", "pax"),
        end_blocks=options.get("end_blocks", 2),
    )
    if "edit_tar" in options:
        data = options["edit_tar"](data)
    data = compress(data, options.get("compression", "none"))
    return options["edit"](data) if "edit" in options else data


def _member(prefix: str, name: str, content: bytes | Entry) -> Entry:
    if isinstance(content, bytes):
        return file(prefix + name, content)
    linkname = content.linkname
    if content.flag == b"1":
        linkname = prefix.encode() + linkname
    return replace(content, name=(prefix + name).encode(), linkname=linkname)


def _ordered(files: dict[str, Content], order: str | t.Sequence[str]) -> list[str]:
    names = sorted(files, key=lambda name: (_is_hardlink(files[name]), name))
    if order == "sorted":
        return names
    if order == "reversed":
        return names[::-1]
    return [*order, *[name for name in names if name not in order]]


def _is_hardlink(content: Content) -> bool:
    """Whether it stands behind what it links to, as tar programs write it."""
    return isinstance(content, Entry) and content.flag == b"1"


def _new_parents(name: str, seen: set[str]) -> t.Iterator[str]:
    parts = name.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        folder = "/".join(parts[:depth])
        if folder not in seen:
            seen.add(folder)
            yield folder


def _write_file(root: str, path: str, content: bytes | Entry) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if isinstance(content, bytes):
        _write(path, content)
        return
    target = os.fsdecode(content.linkname)
    if content.flag == b"0":
        _write(path, content.data)
    elif content.flag == b"1":
        os.link(os.path.join(root, target), path)
    elif content.flag == b"2":
        os.symlink(target, path)
    elif content.flag == b"5":
        os.mkdir(path)
    elif content.flag == b"6":
        os.mkfifo(path)
    else:
        raise ValueError(f"{content.name!r} cannot be put into a directory")


def _write(path: Path, data: bytes) -> str:
    with open(path, "wb") as stream:
        stream.write(data)
    return os.fsdecode(path)


def _json(document: t.Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _hex(digest: str) -> str:
    return digest.partition(":")[2]
