# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images whose trees can be told apart and checked for wholeness, and whose layers cannot be compressed."""

from __future__ import annotations

import hashlib
import os
import typing as t
from dataclasses import dataclass

from ..images.builder import Image, Index, Layer, attestation, directory, file, write_oci_archive
from ..tools.compare_trees import read_tree

_TIME = 1700000000
_FILES = 4


@dataclass(frozen=True)
class Sample:
    """One image: ``blobs`` are the compressed sizes of its layers by digest, ``files`` what its tree holds.

    ``version`` is the content of the file etc/version.
    """

    image: Image
    version: str
    blobs: t.Mapping[str, int]
    files: t.Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes of all its layers' blobs."""
        return sum(self.blobs.values())


def noise(name: str, size: int) -> bytes:
    """Always the same bytes for a name, that no compression makes smaller."""
    return hashlib.shake_128(name.encode()).digest(size)


def sample(
    name: str, size: int, layers: int = 1, changed: t.Mapping[int, str] | None = None, platform: str = "linux/amd64"
) -> Sample:
    """An image of so many layers of ``size`` bytes each; those in ``changed`` have the content of another name."""
    version = f"{name} {platform}\n"
    names = [(changed or {}).get(number, name) for number in range(layers)]
    files: dict[str, bytes] = {}
    made = []
    for number, source in enumerate(names):
        folder = f"data/{number:02}"
        own = {
            f"{folder}/{part}": noise(f"{source}/{platform}/{number}/{part}", size // _FILES) for part in range(_FILES)
        }
        if number == layers - 1:
            own["etc/version"] = version.encode()
        files.update(own)
        entries = [file(path, data, mtime=_TIME) for path, data in own.items()]
        made.append(Layer(directory(folder, mtime=_TIME), *entries, compression="gzip"))
    return Sample(
        Image(made, {"Cmd": ["/bin/true"]}, platform=platform, ref=f"fleet:{name}"),
        version,
        {layer.digest: layer.size for layer in made},
        {path: _digest(data) for path, data in files.items()},
    )


def write(folder: str, name: str, *samples: Sample) -> str:
    """An archive of one image, or of an index of several with an attestation; returns its path."""
    path = os.path.join(folder, name)
    if len(samples) == 1:
        write_oci_archive(path, samples[0].image)
    else:
        images = [one.image for one in samples]
        index = Index(*images, attestation(images[0]), ref=f"fleet:{name}")
        write_oci_archive(path, index)
    return path


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tree(root: str) -> dict[str, str]:
    """The regular files below a directory, and the digest of what each holds; of others but directories their type."""
    return {
        os.fsdecode(path): node.sha256 if node.kind == "file" else "not a regular file"
        for path, node in read_tree(root).items()
        if node.kind != "directory"
    }
