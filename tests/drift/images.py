# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images of software as its users build them: Debian's packages, put into layers by buildah."""

from __future__ import annotations

import os
import subprocess
import typing as t

from ansible_collections.hypervisor.oci.tests.tools.removal import remove_content

from .software import Software

_RELEASE = "bookworm"
_BASE = "debian"
# a package that is installed must not start its service
_POLICY = "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d"
_INSTALL = (
    "set -e\n"
    "export DEBIAN_FRONTEND=noninteractive\n"
    "apt-get update -q\n"
    "apt-get install -q -y --no-install-recommends {packages}\n"
    "apt-get clean\n"
)
_PATIENCE = 1800


class Builder:
    """Makes archives in the folder ``archives``, unless they are there; its own files lie in ``folder``."""

    def __init__(self, folder: str, archives: str) -> None:
        self._folder = folder
        self._archives = archives
        self._base = ""

    def archive(self, software: Software) -> str:
        """Return the path of the archive of an image. Raises ``RuntimeError``."""
        path = os.path.join(self._archives, f"{software.name.replace(' ', '-')}.oci.tar")
        if not os.path.exists(path):
            self._make_base()
            self._make(software, path)
        return path

    def _make_base(self) -> None:
        if self._base:
            return
        self._buildah("from", "--name", _BASE, "scratch")
        tree = self._buildah("mount", _BASE).strip()
        _run(["debootstrap", "--variant=minbase", _RELEASE, tree], self._folder)
        self._buildah("umount", _BASE)
        self._install(_BASE, f"{_POLICY}\napt-get clean")
        self._remove_lists(_BASE)
        self._base = self._buildah("commit", "--quiet", "--rm", _BASE).strip()

    def _make(self, software: Software, path: str) -> None:
        name = os.path.basename(path).partition(".")[0]
        self._buildah("from", "--pull-never", "--name", name, self._base)
        self._install(name, _INSTALL.format(packages=" ".join(software.packages)))
        self._remove_lists(name)
        volumes = [word for volume in software.volumes for word in ("--volume", volume)]
        self._buildah("config", *volumes, "--cmd", "", name)
        self._buildah("commit", "--quiet", "--rm", name, f"oci-archive:{path}.part:{name}")
        os.rename(f"{path}.part", path)

    def _remove_lists(self, name: str) -> None:
        """Remove what apt has fetched, as images do to be small."""
        remove_content(os.path.join(self._buildah("mount", name).strip(), "var/lib/apt/lists"))
        self._buildah("umount", name)

    def _install(self, name: str, script: str) -> None:
        self._buildah("run", "--isolation", "chroot", name, "--", "sh", "-c", script)

    def _buildah(self, *words: str) -> str:
        own = ["--root", f"{self._folder}/storage", "--runroot", f"{self._folder}/run", "--storage-driver", "vfs"]
        return _run(["buildah", *own, *words], self._folder)


def _run(command: t.Sequence[str], folder: str) -> str:
    """Return what a command prints. Raises ``RuntimeError`` with the end of what it said."""
    env = {**os.environ, "TMPDIR": folder}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, env=env
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
