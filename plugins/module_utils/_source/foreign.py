# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Say what a file is that is not an image archive, and how to get one (docs/behaviour.md, section 1).

Imported late: only errors need it.
"""

from __future__ import annotations

import itertools
import os
import re
import typing as t

from .._errors import show

_SAVE = "make an image archive, for example with: skopeo copy docker://NAME oci-archive:image.tar"
_INNER = "give the image archive that it was made of or that it contains"
_IMPORT = (
    "import it with: podman import FILE NAME; then save that with: podman save --format oci-archive -o image.tar NAME"
)
_TEXT_SIZE = 256

# What the first bytes say, and what to do.
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS, not the file itself", "run: git lfs pull"),
    (b"$ANSIBLE_VAULT;", "encrypted by ansible-vault", "decrypt it with: ansible-vault decrypt"),
    (b"PK\x03\x04", "a zip archive", _INNER),
    (b"hsqs", "a squashfs file system", _SAVE),
    (b"sqsh", "a squashfs file system", _SAVE),
    (b"#!/usr/bin/env run-singularity", "a Singularity or Apptainer image (SIF)", _SAVE),
    (b"QFI\xfb", "a qcow2 disk image", _SAVE),
    (b"KDMV", "a VMDK disk image", _SAVE),
    (b"\x7fELF", "a program (ELF)", _SAVE),
    (b"MZ", "a program for Windows", _SAVE),
    (b"\xff\xfe", "UTF-16 text", _SAVE),
    (b"\xfe\xff", "UTF-16 text", _SAVE),
    (b"!<arch>\n", "a Debian package or another ar archive", _SAVE),
    (b"\xed\xab\xee\xdb", "an RPM package", _SAVE),
    (b"0707", "a cpio archive", _SAVE),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _INNER),
    (b"Rar!", "a RAR archive", _INNER),
    (b"\x04\x22\x4d\x18", "compressed by lz4, which is not supported", "compress it with gzip, zstd, xz or bzip2"),
    (b"LZIP", "compressed by lzip, which is not supported", "compress it with gzip, zstd, xz or bzip2"),
    (b"\x89LZO", "compressed by lzop, which is not supported", "compress it with gzip, zstd, xz or bzip2"),
    (b"\x1f\x9d", "compressed by compress, which is not supported", "compress it with gzip, zstd, xz or bzip2"),
    (b"]\0\0", "compressed by lzma, the predecessor of xz", "compress it with gzip, zstd, xz or bzip2"),
    (b"age-encryption.org/", "encrypted by age", "decrypt it"),
    (b"-----BEGIN PGP MESSAGE", "encrypted by PGP", "decrypt it"),
)
_HTML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_JSON = re.compile(rb"\s*(?:\{\s*[\"}]|\[\s*[\[{\"\]])")
_ISO_OFFSET, _EXT_OFFSET = 32769, 1080

# The folders of which a root file system has several.
_ROOT_FOLDERS = frozenset(["bin", "boot", "dev", "etc", "home", "lib", "proc", "root", "sbin", "sys", "usr", "var"])
_FEW_FOLDERS = 4
_MOST_NAMES = 1000
_DIRECTORY = "directory"

# What skopeo and podman write before a path or a name.
_PATH_TRANSPORTS = {
    "oci": "an image layout",
    "oci-archive": "an archive",
    "docker-archive": "an archive",
    "dir": "a folder of one image",
}
_NAME_TRANSPORTS = ("docker", "docker-daemon", "containers-storage", "oci-registry")
_REFERENCE = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*)(?::[0-9]+(?=/))?(?:/[a-z0-9][a-z0-9._-]*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?\Z"
)
_HAS_TAG = re.compile(r":[A-Za-z0-9_][A-Za-z0-9_.-]*\Z|@sha256:[0-9a-f]{64}\Z")


class Foreign(t.NamedTuple):
    """What something is, as a phrase after "is", and what the user can do."""

    what: str
    advice: str


def of_head(head: bytes) -> Foreign:
    """Return what begins with these bytes; some kinds show themselves only in 33 KiB."""
    if not head:
        return Foreign("empty", _SAVE)
    for magic, what, advice in _MAGIC:
        if head.startswith(magic):
            return Foreign(what, advice)
    if _HTML.match(head):
        return Foreign(
            "an HTML page, as servers send for errors and logins", "check the address that it was downloaded from"
        )
    if head[_ISO_OFFSET : _ISO_OFFSET + 5] == b"CD001":
        return Foreign("an ISO image of a CD", _SAVE)
    if head[_EXT_OFFSET : _EXT_OFFSET + 2] == b"\x53\xef":
        return Foreign("an ext2, ext3 or ext4 file system", _SAVE)
    if _JSON.match(head):
        return Foreign("a JSON document", _SAVE)
    return Foreign(_begins_with(head), _SAVE)


def of_names(names: t.Collection[str], kind: str = "tar archive") -> Foreign:
    """Return what a tar or directory with these names is that has neither index.json nor manifest.json.

    ``kind`` is what it is called if nothing more is known.
    """
    tops = {name.partition("/")[0] for name in names}
    nested = next((name for name in names if name.count("/") == 1 and name.endswith("/index.json")), "")
    if nested:
        folder = nested.partition("/")[0]
        return Foreign(
            f"an image layout inside of the folder {show(folder)}",
            "pack the content of that folder: tar -C FOLDER -cf image.tar .",
        )
    if any(name.count("/") == 1 and name.endswith("/Chart.yaml") for name in names) or "Chart.yaml" in names:
        return Foreign(
            "a Helm chart, which has no root file system", "give an archive of an image that the chart names"
        )
    if "repositories" in names:
        return Foreign(
            "the output of docker save before version 1.10",
            "load it with docker load, and save it again with docker save",
        )
    if ".dockerenv" in names:
        return Foreign("the output of docker export, without the settings of an image", "use docker save instead")
    if "metadata.yaml" in names and "rootfs" in tops:
        return Foreign("an image of LXD or Incus", _SAVE)
    if len(_ROOT_FOLDERS & tops) >= _FEW_FOLDERS:
        advice = _IMPORT if kind != _DIRECTORY else f"pack it with: tar -C FOLDER -cf FILE .; then {_IMPORT}"
        return Foreign("a root file system without the settings of an image", advice)
    if "blobs" in tops or "oci-layout" in names:
        return Foreign("an incomplete image layout", _SAVE)
    return Foreign(f"a {kind} of other files", f"set src to an image archive or layout; {_SAVE}")


def of_directory(path: str) -> Foreign:
    """Return what a directory is that has neither index.json nor manifest.json. Raises ``OSError``."""
    with os.scandir(path) as entries:
        folders = {entry.name: entry.is_dir() for entry in itertools.islice(entries, _MOST_NAMES)}
    names = {f"{name}/" if is_folder else name for name, is_folder in folders.items()}
    for name in folders:
        names |= {inner for inner in (f"{name}/index.json", f"{name}/Chart.yaml") if os.path.lexists(f"{path}/{inner}")}
    return of_names(names, _DIRECTORY)


def of_missing(path: str) -> Foreign | None:
    """Return what a path that does not exist may mean instead, None if it looks like a path."""
    transport, colon, rest = path.partition(":")
    if colon and transport in _PATH_TRANSPORTS:
        return Foreign(
            f"skopeo's notation of {_PATH_TRANSPORTS[transport]}", "set src to the path alone, and ref to the name"
        )
    reference = rest.lstrip("/") if colon and transport in _NAME_TRANSPORTS else path
    if _REFERENCE.match(reference) is None or (reference == path and not _HAS_TAG.search(path)):
        return None
    # the grammar of names leaves nothing that a shell would obey
    return Foreign(
        "the name of an image, not an archive or directory",
        f"set src to docker://{reference}, or save the image with: skopeo copy docker://{reference} oci-archive:image.tar;"
        " then set src to image.tar",
    )


def _begins_with(head: bytes) -> str:
    """Return the kind of unknown bytes. Text is not quoted: in a layout, a link may lead to a secret of the host."""
    if not head.strip(b"\0"):
        return "full of zeros"
    text = head[:_TEXT_SIZE].decode("utf-8", "replace")
    if len(head) > _TEXT_SIZE and text.endswith("\ufffd"):
        # the last character may be cut
        text = text[:-1]
    if all((character.isprintable() and character != "\ufffd") or character in "\t\r\n" for character in text):
        return "text"
    return f"of an unknown kind (it begins with {head[:8].hex(' ')})"
