# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the fuzzer starts from: small images that between them hold every kind of thing.

Names that lead out of the tree are aimed at ``TARGET``, and at folders called ``target`` above dest: the checks
look at all of them.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ansible_collections.hypervisor.oci.tests.images.builder import (
    Blob,
    Image,
    Index,
    Layer,
    artifact,
    attestation,
    block,
    char,
    digest,
    directory,
    fifo,
    file,
    global_header,
    hardlink,
    opaque,
    sparse,
    symlink,
    whiteout,
)
from ansible_collections.hypervisor.oci.tests.images.compression import CompressionName
from ansible_collections.hypervisor.oci.tests.images.tarfiles import Member

# Where absolute names and links of the images lead to; fixed, so that an input is the same everywhere.
TARGET = "/tmp/oci-fuzz-target"

# What an input begins with that is the files of a layout directory, as JSON: text in Latin 1, or null for a FIFO.
LAYOUT = b"layout\n"

_CAPABILITY = b"\x01\0\0\x02" + b"\0\x20\0\0" + bytes(12)
_ACL = "user::rw-,user:1000:r--,group::r--,mask::r--,other::---"
_PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/srv:/bin/sh\n"
_GROUP = "root:x:0:\napp:x:1000:\nvideo:x:44:app\n"


@dataclass(frozen=True)
class Seed:
    """Layers as lists of entries, and what the config says."""

    layers: tuple[tuple[Member, ...], ...]
    config: dict[str, t.Any]


def seeds() -> dict[str, Seed]:
    """All seeds by name."""
    return {
        "system": Seed((_system(), _changes()), {"User": "app", "Env": ["A=b"]}),
        "links": Seed((_links(), _through_links()), {"User": "app:video"}),
        "whiteouts": Seed((_tree(), _whiteouts(), _opaques()), {"Cmd": None}),
        "attributes": Seed((_attributes(),), {"StopSignal": "15"}),
        "dialects": Seed((_dialects(),), {"WorkingDir": "srv"}),
        "sparse": Seed((_sparse(),), {}),
        "escapes": Seed((_escapes(), _escapes_again()), {"User": "1000:44"}),
    }


def _system() -> tuple[Member, ...]:
    return (
        directory("."),
        directory("etc"),
        file("etc/passwd", _PASSWD),
        file("etc/group", _GROUP),
        directory("usr/bin", mtime=1700000000),
        file("usr/bin/app", b"\x7fELF" + bytes(600), 0o4755),
        symlink("bin", "usr/bin"),
        hardlink("usr/bin/again", "usr/bin/app"),
        directory("tmp", 0o1777),
        char("dev/null", 1, 3),
        block("dev/sda", 8, 0),
        fifo("run/pipe"),
    )


def _changes() -> tuple[Member, ...]:
    return (
        file("bin/tool", "#!/bin/sh\n", 0o755),
        whiteout("usr/bin/again"),
        directory("tmp", 0o700),
        file("dev", "no directory any more"),
        directory("etc/app/conf.d", uid=1000, gid=1000),
        file("etc/passwd", _PASSWD),
        symlink("etc/app/link", "../../usr"),
    )


def _links() -> tuple[Member, ...]:
    return (
        symlink("a", "b"),
        symlink("b", "/c/./d/../d"),
        directory("c/d/e"),
        symlink("c/up", ".."),
        symlink("loop", "loop"),
        symlink("one", "two"),
        symlink("two", "one"),
        symlink("nothing", "not/there"),
        file("a/f", "through two links"),
        hardlink("c/h", "a/f"),
        symlink("etc", "c/etc"),
        file("etc/passwd", _PASSWD),
        symlink("etc/group", "/etc/group.real"),
        file("etc/group.real", _GROUP),
    )


def _through_links() -> tuple[Member, ...]:
    return (
        file("nothing/made", "x"),
        directory("a"),
        file("a/new", "x"),
        whiteout("c/up"),
        symlink("c/d", "../c/dd"),
        file("c/d/x", "y"),
        hardlink("z", "c/d/x"),
    )


def _tree() -> tuple[Member, ...]:
    return (
        directory("d/e/f"),
        file("d/one", "1"),
        file("d/e/two", "2"),
        file("d/e/f/three", "3"),
        symlink("s", "d"),
        directory("o/p"),
        file("o/p/q", "q"),
    )


def _whiteouts() -> tuple[Member, ...]:
    return (
        whiteout("d/one"),
        file("d/e/new", "n"),
        whiteout("d/e"),
        whiteout("s"),
        whiteout("not-there"),
        file(".wh...", ""),
        file("o/.wh..", ""),
        file(".wh..wh.plnk", ""),
        file("d/.wh..wh..opq/below", ""),
    )


def _opaques() -> tuple[Member, ...]:
    return (file("o/p/r", "r"), opaque("o"), opaque("s"), directory("d"), opaque("d"), opaque(), file("last", "l"))


