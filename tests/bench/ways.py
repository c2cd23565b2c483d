# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ways of making containers from images: trees of this collection, with a store or without, and podman's."""

from __future__ import annotations

import json
import os
import shutil
import typing as t

from .contenders import Words, joined, sync
from .images import TAG, Case
from .product import Modules

# Both are in Debian's package.
_DRIVERS = ("overlay", "btrfs")


class Way(t.Protocol):
    """A way of making containers."""

    def command(self, number: int, case: Case) -> Words:
        """Return the words for ``measure.py`` that make a container of an image, or another container of that number."""


class Ours:
    """Trees of the module, below a folder."""

    def __init__(self, modules: Modules, folder: str, shared: bool) -> None:
        self._modules = modules
        self._folder = folder
        self._shared = shared

    def command(self, number: int, case: Case) -> Words:
        """Start the module as Ansible sends it."""
        dest = os.path.join(self._folder, "guests", str(number), "rootfs")
        if self._shared:
            return self._modules.storing(case.layout, dest, os.path.join(self._folder, "store"))
        return self._modules.command("oci_rootfs", "payload", case.layout, dest)


class Podman:
    """Containers of podman, which are created and not started, with a storage of their own."""

    def __init__(self, folder: str, driver: str, running: str) -> None:
        """``running`` is an empty folder for what no restart survives, with a short path of small letters.

        podman refuses long paths, and those that it cannot take as the name of an image.
        """
        self._folder = folder
        self._running = running
        self._podman = [
            "podman",
            "--storage-driver",
            driver,
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
        ]
        self._podman += ["--root", os.path.join(folder, "root"), "--runroot", running, "--tmpdir", running]
        self._pulled: set[str] = set()
        self._made: set[int] = set()

    def command(self, number: int, case: Case) -> Words:
        """Pull an image that is not there, remove the container of that number, and create another."""
        steps: list[Words] = []
        if case.layout not in self._pulled:
            link = os.path.join(self._running, f"image{len(self._pulled)}")
            os.symlink(case.layout, link)
            self._pulled.add(case.layout)
            steps.append([*self._podman, "pull", "--quiet", f"oci:{link}:{TAG}"])
        if number in self._made:
            steps.append([*self._podman, "rm", f"c{number}"])
        self._made.add(number)
        steps.append([*self._podman, "create", "--name", f"c{number}", "--network", "none", image_id(case.layout)])
        return joined(*steps, sync(self._folder))


def podman_drivers() -> tuple[str, ...]:
    """Return podman's storage drivers that are compared; none if it is not installed."""
    return _DRIVERS if shutil.which("podman") else ()


def image_id(layout: str) -> str:
    """Return how podman names the image of a layout, which is trusted: by the digest of its config."""
    document = _load(layout, "index.json")
    while "manifests" in document:
        document = _load(layout, "blobs", *document["manifests"][0]["digest"].split(":"))
    return str(document["config"]["digest"]).partition(":")[2]


def _load(*parts: str) -> t.Any:
    with open(os.path.join(*parts), "rb") as file:
        return json.load(file)
