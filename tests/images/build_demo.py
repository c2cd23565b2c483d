# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes the example image of the demo, an OCI archive for two platforms, by the standard library alone.

python3 tests/images/build_demo.py OUT.oci.tar
"""

from __future__ import annotations

import argparse
import os
import sys

if __name__ == "__main__" and not __package__:
    # run as a script: be the member of a package that relative imports need
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    __package__ = "images"

from .builder import Image, Index, Layer, directory, file, hardlink, opaque, symlink, whiteout, write_oci_archive

REF = "latest"
NAME = "registry.example/hypervisor/demo:latest"
PLATFORMS = ("linux/amd64", "linux/arm64")

_UID = 1000
_DAY = 86400
# The days on which the three layers were made: 2024-01-01 and the two after.
_FIRST = 1704067200
_SECOND = _FIRST + _DAY
_THIRD = _SECOND + _DAY

_PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
app:x:1000:1000:The application:/srv/app:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUP = """\
root:x:0:
daemon:x:1:
tty:x:5:
video:x:44:app
render:x:105:app
app:x:1000:
nogroup:x:65534:
"""
_OS_RELEASE = """\
ID=demo
NAME="Demo"
PRETTY_NAME="The example image of hypervisor.oci"
VERSION_ID=1
"""
_SCRIPT = """\
#!/bin/sh
# The image brings no shell: it is there to be unpacked and looked at.
exec "$@"
"""


def base_layer() -> Layer:
    """The directories of a small system, its users, and things that the layers above hide."""
    return Layer(
        directory("etc", mtime=_FIRST),
        file("etc/passwd", _PASSWD, mtime=_FIRST),
        file("etc/group", _GROUP, mtime=_FIRST),
        file("etc/shadow", "root:*::0:::::\n", 0o640, gid=42, mtime=_FIRST),
        file("etc/motd", "Welcome to the base layer.\n", mtime=_FIRST),
        directory("usr", mtime=_FIRST),
        directory("usr/bin", mtime=_FIRST),
        directory("usr/lib", mtime=_FIRST),
        file("usr/lib/os-release", _OS_RELEASE, mtime=_FIRST),
        symlink("etc/os-release", "../usr/lib/os-release", mtime=_FIRST),
        symlink("bin", "usr/bin", mtime=_FIRST),
        symlink("lib", "usr/lib", mtime=_FIRST),
        directory("root", 0o700, mtime=_FIRST),
        directory("tmp", 0o1777, mtime=_FIRST),
        directory("var", mtime=_FIRST),
        directory("var/cache", mtime=_FIRST),
        directory("var/cache/packages", mtime=_FIRST),
        file("var/cache/packages/index", "package 1\n" * 2000, mtime=_FIRST),
        file("var/cache/packages/base.pkg", bytes(65536), mtime=_FIRST),
    )


def application_layer() -> Layer:
    """The application: through a symlink of the base layer, owned by its user, with a hard link."""
    return Layer(
        # lands in usr/bin, where the base layer's link leads
        file("bin/app", _SCRIPT, 0o755, mtime=_SECOND),
        hardlink("bin/app-admin", "bin/app", 0o755, mtime=_SECOND),
        directory("etc/app", mtime=_SECOND),
        file("etc/app/app.conf", "listen = 8080\n", mtime="1704153600.123456789"),
        directory("srv", mtime=_SECOND),
        directory("srv/app", 0o750, uid=_UID, gid=_UID, mtime=_SECOND),
        file("srv/app/größe.txt", "viel\n", uid=_UID, gid=_UID, mtime=_SECOND),
        file("srv/app/state", "1\n", 0o600, uid=_UID, gid=_UID, mtime=_SECOND),
        compression="none",
    )


def cleaning_layer() -> Layer:
    """What hides a file of the base layer, empties a directory, and replaces a file."""
    return Layer(
        whiteout("etc/motd", mtime=_THIRD),
        directory("var/cache/packages", mtime=_THIRD),
        opaque("var/cache/packages", mtime=_THIRD),
        file("var/cache/packages/index", "", mtime=_THIRD),
        file("srv/app/state", "2\n", 0o600, uid=_UID, gid=_UID, mtime=_THIRD),
    )


def demo_index() -> Index:
    """The same content for each of the platforms."""
    layers = [base_layer(), application_layer(), cleaning_layer()]
    config = {
        "Entrypoint": ["/usr/bin/app"],
        "Cmd": ["serve", "--listen", "8080"],
        "Env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "APP_CONFIG=/etc/app/app.conf",
            "APP_GREETING=hello world",
        ],
        "User": "app",
        "WorkingDir": "/srv/app",
        "Labels": {
            "org.opencontainers.image.title": "demo",
            "org.opencontainers.image.description": "The example image of hypervisor.oci",
            "org.opencontainers.image.licenses": "GPL-3.0-or-later",
        },
        "ExposedPorts": {"8080/tcp": {}},
        "Volumes": {"/srv/app": {}},
        "StopSignal": "SIGTERM",
        "Healthcheck": {
            "Test": ["CMD", "/usr/bin/app", "check"],
            "Interval": 30_000_000_000,
            "Timeout": 5_000_000_000,
            "Retries": 3,
        },
    }
    images = [Image(layers, config, platform=platform) for platform in PLATFORMS]
    return Index(*images, ref=REF, name=NAME)


def main() -> None:
    """Write the archive that the command line names."""
    parser = argparse.ArgumentParser(description="Write the demo's example image.")
    parser.add_argument("out", metavar="OUT.oci.tar", help="the archive to write")
    path = write_oci_archive(parser.parse_args().out, demo_index())
    print(f"{path}: {os.path.getsize(path)} bytes, {', '.join(PLATFORMS)}")


if __name__ == "__main__":
    main()
