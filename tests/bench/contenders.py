# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tools that are compared: how each unpacks an image, what it checks, and what it gets wrong."""

from __future__ import annotations

import os
import shutil
import typing as t
from dataclasses import dataclass

from .images import TAG, Case
from .measure import PIPE, THEN

_TAR = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", "-"]
_BSDTAR = ["bsdtar", "--numeric-owner", "-xpf", "-"]
_CAT = {"gzip": ["gzip", "-dc"], "zstd": ["zstd", "-dcq"], "plain": ["cat"]}

Words = t.List[str]


@dataclass(frozen=True)
class Peer:
    """A rival. ``command`` gives the words for ``measure.py``: it unpacks the case below the folder given.

    ``tree`` tells the folder of the unpacked tree from what the command printed. ``needs`` are programs.
    """

    name: str
    needs: tuple[str, ...]
    package: str
    command: t.Callable[[Case, str], Words]
    tree: t.Callable[[str, str], str]
    compressions: tuple[str, ...]
    does: str
    verifies: str
    wrong: str
    needs_archive: bool = False
    # Whether it goes on after errors, so that a run that failed is still a whole one.
    goes_on: bool = False

    def takes(self, case: Case) -> bool:
        """Whether it can be run on this case here."""
        return (
            case.compression in self.compressions
            and (case.archive is not None or not self.needs_archive)
            and all(shutil.which(program) for program in self.needs)
        )


def joined(*steps: Words) -> Words:
    """The steps one after the other."""
    words: Words = []
    for step in steps:
        words += [THEN, *step] if words else step
    return words


def sync(folder: str) -> Words:
    """What makes a rival's tree as durable as ours."""
    return ["sync", "-f", folder]


def _rootfs(folder: str, _printed: str) -> str:
    return os.path.join(folder, "one", "two", "rootfs")


def _umoci(case: Case, folder: str) -> Words:
    # two folders deep: on an entry named ".wh..." it deletes the folder above its root
    target = _rootfs(folder, "")
    return joined(
        ["mkdir", "-p", os.path.dirname(target)],
        ["umoci", "raw", "unpack", "--image", f"{case.layout}:{TAG}", target],
        sync(folder),
    )


def _skopeo_umoci(case: Case, folder: str) -> Words:
    target = _rootfs(folder, "")
    layout = os.path.join(folder, "layout")
    copy = ["skopeo", "copy", "-q", "--insecure-policy"]
    return joined(
        ["mkdir", "-p", os.path.dirname(target)],
        [*copy, f"oci-archive:{case.archive}:{TAG}", f"oci:{layout}:{TAG}"],
        ["umoci", "raw", "unpack", "--image", f"{layout}:{TAG}", target],
        sync(folder),
    )


def _buildah(case: Case, folder: str) -> Words:
    buildah = ["buildah", "--root", os.path.join(folder, "storage")]
    buildah += ["--runroot", os.path.join(folder, "run"), "--storage-driver", "overlay"]
    image = f"oci:{case.layout}:{TAG}"
    return joined([*buildah, "from", "-q", "--name", "bench", image], [*buildah, "mount", "bench"], sync(folder))


def _last_line(_folder: str, printed: str) -> str:
    return printed.strip().splitlines()[-1]


def _layer_by_layer(program: Words) -> t.Callable[[Case, str], Words]:
    def command(case: Case, folder: str) -> Words:
        target = _rootfs(folder, "")
        steps = [[*_CAT[case.compression], layer, PIPE, *program, "-C", target] for layer in case.layers]
        return joined(["mkdir", "-p", target], *steps, sync(folder))

    return command


PEERS = (
    Peer(
        name="umoci",
        needs=("umoci",),
        package="umoci",
        command=_umoci,
        tree=_rootfs,
        compressions=("gzip", "plain"),
        does="`umoci raw unpack` of the layout",
        verifies="manifest, config, each layer's digest and diff_id",
        wrong="does not read archives or, in this version, zstd; does not choose a platform; fails at a pax global header;"
        " at an entry `.wh...` it deletes the folder above its root",
    ),
    Peer(
        name="skopeo + umoci",
        needs=("skopeo", "umoci"),
        package="skopeo",
        command=_skopeo_umoci,
        tree=_rootfs,
        compressions=("gzip",),
        does="`skopeo copy` of the archive to a layout, then `umoci raw unpack`: the way of `lxc-create -t oci`",
        verifies="as umoci, except for the archive's manifest",
        wrong="as umoci; skopeo unpacks the whole archive first, and follows a symbolic link in it to the host",
        needs_archive=True,
    ),
    Peer(
        name="buildah",
        needs=("buildah",),
        package="buildah",
        command=_buildah,
        tree=_last_line,
        compressions=("gzip", "zstd", "plain"),
        does="`buildah from` and `buildah mount` with the overlay driver: layers are stored separately and also catalogued,"
        " and the result is a mount, not a directory",
        verifies="config and each layer's digest; not the manifest's digest, nor a layer's diff_id and size",
        wrong="a whiteout also removes entries of its own layer; times before 1970 become 1970;"
        " the root file system cannot be moved out of its storage",
    ),
    Peer(
        name="GNU tar",
        needs=("tar", "gzip", "zstd"),
        package="tar",
        command=_layer_by_layer(_TAR),
        tree=_rootfs,
        goes_on=True,
        compressions=("gzip", "zstd", "plain"),
        does="a pipe of `gzip -dc`, `zstd -dc` or `cat` and `tar --xattrs --xattrs-include='*' --numeric-owner -xp`,"
        " layer by layer",
        verifies="nothing but the CRC of gzip or the checksum of zstd",
        wrong="ignores whiteouts: deleted files stay, and `.wh.` files are added; does not replace a directory by"
        " another type; directories get the time of the last change; does not choose an image; is not atomic",
    ),
    Peer(
        name="bsdtar",
        needs=("bsdtar", "gzip", "zstd"),
        package="libarchive-tools",
        command=_layer_by_layer(_BSDTAR),
        tree=_rootfs,
        goes_on=True,
        compressions=("gzip", "zstd", "plain"),
        does="the same pipe with `bsdtar --numeric-owner -xp`",
        verifies="nothing but the CRC of gzip or the checksum of zstd",
        wrong="as GNU tar",
    ),
)
