# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plants one difference after the other between two equal trees, and runs the comparer on them.

check.py COMPARER FOLDER
"""

from __future__ import annotations

import os
import subprocess
import sys
import typing as t

sys.path.insert(0, os.path.abspath(__file__).partition("/ansible_collections/")[0])

from ansible_collections.hypervisor.oci.tests.tools.removal import remove_below  # noqa: E402

_TIME = 1700000000123456789


def make(top: str) -> None:
    """A tree with something of each kind, and deeper than a path can be long."""
    os.mkdir(top)
    os.mkdir(f"{top}/folder", 0o750)
    write(f"{top}/folder/file", b"content")
    os.setxattr(f"{top}/folder/file", "user.name", b"value")
    os.link(f"{top}/folder/file", f"{top}/linked")
    write(f"{top}/other", b"content")
    os.symlink("folder/file", f"{top}/link")
    os.mkfifo(f"{top}/fifo", 0o600)
    os.mknod(f"{top}/null", 0o20600, os.makedev(1, 3))
    write(f"{top}/early", b"")
    write(os.fsencode(top) + b"/\xff\n name", b"")
    deep(top)
    for path, _folders, files in os.walk(os.fsencode(top), topdown=False):
        for name in files:
            if os.fsdecode(name) != "early":
                set_time(os.path.join(path, name), _TIME)
        set_time(path, _TIME)
    set_time(f"{top}/early", -1500000000)


def deep(top: str) -> None:
    """Forty directories whose names together are longer than PATH_MAX, and a file at the bottom."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _depth in range(40):
        os.mkdir("d" * 200, dir_fd=fd)
        below = os.open("d" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    file = os.open("bottom", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd)
    os.close(file)
    set_time("bottom", _TIME, fd)
    for _depth in range(40):
        os.utime(fd, ns=(_TIME, _TIME))
        above = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = above
    os.close(fd)


def write(path: t.Any, data: bytes) -> None:
    """A file, or other content for one."""
    with open(path, "wb") as file:
        file.write(data)


def set_time(path: t.Any, time: int, above: int | None = None) -> None:
    """A modification time in nanoseconds, of a symlink itself."""
    os.utime(path, ns=(time, time), dir_fd=above, follow_symlinks=False)


def relink(top: str) -> None:
    """Let a name that was a file of its own be a link to another of the same content."""
    os.unlink(f"{top}/other")
    os.link(f"{top}/linked", f"{top}/other")
    set_time(top, _TIME)


def replace_node(top: str) -> None:
    """Another device of the same name."""
    os.unlink(f"{top}/null")
    os.mknod(f"{top}/null", 0o20600, os.makedev(1, 5))
    set_time(f"{top}/null", _TIME)
    set_time(top, _TIME)


def retarget(top: str) -> None:
    """A symlink with another text of the same length."""
    os.unlink(f"{top}/link")
    os.symlink("folder/fill", f"{top}/link")
    set_time(f"{top}/link", _TIME)
    set_time(top, _TIME)


def rewrite(path: str, data: bytes) -> None:
    """Other content under the same time."""
    write(path, data)
    set_time(path, _TIME)


def remove_bottom(top: str) -> None:
    """Take away what lies deepest."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _depth in range(40):
        below = os.open("d" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.unlink("bottom", dir_fd=fd)
    os.utime(fd, ns=(_TIME, _TIME))
    os.close(fd)


def turn_into_directory(top: str) -> None:
    """A directory where a file was."""
    os.unlink(f"{top}/other")
    os.mkdir(f"{top}/other", 0o644)
    set_time(f"{top}/other", _TIME)
    set_time(top, _TIME)


# What is planted, and the words that the comparer must say of it.
Plant = t.Callable[[str], t.Any]
PLANTS: list[tuple[str, Plant]] = [
    ("folder: mode 0750 is 0751", lambda top: os.chmod(f"{top}/folder", 0o751)),
    ("folder/file: mode 0644 is 4644", lambda top: os.chmod(f"{top}/linked", 0o4644)),
    ("link: uid 0 is 1", lambda top: os.lchown(f"{top}/link", 1, 0)),
    ("fifo: gid 0 is 1", lambda top: os.chown(f"{top}/fifo", 0, 1)),
    ("folder: mtime 1700000000.123456789 is 1700000000.123456788", lambda top: set_time(f"{top}/folder", _TIME - 1)),
    (".: mtime 1700000000.123456789 is", lambda top: set_time(top, _TIME + 1)),
    ("link: mtime 1700000000.123456789 is", lambda top: set_time(f"{top}/link", _TIME + 1)),
    ("early: mtime -1.500000000 is 0.000000000", lambda top: set_time(f"{top}/early", 0)),
    ("other: size 7 is 8", lambda top: rewrite(f"{top}/other", b"contents")),
    ("other: sha256 ", lambda top: rewrite(f"{top}/other", b"CONTENT")),
    ("link: target folder/file is folder/fill", retarget),
    ("null: device 1:3 is 1:5", replace_node),
    ("other: group  is folder/file", relink),
    ("linked: links 2 is 3", relink),
    ("folder/file: xattr user.name 0x76616c7565 is 0x00", lambda top: os.setxattr(f"{top}/linked", "user.name", b"\0")),
    ("fifo: xattr trusted.name absent is 0x78", lambda top: os.setxattr(f"{top}/fifo", "trusted.name", b"x")),
    (
        "other: xattr security.capability absent is",
        lambda top: os.setxattr(
            f"{top}/other", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")
        ),
    ),
    ("\\xff\\x0a\\x20name: mode 0644 is 0600", lambda top: os.chmod(os.fsencode(top) + b"/\xff\n name", 0o600)),
    ("bottom: file only in the first tree", remove_bottom),
    ("other: kind file is directory", turn_into_directory),
]


def main() -> int:
    """Plant all; returns the exit status."""
    comparer, folder = sys.argv[1:]
    a, b = f"{folder}/a", f"{folder}/b"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, comparer, *arguments], capture_output=True, check=False, text=True, timeout=60
        )

    make(a)
    failures = []
    for words, plant in [("", lambda top: None), *PLANTS]:
        make(b)
        plant(b)
        result = run(a, b)
        manifests = [run("--manifest", top).stdout for top in (a, b)]
        seen = words in result.stdout and result.returncode == (1 if words else 0)
        listed = (manifests[0] == manifests[1]) is (not words)
        if seen and listed:
            print(words or "equal trees are equal")
        else:
            failures.append(f"{words!r} was expected: {result}, manifests: {listed}")
        remove_below(folder, b)
    make(b)
    os.chmod(f"{b}/folder", 0o700)
    os.setxattr(f"{b}/other", "user.known", b"")
    set_time(f"{b}/link", 1)
    set_time(f"{b}/early", 0)
    known = ["--ignore", "folder", "--ignore-xattr", "user.known"]
    known += ["--ignore-mtime", "link"]
    for options, status in (
        ([], 1),
        (known, 1),
        ([*known, "--ignore-mtime-before-1970"], 0),
        (["--ignore-field", "mtime", *known], 0),
        (["--limit", "1"], 1),
    ):
        result = run(*options, a, b)
        if result.returncode != status:
            failures.append(f"{options}: {status} was expected, got {result}")
    if "and 3 more differences" not in result.stdout:
        failures.append(f"--limit: {result}")
    if run(a, f"{folder}/missing").returncode != 2 or run(a).returncode != 2:
        failures.append("a missing tree is no error")
    print("\n".join(failures), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
