# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compares two directory trees in everything that a root file system is made of.

Type, mode, owner, size, modification time in nanoseconds, device number, link text, hard links, extended
attributes of every namespace and a hash of the content. Only what reading changes (access times) and what
no archive holds (inode numbers, change times, allocated blocks, sizes of directories) is left out.

    compare_trees.py A B             prints the differences; exit status 1 where there are any
    compare_trees.py --manifest A    prints one line per path, sorted

Run it as root where owners, capabilities and ``trusted.*`` attributes matter: others cannot read them all.
The trees must be at rest.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import stat
import sys
import typing as t
from dataclasses import dataclass, fields, replace

_CHUNK = 1 << 20
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a file that turned into a FIFO is never waited for
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True)
class Node:
    """One path of a tree.

    ``mtime`` is in nanoseconds. ``size`` counts for files and symlinks alone. ``links`` is the number of
    links to anything but a directory, wherever they lie, and ``group`` the first path of those in the tree.
    ``sha256`` is set for files, ``device`` for devices, ``target`` for symlinks, and empty otherwise. ``content``
    is what a file holds, if it was asked for in place of the hash.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int | None = None
    links: int = 1
    group: bytes = b""
    device: str = ""
    target: bytes = b""
    sha256: str = ""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    content: bytes | None = None


# What can be compared.
FIELDS = tuple(field.name for field in fields(Node) if field.name != "content")
# What a manifest does not mention.
_UNTOLD = {field.name: field.default for field in fields(Node)}


@dataclass(frozen=True)
class Ignore:
    """Known differences that do not count.

    ``paths`` go with all below them. ``mtimes`` are paths whose time is not looked at, ``xattrs`` names of
    extended attributes, ``fields`` names of fields of ``Node``. ``mtime_before_1970`` leaves out a time that
    is negative on either side.
    """

    paths: frozenset[bytes] = frozenset()
    mtimes: frozenset[bytes] = frozenset()
    xattrs: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()
    mtime_before_1970: bool = False

    def hides(self, path: bytes) -> bool:
        """Whether the path, or one above it, is to be left out."""
        return any(path == hidden or path.startswith(hidden + b"/") for hidden in self.paths)


@dataclass(frozen=True)
class _Reading:
    """How a tree is read: its known differences, with content or hashes, and whether what is closed is opened."""

    ignore: Ignore
    contents: bool
    unlock: bool


class _Level(t.NamedTuple):
    """A directory on the way down: its path, its status, and the names still to visit."""

    path: bytes
    status: os.stat_result
    names: list[bytes]


def read_tree(
    top: str | bytes | os.PathLike[str], ignore: Ignore = Ignore(), contents: bool = False, unlock: bool = False
) -> dict[bytes, Node]:
    """Everything below ``top`` by its path, ``top`` itself as ``.``, in order of the paths.

    It goes up and down by one descriptor, so that depth costs neither descriptors nor path length. ``contents`` keeps
    what files hold, and does not hash it. With ``unlock``, an owner who is not root gets the rights to read while it
    is read. Raises ``OSError``.
    """
    reading = _Reading(ignore, contents, unlock and os.geteuid() != 0)
    tree: dict[bytes, Node] = {}
    inodes: dict[bytes, tuple[int, int]] = {}
    top_status = os.stat(top)
    _unlock(reading, top, top_status, None)
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        levels = [_enter(fd, b"", top_status, reading, tree)]
        while levels:
            level = levels[-1]
            if not level.names:
                levels.pop()
                if levels:
                    fd, below = _up(fd, levels[-1].status), level.path.rpartition(b"/")[2]
                    _lock(reading, below, level.status, fd)
                continue
            name = level.names.pop()
            path = level.path + b"/" + name if level.path else name
            if ignore.hides(path):
                continue
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            _unlock(reading, name, status, fd)
            if stat.S_ISDIR(status.st_mode):
                fd = _down(fd, name)
                levels.append(_enter(fd, path, status, reading, tree))
            else:
                tree[path] = _node(fd, name, status, reading)
                inodes[path] = (status.st_dev, status.st_ino)
                _lock(reading, name, status, fd)
        _lock(reading, top, top_status, None)
    finally:
        os.close(fd)
    first: dict[tuple[int, int], bytes] = {}
    for path in sorted(inodes):
        group = first.setdefault(inodes[path], path)
        if tree[path].links > 1:
            tree[path] = replace(tree[path], group=group)
    return {path: tree[path] for path in sorted(tree)}


def compare(a: dict[bytes, Node], b: dict[bytes, Node], ignore: Ignore = Ignore()) -> list[str]:
    """A line for each difference, in order of the paths; none where the trees are equal."""
    lines = []
    for path in sorted({*a, *b}):
        if ignore.hides(path):
            continue
        one, other = a.get(path), b.get(path)
        if one is None or other is None:
            node = one or other
            kind = node.kind if node is not None else ""
            where = "first" if other is None else "second"
            lines.append(f"{_text(path)}: {kind} only in the {where} tree")
            continue
        for name in FIELDS:
            if not _ignored(ignore, path, name, one, other):
                lines += _difference(path, name, one, other, ignore)
    return lines


def manifest(tree: dict[bytes, Node], ignore: Ignore = Ignore()) -> list[str]:
    """One line per path, sorted, with all that ``compare`` looks at and nothing that it ignores."""
    lines = []
    for path, node in tree.items():
        if ignore.hides(path):
            continue
        words = [_text(path)]
        for name in FIELDS:
            if _ignored(ignore, path, name, node, node):
                continue
            if name == "xattrs":
                words += [
                    f"{_text(key.encode())}=0x{value.hex()}" for key, value in node.xattrs if key not in ignore.xattrs
                ]
            elif getattr(node, name) != _UNTOLD.get(name):
                words.append(f"{name}={_value(name, getattr(node, name))}")
        lines.append(" ".join(words))
    return lines


def _names(fd: int) -> list[bytes]:
    return [os.fsencode(name) for name in sorted(os.listdir(fd), reverse=True)]


def _down(fd: int, name: bytes) -> int:
    below = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
    os.close(fd)
    return below


def _up(fd: int, status: os.stat_result) -> int:
    above = os.open("..", _OPEN_DIRECTORY, dir_fd=fd)
    os.close(fd)
    if not os.path.samestat(os.fstat(above), status):
        os.close(above)
        raise OSError("a directory was moved while it was read; let the tree rest")
    return above


def _enter(fd: int, path: bytes, status: os.stat_result, reading: _Reading, tree: dict[bytes, Node]) -> _Level:
    """Note the directory that is open as ``fd``, and what is in it."""
    tree[path or b"."] = _node(fd, b".", status, reading)
    return _Level(path, status, _names(fd))


def _unlock(reading: _Reading, name: str | bytes | os.PathLike[str], status: os.stat_result, above: int | None) -> None:
    """Let the owner read a file, or work in a directory, until ``_lock`` gives it its mode back."""
    if reading.unlock and stat.S_IFMT(status.st_mode) in (stat.S_IFDIR, stat.S_IFREG):
        os.chmod(name, 0o700, dir_fd=above)


def _lock(reading: _Reading, name: str | bytes | os.PathLike[str], status: os.stat_result, above: int | None) -> None:
    if reading.unlock and stat.S_IFMT(status.st_mode) in (stat.S_IFDIR, stat.S_IFREG):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=above)


def _node(above: int, name: bytes, status: os.stat_result, reading: _Reading) -> Node:
    """The node ``name`` of the directory that is open as ``above``."""
    mode = status.st_mode
    is_directory = stat.S_ISDIR(mode)
    is_file = stat.S_ISREG(mode)
    is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    device = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return Node(
        kind=_KINDS.get(stat.S_IFMT(mode), "unknown"),
        mode=stat.S_IMODE(mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns,
        size=status.st_size if is_file or stat.S_ISLNK(mode) else None,
        links=1 if is_directory else status.st_nlink,
        device=device if is_device else "",
        target=os.readlink(name, dir_fd=above) if stat.S_ISLNK(mode) else b"",
        sha256=_hash(above, name) if is_file and not reading.contents and "sha256" not in reading.ignore.fields else "",
        xattrs=_xattrs(above, name),
        content=_content(above, name) if is_file and reading.contents else None,
    )


def _content(above: int, name: bytes) -> bytes:
    with os.fdopen(os.open(name, _OPEN_FILE, dir_fd=above), "rb", buffering=0) as file:
        return file.read()


def _hash(above: int, name: bytes) -> str:
    digest = hashlib.sha256()
    with os.fdopen(os.open(name, _OPEN_FILE, dir_fd=above), "rb", buffering=0) as file:
        while True:
            chunk = file.read(_CHUNK)
            if not chunk:
                return digest.hexdigest()
            digest.update(chunk)


def _xattrs(above: int, name: bytes) -> tuple[tuple[str, bytes], ...]:
    # there are no *at() calls for extended attributes; /proc leads from the descriptor to the name
    path = b"/proc/self/fd/%d/%s" % (above, name)
    try:
        keys = sorted(os.listxattr(path, follow_symlinks=False))
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return ()
    return tuple((key, os.getxattr(path, key, follow_symlinks=False)) for key in keys)


def _ignored(ignore: Ignore, path: bytes, name: str, one: Node, other: Node) -> bool:
    if name in ignore.fields:
        return True
    if name != "mtime":
        return False
    early = ignore.mtime_before_1970 and min(one.mtime, other.mtime) < 0
    return early or path in ignore.mtimes


def _difference(path: bytes, name: str, one: Node, other: Node, ignore: Ignore) -> list[str]:
    if name != "xattrs":
        a, b = getattr(one, name), getattr(other, name)
        if a == b:
            return []
        return [f"{_text(path)}: {name} {_value(name, a)} is {_value(name, b)}"]
    first, second = dict(one.xattrs), dict(other.xattrs)
    lines = []
    for key in sorted({*first, *second} - ignore.xattrs):
        if first.get(key) != second.get(key):
            words = ["absent" if value is None else f"0x{value.hex()}" for value in (first.get(key), second.get(key))]
            lines.append(f"{_text(path)}: xattr {_text(key.encode())} {words[0]} is {words[1]}")
    return lines


def _value(name: str, value: t.Any) -> str:
    if name == "mode":
        return f"{value:04o}"
    if name == "mtime":
        seconds, fraction = divmod(abs(value), 10**9)
        return f"{'-' if value < 0 else ''}{seconds}.{fraction:09d}"
    if isinstance(value, bytes):
        return _text(value)
    return str(value)


def _text(name: bytes) -> str:
    """A name as one printable word that stands for exactly these bytes."""
    text = name.decode("utf-8", "backslashreplace") if b"\\" not in name else ""
    if text and text.isprintable() and not set(text) & set(" \\="):
        return text
    return "".join(chr(byte) if 0x20 < byte < 0x7F and byte not in b"\\=" else f"\\x{byte:02x}" for byte in name)


def _path(text: str) -> bytes:
    """A path from the command line as the tree has it."""
    parts = [part for part in os.fsencode(text).split(b"/") if part not in (b"", b".")]
    return b"/".join(parts) or b"."


def _parse(arguments: t.Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare two trees in every mode, owner, size, time, device number, link, xattr and content."
    )
    parser.add_argument("trees", nargs="+", metavar="TREE", help="two directories")
    parser.add_argument(
        "--manifest", action="store_true", help="print one sorted line per path of the one TREE instead"
    )
    parser.add_argument(
        "--limit", type=int, default=50, metavar="N", help="print the first N differences (default: %(default)s)"
    )
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="PATH",
        help="leave out PATH, relative to the trees, and all below it; may be repeated",
    )
    parser.add_argument(
        "--ignore-mtime",
        action="append",
        default=[],
        metavar="PATH",
        help="do not look at the time of PATH; may be repeated",
    )
    parser.add_argument(
        "--ignore-mtime-before-1970", action="store_true", help="do not look at times that are negative in either tree"
    )
    parser.add_argument(
        "--ignore-xattr",
        action="append",
        default=[],
        metavar="NAME",
        help="do not look at the extended attribute NAME; may be repeated",
    )
    parser.add_argument(
        "--ignore-field",
        action="append",
        default=[],
        choices=FIELDS,
        metavar="FIELD",
        help=f"do not look at FIELD, one of {', '.join(FIELDS)}; may be repeated",
    )
    options = parser.parse_args(arguments)
    wanted = 1 if options.manifest else 2
    if len(options.trees) != wanted:
        parser.error(f"{wanted} TREE wanted, {len(options.trees)} given")
    return options


def main(arguments: t.Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 equal, 1 different, 2 not to be read."""
    options = _parse(arguments)
    ignore = Ignore(
        paths=frozenset(map(_path, options.ignore)),
        mtimes=frozenset(map(_path, options.ignore_mtime)),
        xattrs=frozenset(options.ignore_xattr),
        fields=frozenset(options.ignore_field),
        mtime_before_1970=options.ignore_mtime_before_1970,
    )
    try:
        trees = [read_tree(tree, ignore) for tree in options.trees]
    except OSError as error:
        print(f"cannot read: {error}", file=sys.stderr)
        return 2
    if options.manifest:
        print("\n".join(manifest(trees[0], ignore)))
        return 0
    lines = compare(trees[0], trees[1], ignore)
    for line in lines[: options.limit]:
        print(line)
    if len(lines) > options.limit:
        print(f"and {len(lines) - options.limit} more differences")
    if not lines:
        print(f"equal: {len(trees[0])} paths")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