def _attributes() -> tuple[Member, ...]:
    return (
        directory("d", acl_access=_ACL, acl_default="user::rwx,group::r-x,other::---"),
        file("cap", "x", 0o755, xattrs={"security.capability": _CAPABILITY}),
        file("user", "x", xattrs={"user.note": b"\0\xff", "trusted.x": "y"}),
        file("archive", "x", libarchive_xattrs={"user.a b%": b"value"}),
        file("acl", "x", acl_access=_ACL),
        symlink("l", "cap", xattrs={"user.note": "z", "security.selinux": "s0"}),
        file("owner", "x", uid=2**31, gid=2**32 - 2, dialect="pax"),
        file("before", "x", mtime="-1.5"),
        file("fraction", "x", mtime="1700000000.123456789"),
        file("names", "x", uname="somebody", gname="größe"),
    )


def _dialects() -> tuple[Member, ...]:
    long = "/".join(["folder" * 5] * 5)
    return (
        global_header({"comment": "a commit"}),
        file("v7", "7", dialect="v7"),
        file("p" * 90 + "/" + "n" * 90, "u", dialect="ustar"),
        file(long + "/gnu", "g", dialect="gnu"),
        symlink("gnu-link", long + "/gnu", dialect="gnu"),
        file(long + "/pax", "p", dialect="pax"),
        file("big", "b", uid=2**40 & 0xFFFFFF, mtime=2**34, dialect="gnu"),
        file("size", b"hello", size=0, pax={"size": 5}),
        file("star", "s", fields={"trailer": b"\0" * 8 + b"tar\0"}),
        file("contiguous", "c", fields={"type": b"7"}),
    )


def _sparse() -> tuple[Member, ...]:
    regions = [(0, b"a" * 512), (4096, b"b" * 512), (8192, b"c" * 100)]
    many = [(number * 1024, b"x" * 512) for number in range(26)]
    return (
        sparse("old", regions, 20000, "old-gnu"),
        sparse("older", many, 30000, "old-gnu"),
        sparse("zero", regions, 20000, "pax-0.0"),
        sparse("dir/one", regions, 20000, "pax-0.1"),
        sparse("dir/two", regions, 20000, "pax-1.0"),
        sparse("hole", [], 1000000, "pax-1.0"),
    )


def _escapes() -> tuple[Member, ...]:
    return (
        symlink("abs", TARGET),
        symlink("rel", "../target"),
        symlink("rel2", "../../target"),
        symlink("deep/rel", "../../../../../../.." + TARGET),
        file("abs/victim", "written"),
        file("rel/victim", "written"),
        file("rel2/victim", "written"),
        file(TARGET + "/victim", "written"),
        directory("deep"),
        hardlink("stolen", TARGET + "/victim"),
        symlink("etc", TARGET),
        symlink("leaf", TARGET + "/victim"),
        symlink("leaf2", "../../target/victim"),
        symlink("leaf3", TARGET + "/folder"),
        file("leaf", "written"),
        sparse("leaf2", [(0, b"written")], 1000),
    )


def _escapes_again() -> tuple[Member, ...]:
    return (
        whiteout("abs/victim"),
        whiteout("rel2/victim"),
        opaque("rel"),
        directory("abs", 0o777, mtime=1),
        hardlink("rel/victim", "stolen"),
        char("deep/rel/null", 1, 3),
        file("rel2", "a file now"),
        whiteout(TARGET + "/victim"),
        symlink("leaf", "../target/victim"),
        directory("leaf", 0o777, mtime=1),
        directory("leaf3", 0o777, mtime=1),
        hardlink("leaf2", "abs"),
        fifo("leaf2", 0o777, mtime=1),
    )


def tiny() -> Seed:
    """As little as an image can be, for faults in what is around it."""
    return Seed(((file("etc/passwd", _PASSWD), symlink("l", "etc")),), {"User": "app"})


def image_of(seed: Seed, number: int = 0) -> Image:
    """A seed as an image; the number varies what its parts are stored as."""
    kinds: tuple[CompressionName, ...] = ("gzip", "none", "zstd")
    return Image(
        [Layer(*members, compression=kinds[(number + place) % 3]) for place, members in enumerate(seed.layers)],
        seed.config,
        ref="fuzz:1",
    )


# A config with every field that means something.
CONFIG: dict[str, t.Any] = {
    "User": "app:video",
    "Entrypoint": ["/usr/lib/systemd/systemd"],
    "Cmd": ["--unit", "x"],
    "Env": ["PATH=/bin", "A=b=c", "A=d"],
    "WorkingDir": "/srv",
    "StopSignal": "SIGRTMIN+3",
    "ExposedPorts": {"80/tcp": {}},
    "Volumes": {"/v": {}},
    "Labels": {"a": "b"},
    "Healthcheck": {"Test": ["CMD", "x"], "Interval": 10**9, "Retries": 3},
}


def many_images() -> Index:
    """An index of all that can stand in one."""
    first = Layer(file("a", "1"))
    second = Layer(file("b", "2"), algorithm="sha512", inline=True)
    wanted = Image([first, second], {"User": "0"}, media="docker")
    arm = Image([first], platform="linux/arm64/v8", name="docker.io/library/f:1")
    gone = Image([second], platform="linux/s390x", missing=True)
    return Index(
        Index(wanted, ref="nested"),
        arm,
        gone,
        attestation(wanted),
        artifact(),
        wanted.listed(ref="again"),
        Blob(b"junk", "application/vnd.unknown"),
        annotations={"note": digest(b"")},
    )
