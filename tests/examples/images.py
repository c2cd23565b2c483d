# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The images that the examples name, built around this machine's own shell."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import typing as t

from ..images.builder import Image, Index, Layer, directory, file, flip, symlink, write_oci_archive
from ..images.signatures import signer, tagged

_OWN = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}.get(platform.machine(), f"linux/{platform.machine()}")
_OTHER = "linux/arm64" if _OWN != "linux/arm64" else "linux/amd64"
_PROGRAMS = ("/bin/sh", "/bin/sleep", "/usr/bin/getent")
_SERVE = ["/bin/sh", "-c", "trap 'exit 0' TERM QUIT; while :; do sleep 1; done"]
# Every archive that an example names, relative to the playbook.
_ARCHIVES = ("app.oci.tar", "files/app.oci.tar", "images/app-2.oci.tar", "images/app.oci.tar", "images/web.oci.tar",
             "nginx.oci.tar", "web.oci.tar")  # fmt: skip
# Those that are signed by the key in these files.
_SIGNED = ("images/web.oci.tar", "web.oci.tar")
_KEYS = ("cosign.pub", "keys/build.pub", "keys/release.pub")
_SEVERAL = "images/all.oci.tar"
# An update of app.oci.tar: an image of its own, so many versions later.
_UPDATE = "images/app-2.oci.tar"
UPDATED = 100
# The only archive that an example expects on the node.
ON_NODE = "/srv/images/app-2.oci.tar"
_PASSWD = "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\n"


def write_all(folder: str, version: int, damaged: bool = False, starts: bool = True) -> tuple[str, str]:
    """Write all archives in one version. Return the digests of the indexes of the image and of the update."""
    index = _index(version, damaged, starts)
    update = _index(version + UPDATED, damaged, starts)
    for name in (*_ARCHIVES, _SEVERAL):
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        contents: list[t.Any] = [index, _other(version)] if name == _SEVERAL else [update if name == _UPDATE else index]
        if name in _SIGNED:
            contents.append(tagged(index, signer()))
        _write(path, *contents)
    for name in _KEYS:
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file_of_key:
            file_of_key.write(signer().public_pem)
    os.makedirs(os.path.dirname(ON_NODE), exist_ok=True)
    _write(ON_NODE, update)
    return index.index_digest, update.index_digest


def _write(path: str, *contents: t.Any) -> None:
    # a new file: web servers and readers of the former one keep it
    write_oci_archive(path + ".new", *contents)
    os.replace(path + ".new", path)


def _index(version: int, damaged: bool, starts: bool) -> Index:
    config: dict[str, t.Any] = {
        "Entrypoint": _SERVE if starts else ["/bin/missing"],
        "Env": ["PATH=/usr/bin:/bin"],
        # the user is root in one version, and an account in the next
        "User": "" if version % 2 else "www-data",
        "Volumes": {"/var/cache/web": {}},
    }
    fault: dict[str, t.Any] = {"edit_stored": flip(-20)} if damaged else {}
    layers = [_base(), Layer(file("etc/version", f"{version}\n"), **fault)]
    own = Image(layers, config, platform=_OWN)
    others = Image(layers, config, platform=_OTHER)
    return Index(own, others, ref="registry.example.org/web:2.1")


def _other(version: int) -> Image:
    return Image([Layer(file("other", f"{version}\n"))], platform=_OWN, ref="registry.example.org/other:1")


def _base() -> Layer:
    listed = subprocess.run(["ldd", *_PROGRAMS], check=True, capture_output=True, text=True).stdout
    libraries = {path for path in re.findall(r"(/\S+)(?= \()", listed) if os.path.isfile(path)}
    entries = []
    for path in (*_PROGRAMS, *sorted(libraries)):
        with open(path, "rb") as source:
            entries.append(file(path.lstrip("/"), source.read(), 0o755))
    folders = ("", "bin", "dev", "etc", "proc", "run", "srv", "sys", "tmp", "usr/bin", "var/lib/data", "var/cache/web")
    return Layer(
        *(directory(name or ".", 0o755) for name in folders),
        file("etc/passwd", _PASSWD),
        file("etc/group", "root:x:0:\nwww-data:x:33:\n"),
        file("etc/nsswitch.conf", "passwd: files\ngroup: files\n"),
        symlink("var/run", "/run"),
        *entries,
    )
