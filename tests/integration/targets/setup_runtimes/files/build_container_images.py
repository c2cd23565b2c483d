# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds images around a static program, for containers that really run.

build_container_images.py FOLDER BUSYBOX
"""

from __future__ import annotations

import os
import platform
import re
import struct
import subprocess
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
    Entry,
    Image,
    Layer,
    directory,
    file,
    flip,
    hardlink,
    symlink,
    write_oci_archive,
)

_OWN = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}.get(platform.machine(), f"linux/{platform.machine()}")
_PROGRAMS = (*("cat", "cp", "hostname", "id", "ls", "mkdir"), *("mv", "readlink", "rm", "sh", "sleep", "true"))
_PASSWD = """\
root:x:0:0::/root:/bin/sh
app:x:1000:1001::/home/app:/bin/sh
other:x:2000:2001::/:/bin/sh
"""
_GROUP = """\
root:x:0:
app:x:1001:
extra:x:1002:app,other
more:x:1003:app
other:x:2001:
"""
# Says how it was started, in a folder that is there as a whole or not at all, and waits for a signal.
_PROBE = """\
#!/bin/sh
for signal in HUP INT QUIT TERM USR1 USR2; do
    trap "echo $signal >>/data/stopped; exit 0" "$signal"
done
new=/data/report.$$
rm -rf "$new"
mkdir "$new"
cat "/proc/$$/cmdline" >"$new/cmdline"
cat "/proc/$$/environ" >"$new/environ"
cat "/proc/$$/status" >"$new/status"
readlink "/proc/$$/cwd" >"$new/cwd"
hostname >"$new/hostname"
cat /version >"$new/version"
cat /etc/hosts >"$new/hosts"
cat /proc/self/uid_map >"$new/uid_map"
ls -lan /data >"$new/data"
rm -rf /data/report
mv "$new" /data/report
while true; do
    sleep 1000 &
    wait $!
done
"""
# What is awkward for one format or another, and for templates.
ARGUMENTS = [
    "two words",
    "it's",
    'say "hi"',
    'it\'s "both"',
    "$HOME ${PATH} `id`",
    "back\\slash \\n \\",
    "grün ✓",
    "{{ 1 + 1 }}{% raw %}",
    "%h %% #no comment ; no end",
    "a=b,c:d",
    "tab\there",
    "",
]
# Lets directories change places with links that lead to the node.
_ATTACK = """\
#!/bin/sh
trap 'exit 0' TERM
/bin/swap &
wait
"""
# The same where there is no machine code for it, which takes much longer to get something.
_SLOW = """\
#!/bin/sh
while true; do
    for number in {numbers}; do
        mv "/tree/d$number" /tree/away
        mv "/tree/l$number" "/tree/d$number"
        mv "/tree/d$number" "/tree/l$number"
        mv /tree/away "/tree/d$number"
    done
done
"""
_SWAPPED = range(8)
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "QUOTED": 'it\'s "both" $HOME \\ %h',
    "TEMPLATE": "{{ lookup('pipe', 'touch /data/evaluated') }}",
    "EDGES": " blanks ",
    "UMLAUT": "grün ✓",
    "LINES": "one\nlxc.hook.start-host = /bin/false",
}
_HOSTILE = {"org.example.label": "one\nlxc.hook.pre-start = /bin/false\n{{ 1 + 1 }}"}


def _from_host(path: str) -> Entry:
    with open(path, "rb") as source:
        return file(path.lstrip("/"), source.read(), 0o755)


def _getent() -> list[Entry]:
    """The host's getent with its libraries, which systemd-nspawn looks users up by."""
    listed = subprocess.run(["ldd", "/usr/bin/getent"], check=True, capture_output=True, text=True).stdout
    paths = [path for path in re.findall(r"(/\S+)", listed) if os.path.isfile(path)]
    return [_from_host(path) for path in ["/usr/bin/getent", *paths]]


def _base(busybox: bytes) -> Layer:
    names = [f"bin/{name}" for name in _PROGRAMS]
    return Layer(
        directory(".", 0o755),
        directory("bin", 0o755),
        file("bin/busybox", busybox, 0o755),
        *(hardlink(name, "bin/busybox") for name in names),
        file("bin/probe", _PROBE, 0o755),
        # what no user of the node may come to
        file("bin/setuid", "", 0o4755),
        directory("dev", 0o755),
        directory("etc", 0o755),
        file("etc/passwd", _PASSWD),
        file("etc/group", _GROUP),
        file("etc/nsswitch.conf", "passwd: files\ngroup: files\n"),
        directory("home/app", 0o700, uid=1000, gid=1001),
        directory("proc", 0o755),
        directory("sys", 0o755),
        directory("tmp", 0o1777),
        directory("run", 0o755),
        directory("usr/bin", 0o755),
        directory("var", 0o755),
        # runtimes follow this in ways of their own
        symlink("var/run", "/run"),
        *_getent(),
        directory("data", 0o777, uid=1000, gid=1001),
        file("data/from-image", "from the image\n", 0o640, uid=1000, gid=1001),
    )


