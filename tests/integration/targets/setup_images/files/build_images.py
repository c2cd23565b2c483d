# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds the images of the integration targets into a folder.

build_images.py FOLDER
"""

from __future__ import annotations

import os
import platform
import sys
import typing as t


def _collections_folder() -> str:
    """The folder above ansible_collections that this collection lies in."""
    path = os.path.dirname(os.path.abspath(__file__))
    while os.path.basename(path) != "ansible_collections":
        if path == os.path.dirname(path):
            sys.exit("this is no installed collection: no ansible_collections above")
        path = os.path.dirname(path)
    return os.path.dirname(path)


sys.path.insert(0, _collections_folder())

from ansible_collections.hypervisor.oci.tests.images.builder import (  # noqa: E402
    Image,
    Index,
    Layer,
    attestation,
    block,
    char,
    cut,
    directory,
    fifo,
    file,
    flip,
    hardlink,
    opaque,
    sparse,
    symlink,
    whiteout,
    write_docker_archive,
    write_layout,
    write_oci_archive,
)

# The node's own platform, which is found without a word
_OWN = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}.get(platform.machine(), f"linux/{platform.machine()}")
_TIME = 1700000000
_PASSWD = "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/srv:/bin/sh\n"
_GROUP = "root:x:0:\napp:x:1001:\nextra:x:1002:app\n"
# cap_net_raw, permitted and effective, version 2
_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def image_one() -> Image:
    """An image with a bit of everything; ``one.manifest`` of the target says what becomes of it."""
    lower = Layer(
        directory(".", 0o755, mtime=_TIME),
        directory("bin", 0o755, mtime=_TIME),
        file("bin/app", "#!/bin/sh\n", 0o755, mtime=_TIME),
        hardlink("bin/again", "bin/app"),
        file("bin/ping", "ping", 0o755, mtime=_TIME, xattrs={"security.capability": _CAPABILITY}),
        file("bin/su", "su", 0o4755, mtime=_TIME),
        directory("dev", 0o755, mtime=_TIME),
        char("dev/null", 1, 3, mtime=_TIME),
        char("dev/kvm", 10, 232, mtime=_TIME),
        block("dev/sda", 8, 0, mtime=_TIME),
        directory("etc", 0o755, mtime=_TIME),
        file("etc/passwd", _PASSWD, mtime=_TIME),
        file("etc/group", _GROUP, mtime=_TIME),
        file("etc/version", "1\n", mtime=_TIME),
        file("etc/gone", "gone", mtime=_TIME),
        symlink("lib", "/usr/lib", mtime=_TIME),
        directory("usr/lib", 0o755, mtime=_TIME),
        file("var/cache/old", "old", mtime=_TIME),
    )
    upper = Layer(
        whiteout("etc/gone"),
        whiteout("etc/never-was"),
        file("lib/through", "through a link", mtime=_TIME),
        file("opt/deep/file", "parents are missing", 0o600, mtime=_TIME),
        fifo("run/pipe", 0o620, mtime=_TIME),
        directory("srv", 0o1750, uid=1000, gid=1001, mtime="1700000000.123456789"),
        file("srv/big-ids", uid=3000000, gid=4000000000, mtime=_TIME),
        file("srv/early", mtime="-1.5"),
        file("srv/commented", mtime=_TIME, xattrs={"user.comment": b"\0hello"}),
        file(
            "srv/shared", mode=0o664, mtime=_TIME, acl_access="user::rw-,user:1000:rw-,group::r--,mask::rw-,other::r--"
        ),
        sparse("srv/sparse", [(1 << 20, "data")], 2 << 20, mtime=_TIME),
        file("srv/two\nlines \xfc", mtime=_TIME),
        file("var/cache/new", "new", mtime=_TIME),
        # behind what it must not touch
        opaque("var/cache"),
    )
    return Image(
        [lower, upper],
        {
            "Entrypoint": ["/bin/app"],
            "Cmd": ["--serve", "it's fine"],
            "Env": ["PATH=/bin", "MODE=production"],
            "User": "app",
            "WorkingDir": "/srv",
            "StopSignal": "SIGQUIT",
            "ExposedPorts": {"8080/tcp": {}},
            "Volumes": {"/data": {}},
            "Labels": {"org.example.line": "1"},
        },
        platform=_OWN,
        ref="registry.example.org/app:1",
    )


def image_two() -> Image:
    """Another version, with little in it."""
    layer = Layer(
        file("bin/app", "#!/bin/sh\n", 0o755, mtime=_TIME),
        file("etc/version", "2\n", mtime=_TIME),
        file("new", "new", mtime=_TIME),
    )
    return Image(
        [layer],
        {"Entrypoint": ["/bin/app"], "Env": ["PATH=/bin", "MODE=test"]},
        platform=_OWN,
        ref="registry.example.org/app:2",
    )


def several() -> list[Index]:
    """Two names, each for several platforms, in nested indexes."""
    return [
        Index(
            _labelled("latest-amd64", "linux/amd64"),
            _labelled("latest-arm64", "linux/arm64"),
            attestation(_labelled("latest-amd64", "linux/amd64")),
            ref="docker.io/library/app:latest",
        ),
        Index(
            _labelled("2-amd64", "linux/amd64"),
            _labelled("2-arm-v6", "linux/arm/v6"),
            _labelled("2-arm-v7", "linux/arm/v7"),
            ref="docker.io/library/app:2",
        ),
    ]


def _labelled(version: str, platform_name: str) -> Image:
    return Image(
        [Layer(file("version", version))], {"Labels": {"org.example.version": version}}, platform=platform_name
    )


def broken() -> dict[str, Image]:
    """Images that cannot become a tree, by what is wrong with their second layer."""
    # more than a header's block, so that there is content to damage
    content = file("content", "content" * 100)
    layers = {
        "wrong-diff-id": Layer(content, diff_id="sha256:" + "0" * 64),
        "wrong-digest": Layer(content, compression="none", edit_stored=flip(600)),
        "cut": Layer(content, edit_blob=cut(-20)),
        "dotdot": Layer(content, file("etc/../../victim")),
        "missing-link": Layer(content, hardlink("etc/copy", "etc/nowhere")),
    }
    lower = Layer(file("lower", "lower"))
    return {name: Image([lower, layer], platform=_OWN) for name, layer in layers.items()}


def large(compression: t.Any) -> Image:
    """An image with one file of 4 MiB."""
    return Image([Layer(file("large", bytes(4 << 20)), compression=compression)], platform=_OWN)


def main() -> int:
    """Build all; returns the exit status."""
    folder = sys.argv[1]

    def path(name: str) -> str:
        return os.path.join(folder, name)

    one = image_one()
    write_oci_archive(path("one.oci.tar"), one)
    write_oci_archive(path("one.oci.tar.gz"), one, compression="gzip")
    write_oci_archive(path("one.oci.tar.zst"), one, compression="zstd")
    write_docker_archive(path("one.docker.tar"), one, repo_tags=[["registry.example.org/app:1"]], style="old")
    write_layout(path("one-layout"), one)
    write_oci_archive(path("two.oci.tar"), image_two())
    write_oci_archive(path("several.oci.tar"), *several())
    write_oci_archive(path("nothing.oci.tar"))
    for name, image in broken().items():
        write_oci_archive(path(f"{name}.oci.tar"), image)
    write_oci_archive(path("large-plain.oci.tar"), large("none"))
    write_oci_archive(path("large-gzip.oci.tar"), large("gzip"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