def _image(base: Layer, version: int, *more: t.Any, **config: t.Any) -> Image:
    return Image(
        [base, Layer(file("version", f"{version}\n")), *more],
        {
            "Entrypoint": ["/bin/probe", *ARGUMENTS],
            "Cmd": ["last"],
            "Env": [f"{key}={value}" for key, value in ENVIRONMENT.items()],
            "User": "app",
            "WorkingDir": "/srv/work dir",
            "StopSignal": "SIGQUIT",
            "Volumes": {"/data": {}, "/var/run/state": {}},
            "Labels": _HOSTILE,
            **config,
        },
        platform=_OWN,
        ref=f"app:{version}",
    )


def _swap() -> bytes:
    """A program that exchanges /tree/dN and /tree/lN without an end."""
    if platform.machine() != "x86_64":
        return _SLOW.format(numbers=" ".join(map(str, _SWAPPED))).encode()
    names = [b"/tree/%c%d\0" % (kind, n) for n in _SWAPPED for kind in b"dl"]
    # mov eax, renameat2; mov edi, AT_FDCWD; lea rsi, first; mov edx, AT_FDCWD; lea r10, second; mov r8d, exchange; syscall
    call = struct.Struct("<BI BI 3si BI 3si 2sI 2s")
    here = struct.Struct("<BI")
    code = b""
    texts = call.size * len(_SWAPPED) + here.size
    for number in _SWAPPED:
        first = texts + sum(map(len, names[: 2 * number])) - len(code)
        second = first + len(names[2 * number])
        at_fdcwd = 2**32 - 100
        rsi, r10 = (b"\x48\x8d\x35", first - 17), (b"\x4c\x8d\x15", second - 29)
        call_fields = (0xB8, 316, 0xBF, at_fdcwd, *rsi, 0xBA, at_fdcwd, *r10)
        code += call.pack(*call_fields, b"\x41\xb8", 2, b"\x0f\x05")
    code += here.pack(0xE9, 2**32 - len(code) - here.size) + b"".join(names)
    start, size = 0x400000, 64 + 56 + len(code)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = (2, 62, 1, start + 120, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = (1, 5, 0, start, start, size, size, 0x1000)
    return struct.pack("<16sHHIQQQIHHHHHH", ident, *header) + struct.pack("<IIQQQQQQ", *segment) + code


def _attacker(base: Layer, outside: str) -> Image:
    """A container that wants to have what lies in a folder of the node's."""
    pairs = [(directory(f"tree/d{number}", 0o755), symlink(f"tree/l{number}", outside)) for number in _SWAPPED]
    attack = Layer(
        *(entry for pair in pairs for entry in pair),
        file("bin/attack", _ATTACK, 0o755),
        file("bin/swap", _swap(), 0o755),
        # one place of the runtime's by its name, and one by a link
        symlink("p", "/proc"),
    )
    volumes: dict[str, t.Any] = {"/proc": {}, "/p": {}}
    config = {"Entrypoint": ["/bin/attack"], "Cmd": [], "Volumes": volumes}
    return _image(base, 5, attack, **config, User="", WorkingDir="/", StopSignal="TERM")


def _systemd() -> Image:
    """A container whose first process is the node's own systemd, from the node's /usr, which is mounted in it."""
    layer = Layer(
        directory(".", 0o755),
        *(symlink(name, f"usr/{name}") for name in ("bin", "sbin", "lib", "lib64")),
        # the mount hides them
        symlink("usr/sbin/init", "/lib/systemd/systemd"),
        file("usr/lib/systemd/systemd", "", 0o755),
        file("usr/lib/systemd/system/dbus.socket", ""),
        *(directory(name, 0o755) for name in ("dev", "proc", "run", "sys", "usr/bin", "usr/lib64", "var/log")),
        *(directory(name, 0o1777) for name in ("tmp", "var/tmp")),
        file("etc/passwd", f"{_PASSWD}messagebus:x:101:101::/:\n"),
        file("etc/group", f"{_GROUP}messagebus:x:101:\n"),
        file("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
    )
    config = {"Entrypoint": ["/sbin/init", "--unit=basic.target"], "Env": ["VALUE=it's $HOME %h"], "WorkingDir": "/tmp"}
    return Image([layer], {**config, "StopSignal": "SIGRTMIN+3"}, platform=_OWN, ref="app:6")


def main() -> int:
    """Write the images into a folder."""
    folder, program = sys.argv[1:]
    with open(program, "rb") as source:
        base = _base(source.read())
    broken = Layer(file("new", "x" * 4096), edit_stored=flip(-20))
    images = {
        "one": _image(base, 1),
        "two": _image(base, 2),
        # its process cannot start
        "three": _image(base, 3, Entrypoint=["/bin/nothing"], Cmd=[]),
        # its last layer is damaged
        "four": _image(base, 4, broken),
        "five": _attacker(base, os.path.join(os.path.abspath(folder), "outside")),
        "six": _systemd(),
    }
    for name, image in images.items():
        write_oci_archive(os.path.join(folder, f"{name}.oci.tar"), image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
