# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entries and whiteouts, applied (docs/behaviour.md, sections 4 and 5)."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import stat
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import EntryError, LayerError
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs import root
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.apply import split_name
from ansible_collections.hypervisor.oci.tests.images.builder import (
    block,
    char,
    directory,
    entry,
    fifo,
    file,
    hardlink,
    opaque,
    sparse,
    symlink,
    whiteout,
)
from ansible_collections.hypervisor.oci.tests.unit.support import (
    Members,
    Node,
    allocated,
    contents,
    names,
    needs_root,
    needs_user,
    owned,
    tree,
    unpack,
)

SECOND = 10**9
ADVICE = "do not use this image, or build it without"


def refused(top: Path, *layers: Members, **options: t.Any) -> str:
    """The one sentence that a wrong layer gives; the last layer is the wrong one."""
    with pytest.raises(LayerError) as caught:
        unpack(top, *layers, **options)
    message = caught.value.message
    prefix = f"layer sha256:layer{len(layers) - 1}, entry "
    assert message.startswith(prefix)
    assert "\n" not in message
    return message[len(prefix) :]


def make_nodes_or_skip(top: Path, *numbers: tuple[int, int]) -> None:
    """Skip where this machine refuses device nodes, as containers and overlayfs do."""
    for major, minor in numbers:
        try:
            os.mknod(top / "probe", stat.S_IFCHR | 0o600, os.makedev(major, minor))
        except OSError as error:
            pytest.skip(f"no character device {major}:{minor} here: {error}")
        os.unlink(top / "probe")


# -- names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("..", "its name has a '..' component"),
        ("../x", "its name has a '..' component"),
        ("a/../b", "its name has a '..' component"),
        ("/../x", "its name has a '..' component"),
        ("a/..", "its name has a '..' component"),
        ("./a/./..//b", "its name has a '..' component"),
        ("a/" + "n" * 256, "its name has a component of over 255 bytes"),
        ("n" * 256 + "/a", "its name has a component of over 255 bytes"),
        ("ö" * 128, "its name has a component of over 255 bytes"),
    ],
)
@pytest.mark.parametrize(
    "make", [file, directory, fifo, lambda name: symlink(name, "x")], ids=["file", "directory", "fifo", "symlink"]
)
def test_wrong_names(tmp_path: Path, make: t.Any, name: str, message: str) -> None:
    """Section 4, first row."""
    top = tmp_path / "top"
    text = refused(top, [make(name)])
    assert text.endswith(f": {message}; {ADVICE}")
    assert names(top) == []
    assert names(tmp_path) == ["top"]


def test_an_empty_name(tmp_path: Path) -> None:
    assert refused(tmp_path, [file("")]) == f"'': its name is empty; {ADVICE}"


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("/a", "a"),
        ("///a", "a"),
        ("./a", "a"),
        ("././a", "a"),
        ("a//b", "a/b"),
        ("a/./b", "a/b"),
        ("/./a/.//b/.", "a/b"),
        ("a/", "a"),
        ("a//", "a"),
        ("...", "..."),
        ("..a/b..", "..a/b.."),
        ("a b\nc", "a b\nc"),
        ("größe", "größe"),
        ("n" * 255, "n" * 255),
        ("-", "-"),
    ],
)
def test_names_are_cleaned(tmp_path: Path, name: str, cleaned: str) -> None:
    """Section 4: absolute names, ``./``, doubled and trailing slashes."""
    unpack(tmp_path, [file(name, b"x")])
    assert contents(tmp_path)[cleaned] == b"x"
    *above, last = cleaned.encode().split(b"/")
    assert split_name(name.encode()) == (tuple(above), last)


def test_names_that_are_no_utf_8_stay_as_they_are(tmp_path: Path) -> None:
    unpack(tmp_path, [file(b"d\xff/f\xfe", b"x"), symlink(b"l", b"\xff/\xfe")])
    assert os.listdir(os.fsencode(tmp_path) + b"/d\xff") == [b"f\xfe"]
    assert os.readlink(os.fsencode(tmp_path) + b"/l") == b"\xff/\xfe"


@pytest.mark.parametrize("name", [".", "./", "/", "//", "/./", "././/"])
def test_the_root_itself_as_a_directory(tmp_path: Path, name: str) -> None:
    """Section 4: sets the root's own metadata."""
    top = tmp_path / "top"
    unpack(top, [directory(name, 0o1751, uid=7, gid=8, mtime=9), file("f")])
    node = tree(top)["."]
    assert (node.mode, node.uid, node.gid) == (0o1751, *owned(7, 8))
    assert node.mtime == 9 * SECOND


@pytest.mark.parametrize(
    "member",
    [file("."), file("/", b"x"), symlink("./", "/etc"), hardlink(".", "f"), fifo("/"), char(".", 1, 3)],
    ids=["file", "file /", "symlink", "hardlink", "fifo", "device"],
)
def test_the_root_as_anything_else(tmp_path: Path, member: t.Any) -> None:
    """Section 4: CVE-2021-29136."""
    text = refused(tmp_path / "top", [file("f"), member])
    assert text.endswith(f": the root itself must be a directory; {ADVICE}")
    assert (tmp_path / "top").is_dir()
    assert not (tmp_path / "top").is_symlink()


def test_a_root_that_no_entry_speaks_of(tmp_path: Path) -> None:
    """Section 4: as any missing parent."""
    unpack(tmp_path / "top", [file("f")], umask=0o077)
    node = tree(tmp_path / "top")["."]
    assert (node.mode, node.uid, node.gid, node.mtime) == (0o755, *owned(0, 0), 0)


# -- parents


def test_missing_parents(tmp_path: Path) -> None:
    """Section 4: 0755, root's, time 0."""
    unpack(tmp_path, [file("a/b/f", uid=5, gid=5, mtime=7), fifo("c/p")], umask=0o077)
    found = tree(tmp_path)
    for name in ("a", "a/b", "c"):
        node = found[name]
        assert (node.type, node.mode, node.mtime) == ("directory", 0o755, 0)
        assert (node.uid, node.gid) == owned(0, 0)
    assert found["a/b/f"].mtime == 7 * SECOND


@needs_root
def test_missing_parents_belong_to_the_mapped_root(tmp_path: Path) -> None:
    unpack(tmp_path, [file("a/f")], uids=[(0, 100000, 10)], gids=[(0, 200000, 10)])
    node = tree(tmp_path)["a"]
    assert (node.uid, node.gid) == (100000, 200000)


def test_missing_parents_until_an_entry_says_otherwise(tmp_path: Path) -> None:
    """Section 4: in the same layer or in a later one."""
    own = directory("a", 0o750, uid=3, gid=4, mtime=8)
    for number, layers in enumerate(([[file("a/f"), own]], [[file("a/f")], [own]], [[own, file("a/f")]])):
        top = tmp_path / str(number)
        unpack(top, *layers)
        node = tree(top)["a"]
        assert (node.mode, node.mtime) == (0o750, 8 * SECOND)
        assert (node.uid, node.gid) == owned(3, 4)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("usr", "usr"),
        ("/usr", "usr"),
        ("./usr/.", "usr"),
        ("/usr/../usr//lib", "usr/lib"),
        ("../../../../usr/lib", "usr/lib"),
        ("/../../usr", "usr"),
        ("second", "usr"),
    ],
)
def test_a_parent_that_is_a_link_to_a_directory(tmp_path: Path, link: str, target: str) -> None:
    """Section 4: followed inside the root; ``..`` in it stops there."""
    unpack(
        tmp_path,
        [
            directory("usr/lib"),
            symlink("second", "/usr"),
            symlink("first", link),
            file("first/f", b"x"),
            file("first/new/g", b"y"),
        ],
    )
    found = contents(tmp_path)
    assert found[target + "/f"] == b"x"
    assert found[target + "/new/g"] == b"y"
    assert found["first"] == link.encode()


@pytest.mark.parametrize("link", ["../outside", "{outside}", "../../../../../../../../..{outside}"])
@pytest.mark.parametrize("layers", [1, 2])
def test_no_lookup_leaves_the_root(tmp_path: Path, link: str, layers: int) -> None:
    """Section 4: what lies outside is neither seen nor touched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    before = tree(outside)
    top = tmp_path / "top"
    text = link.format(outside=outside)
    members = [
        symlink("out", text),
        file("out/secret", b"mine"),
        file("out/deep/f", b"f"),
        whiteout("out/deeper"),
        opaque("out"),
        hardlink("link", "out/secret"),
        directory("out/deep", 0o700),
    ]
    unpack(top, *([members] if layers == 1 else [members[:1], members[1:]]))
    assert tree(outside) == before
    found = contents(top)
    assert found["link"] == b"mine"
    assert [name for name in found if name.endswith("outside/deep/f")]


@pytest.mark.parametrize(
    ("link", "made"),
    [
        ("not/there", "not/there"),
        ("/not/there", "not/there"),
        ("../../not/there", "not/there"),
        ("..", ""),
        ("not/../there", "there"),
        ("dangling", "nowhere"),
    ],
)
def test_a_parent_that_is_a_link_to_nothing(tmp_path: Path, link: str, made: str) -> None:
    """Section 4: the directories that it names are made, inside the root."""
    unpack(tmp_path, [symlink("dangling", "/nowhere"), symlink("d", link), file("d/f", b"x")])
    assert contents(tmp_path)[os.path.join(made, "f")] == b"x"
    if made:
        node = tree(tmp_path)[made]
        assert (node.type, node.mode, node.mtime) == ("directory", 0o755, 0)


LOOPS: list[t.Any] = [
    [symlink("a", "a")],
    [symlink("a", "b"), symlink("b", "a")],
    [symlink("a", "a/x")],
    [symlink("a", "/b/c"), symlink("b", "a")],
]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    "member",
    [file("a/f"), directory("a/d"), hardlink("h", "a/f"), whiteout("a/f"), opaque("a")],
    ids=["file", "directory", "hardlink", "whiteout", "opaque"],
)
def test_a_parent_in_a_loop_of_links(tmp_path: Path, loop: Members, member: t.Any) -> None:
    """Section 4: an error."""
    text = refused(tmp_path, [*loop, file("other"), member])
    assert ": its path leads through a loop of symbolic links; " in text


def test_forty_links_are_no_loop(tmp_path: Path) -> None:
    """Section 4: more than 40 are."""
    chain = [symlink(f"l{number}", f"l{number + 1}") for number in range(1, 41)]
    members = [directory("l41"), *chain]
    unpack(tmp_path / "good", [*members, file("l1/f", b"x")])
    assert contents(tmp_path / "good")["l41/f"] == b"x"
    text = refused(tmp_path / "bad", [symlink("l0", "l1"), *members, file("l0/f")])
    assert "loop of symbolic links" in text


@pytest.mark.parametrize(
    "old",
    [file("a", b"old"), fifo("a"), symlink("a", "file"), symlink("a", "file/below")],
    ids=["file", "fifo", "link to a file", "link below a file"],
)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_parent_that_is_no_directory_is_replaced(tmp_path: Path, old: t.Any, layers: int) -> None:
    """Section 4: by a directory."""
    first = [file("file", b"file"), old]
    second = [file("a/b/f", b"x")]
    unpack(tmp_path, *([first + second] if layers == 1 else [first, second]))
    found = contents(tmp_path)
    assert b"x" in (found.get("a/b/f"), found.get("file/b/f"), found.get("file/below/b/f"))
    assert (tmp_path / "a" / "b" / "f").read_bytes() == b"x"


def test_implied_directories_count_as_entries(tmp_path: Path) -> None:
    """Section 7, limits: names and links cannot make more of them than ``max_entries``."""
    unpack(tmp_path / "good", [file("a/b/c/f")], max_entries=4)
    with pytest.raises(LayerError) as caught:
        unpack(tmp_path / "bad", [file("a/b/c/f")], max_entries=3)
    assert "the image's layers hold more than 3 entries" in caught.value.message
    assert "raise max_entries" in caught.value.message


# -- something where something is: every new kind over every old one

OLD: dict[str, t.Callable[[], Members]] = {
    "nothing": list,
    "file": lambda: [file("x", b"old")],
    "empty directory": lambda: [directory("x")],
    "directory": lambda: [file("x/below", b"old"), file("x/deep/er/f"), fifo("x/p")],
    "link to a file": lambda: [symlink("x", "keep")],
    "link to a directory": lambda: [symlink("x", "kept")],
    "link to nothing": lambda: [symlink("x", "nowhere")],
    "link to itself": lambda: [symlink("x", "x")],
    "fifo": lambda: [fifo("x")],
    "hard link": lambda: [hardlink("x", "keep")],
}
NEW: dict[str, t.Callable[[], Members]] = {
    "file": lambda: [file("x", b"new", 0o640, mtime=5)],
    "sparse file": lambda: [sparse("x", [(0, b"new")], 3, mode=0o640, mtime=5)],
    "link": lambda: [symlink("x", "text", mtime=5)],
    "hard link": lambda: [hardlink("x", "keep")],
    "fifo": lambda: [fifo("x", 0o640, mtime=5)],
    "directory": lambda: [directory("x", 0o750, mtime=5)],
}


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("new", NEW)
def test_new_over_old(tmp_path: Path, new: str, old: str, layers: int) -> None:
    """Section 4: what is there goes first and is never written through.

    In two layers, or twice in one: the last one counts.
    """
    kept = [file("keep", b"kept", 0o600, mtime=3), file("kept/f", b"f")]
    unpack(tmp_path, *_in_layers(layers, [*kept, *OLD[old]()], NEW[new]()))
    found = tree(tmp_path)
    node = found.pop("x")
    keep = found.pop("keep")
    if new == "directory" and old == "directory":
        assert found.pop("x/below").content == b"old"
        assert sorted(found) == [
            ".", "kept", "kept/f", "x/deep", "x/deep/er", "x/deep/er/f", "x/p",
        ]  # fmt: skip
    else:
        assert sorted(found) == [".", "kept", "kept/f"]
    if new == "hard link":
        assert node == keep
        assert keep.links == 2
    else:
        mode = {"link": 0o777, "directory": 0o750}.get(new, 0o640)
        content = {"file": b"new", "sparse file": b"new", "link": b"text"}.get(new)
        kind = {"sparse file": "file"}.get(new, new)
        assert (node.type, node.mode, node.content) == (kind, mode, content)
        assert node.mtime == 5 * SECOND
        assert keep.links == 1
    assert (keep.mode, keep.mtime, keep.content) == (0o600, 3 * SECOND, b"kept")
    assert found["kept/f"].content == b"f"


def _in_layers(number: int, first: Members, second: Members) -> list[Members]:
    return [[*first, *second]] if number == 1 else [first, second]


def test_a_file_is_never_written_through_to_another_link(tmp_path: Path) -> None:
    """Section 4: the other hard link keeps its content."""
    unpack(tmp_path, [file("a", b"first"), hardlink("b", "a")], [file("b", b"second")])
    assert contents(tmp_path) == {"a": b"first", "b": b"second"}


def test_a_directory_where_a_directory_is(tmp_path: Path) -> None:
    """Section 4: kept, with the entry's metadata; one that is passed through keeps its own."""
    unpack(
        tmp_path,
        [directory("d", 0o700, uid=1, gid=1, mtime=1), file("d/f", b"x")],
        [directory("d", 0o1777, uid=2, gid=3, mtime=4)],
        [file("d/g")],
    )
    node = tree(tmp_path)["d"]
    assert (node.mode, node.mtime) == (0o1777, 4 * SECOND)
    assert (node.uid, node.gid) == owned(2, 3)
    assert names(tmp_path) == ["d", "d/f", "d/g"]


# -- a directory where a link is


def test_a_directory_replaces_a_link_to_a_directory(tmp_path: Path) -> None:
    """Section 4."""
    unpack(
        tmp_path,
        [directory("usr/lib", 0o711, mtime=1), symlink("lib", "usr/lib")],
        [directory("lib", 0o750, mtime=2), file("lib/f", b"x")],
    )
    found = tree(tmp_path)
    assert (found["lib"].type, found["lib"].mode) == ("directory", 0o750)
    assert (found["usr/lib"].mode, found["usr/lib"].mtime) == (0o711, SECOND)
    assert found["lib/f"].content == b"x"


@pytest.mark.parametrize("link", ["usr/lib", "/usr/lib", "../usr/lib", "other"])
@pytest.mark.parametrize("layers", [1, 2])
def test_keep_dirlinks(tmp_path: Path, link: str, layers: int) -> None:
    """Section 4: keeps the link, and gives its metadata to the directory behind it."""
    first = [directory("usr/lib", 0o711, mtime=1), symlink("other", "usr/lib"), symlink("lib", link, mtime=9)]
    second = [directory("lib", 0o750, mtime=2), file("lib/f", b"x")]
    unpack(tmp_path, *_in_layers(layers, first, second), keep_dirlinks=True)
    found = tree(tmp_path)
    assert (found["lib"].content, found["lib"].mtime) == (link.encode(), 9 * SECOND)
    assert (found["usr/lib"].mode, found["usr/lib"].mtime) == (0o750, 2 * SECOND)
    assert found["usr/lib/f"].content == b"x"


@pytest.mark.parametrize("link", ["nowhere", "file", "lib", "file/lib"])
def test_keep_dirlinks_keeps_no_other_links(tmp_path: Path, link: str) -> None:
    """Section 4: a directory where anything else is replaces it."""
    unpack(tmp_path, [file("file", b"x"), symlink("lib", link)], [directory("lib", 0o750)], keep_dirlinks=True)
    assert tree(tmp_path)["lib"].type == "directory"
    assert contents(tmp_path)["file"] == b"x"


def test_keep_dirlinks_of_a_link_to_the_root(tmp_path: Path) -> None:
    unpack(
        tmp_path,
        [symlink("d/self", "/")],
        [directory("d/self", 0o750, mtime=3), file("d/self/f", b"x")],
        keep_dirlinks=True,
    )
    found = tree(tmp_path)
    assert (found["."].mode, found["."].mtime) == (0o750, 3 * SECOND)
    assert found["f"].content == b"x"


# -- links


@pytest.mark.parametrize(
    "text", ["/etc/passwd", "../../../../etc/passwd", "a//b/./c/", "..", "/", " ", "größe\n", "x" * 4000]
)
def test_a_symlink_says_what_the_archive_says(tmp_path: Path, text: str) -> None:
    """Section 4: its text is stored as it is, and nothing behind it is touched."""
    unpack(tmp_path, [symlink("s", text, uid=5, gid=6, mtime="7.5")])
    node = tree(tmp_path)["s"]
    assert (node.type, node.content) == ("link", text.encode())
    assert (node.uid, node.gid) == owned(5, 6)
    assert node.mtime == 7_500_000_000


def test_a_symlink_that_says_nothing(tmp_path: Path) -> None:
    text = refused(tmp_path, [symlink("s", "")])
    assert text == f"'s': the target of the symbolic link is empty; {ADVICE}"


def test_a_symlink_that_is_longer_than_the_system_takes(tmp_path: Path) -> None:
    text = refused(tmp_path, [symlink("s", "x" * 5000)])
    assert text.startswith("'s': cannot be written: file name too long")


@pytest.mark.parametrize("target", ["d/f", "/d/f", "./d//f", "link/f", "d/../d/f", "/../d/f"])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_hard_link(tmp_path: Path, target: str, layers: int) -> None:
    """Section 4: the target keeps its own metadata, its parent is resolved in the root."""
    first = [file("d/f", b"x", 0o640, uid=1, gid=2, mtime=3), symlink("link", "/d")]
    second = [hardlink("e/h", target, 0o777, uid=9, gid=9, mtime=9)]
    unpack(tmp_path, *_in_layers(layers, first, second))
    found = tree(tmp_path)
    assert found["e/h"] == found["d/f"]
    node = found["e/h"]
    assert (node.mode, node.mtime, node.links) == (0o640, 3 * SECOND, 2)
    assert (node.uid, node.gid) == owned(1, 2)
    assert os.path.samefile(tmp_path / "e/h", tmp_path / "d/f")


def test_a_hard_link_to_a_symlink_links_the_symlink(tmp_path: Path) -> None:
    """Section 4: the target itself is not followed."""
    unpack(
        tmp_path,
        [
            file("f", b"x"),
            symlink("s", "f"),
            symlink("dangling", "/nowhere"),
            hardlink("h", "s"),
            hardlink("i", "dangling"),
        ],
    )
    found = tree(tmp_path)
    assert (found["h"].type, found["h"].content) == ("link", b"f")
    assert (found["i"].type, found["i"].content) == ("link", b"/nowhere")
    assert found["f"].links == 1


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("nothing", "'nothing', which does not exist"),
        ("no/thing", "'no/thing', which does not exist"),
        ("f/below", "'f/below', which does not exist"),
        ("n" * 300, "which does not exist"),
        ("d", "'d', which is a directory"),
        ("d/", "'d/', which is a directory"),
        ("", "'', which is a directory"),
        ("/", "'/', which is a directory"),
        (".", "'.', which is a directory"),
        ("d/..", "'d/..', which is a directory"),
        ("h", "itself"),
        ("/./h", "itself"),
        ("self/h", "itself"),
    ],
)
def test_wrong_hard_links(tmp_path: Path, target: str, what: str) -> None:
    """Section 4: a target that is missing, a directory, or the entry itself."""
    text = refused(tmp_path, [file("f"), directory("d"), symlink("self", "/"), hardlink("h", target)])
    assert text.startswith("'h': it is a hard link to ")
    assert text.endswith(f"{what}; {ADVICE}")


def test_a_hard_link_to_what_it_replaces_the_folder_of(tmp_path: Path) -> None:
    text = refused(tmp_path, [file("d/f"), hardlink("d", "d/f")])
    assert text == f"'d': it is a hard link to 'd/f', which does not exist; {ADVICE}"


# -- devices

SAFE = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)]


@needs_root
@pytest.mark.parametrize("choice", ["safe", "create"])
def test_devices_that_give_nobody_anything(tmp_path: Path, choice: str) -> None:
    """Section 4, devices."""
    make_nodes_or_skip(tmp_path, *SAFE)
    top = tmp_path / "top"
    report = unpack(top, [char(f"c{a}-{b}", a, b, 0o620, uid=1, gid=5, mtime=7) for a, b in SAFE], devices=choice)
    found = tree(top)
    for a, b in SAFE:
        assert found[f"c{a}-{b}"] == Node("char", 0o620, 1, 5, 7 * SECOND, (a, b), {}, 1)
    assert report.to_dict()["counts"] == {"devices_created": len(SAFE)}


@needs_root
def test_overlayfs_own_mark_is_data(tmp_path: Path) -> None:
    """Sections 4 and 5: a 0:0 device is no whiteout."""
    make_nodes_or_skip(tmp_path, (0, 0))
    top = tmp_path / "top"
    report = unpack(top, [file("f", b"x")], [char("g", 0, 0), char("f", 0, 0)])
    assert contents(top) == {"f": (0, 0), "g": (0, 0)}
    assert report.to_dict()["counts"] == {"devices_created": 2}
    assert report.whiteouts == 0


@needs_root
@pytest.mark.parametrize(
    ("member", "number"),
    [
        (char("x", 10, 232), (10, 232)),
        (char("x", 1, 1), (1, 1)),
        (char("x", 5, 3), (5, 3)),
        (block("x", 1, 3), (1, 3)),
        (block("x", 8, 0), (8, 0)),
        (block("x", 259, 70000), (259, 70000)),
    ],
)
@pytest.mark.parametrize("choice", ["safe", "create", "skip", "fail"])
def test_devices_that_are_something(tmp_path: Path, member: t.Any, number: tuple[int, int], choice: str) -> None:
    """Section 4: a disk's node in a readable tree is the disk."""
    make_nodes_or_skip(tmp_path, (10, 232))
    top = tmp_path / "top"
    if choice == "fail":
        assert refused(top, [member], devices=choice) == (
            "'x': it is a device, and devices are set to fail; set devices to safe, create or skip"
        )
        return
    report = unpack(top, [member], devices=choice)
    if choice == "create":
        assert contents(top) == {"x": number}
        assert report.to_dict()["counts"] == {"devices_created": 1}
    else:
        assert contents(top) == {}
        assert report.to_dict()["counts"] == {"devices_skipped": 1}


@pytest.mark.parametrize("choice", ["skip", "fail"])
def test_safe_devices_that_are_not_wanted(tmp_path: Path, choice: str) -> None:
    members = [char("null", 1, 3)]
    if choice == "fail":
        assert "it is a device" in refused(tmp_path, members, devices=choice)
    else:
        report = unpack(tmp_path, members, devices=choice)
        assert report.to_dict()["counts"] == {"devices_skipped": 1}
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "old",
    [[file("x", b"old")], [file("x/below", b"old")], [symlink("x", "keep")], [symlink("x", "kept")], []],
    ids=["file", "directory", "link", "link to a directory", "nothing"],
)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_skipped_device_hides_what_is_there(tmp_path: Path, old: Members, layers: int) -> None:
    """Section 4."""
    first = [file("keep", b"k"), file("kept/f", b"f"), *old]
    unpack(tmp_path, *_in_layers(layers, first, [block("x", 8, 0)]), devices="skip")
    assert contents(tmp_path) == {"keep": b"k", "kept": None, "kept/f": b"f"}


def test_a_skipped_device_makes_no_folders(tmp_path: Path) -> None:
    unpack(tmp_path, [char("dev/null", 1, 3)], devices="skip")
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [(2**40, 0), (0, 2**40)])
def test_device_numbers_that_are_none(tmp_path: Path, number: tuple[int, int]) -> None:
    member = char("x", 0, 0, dialect="gnu", fields={"devmajor": number[0], "devminor": number[1]})
    text = refused(tmp_path, [member], devices="create")
    assert text.startswith("'x': its device number is too large; ")


@pytest.mark.parametrize(("uid", "gid", "mode"), [(0, 0, 0o600), (5, 6, 0o1666), (0, 0, 0)])
def test_a_fifo_is_made(tmp_path: Path, uid: int, gid: int, mode: int) -> None:
    """Section 4; nothing waits for its other end."""
    unpack(tmp_path, [fifo("p", mode, uid=uid, gid=gid, mtime="3.000000001")])
    expected = Node("fifo", mode, *owned(uid, gid), 3_000_000_001, None, {}, 1)
    assert tree(tmp_path)["p"] == expected


# -- metadata


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o644, 0o777, 0o1755])
def test_the_umask_plays_no_part(tmp_path: Path, umask: int, mode: int) -> None:
    """Section 4. (The verb sets it to 0 for nodes; the rest does not depend on that.)"""
    top = tmp_path / "top"
    top.mkdir(0o700)
    unpack(top, [file("f", mode=mode), directory("d", mode), fifo("p", mode)], umask=umask & 0o077)
    found = tree(top)
    assert {name: found[name].mode for name in ("f", "d", "p")} == dict.fromkeys(("f", "d", "p"), mode)


@needs_root
def test_setid_bits_survive_the_change_of_owner(tmp_path: Path) -> None:
    """Section 4: owner first, then mode."""
    report = unpack(
        tmp_path,
        [
            file("u", b"x", 0o4755, uid=1, gid=1),
            file("g", b"x", 0o2755, uid=1, gid=1),
            file("plain", b"x", 0o755),
            directory("d", 0o2770, gid=9),
        ],
    )
    found = tree(tmp_path)
    assert [found[name].mode for name in "ugd"] == [0o4755, 0o2755, 0o2770]
    assert report.counted("setid_files") == 2


@pytest.mark.parametrize("mtime", ["0", "-1.5", "1.000000001", "1700000000.123456789", "4294967296.5"])
def test_times_in_nanoseconds(tmp_path: Path, mtime: str) -> None:
    """Section 4; negative times are fine (section 3)."""
    unpack(
        tmp_path,
        [
            directory("d", mtime=mtime),
            file("d/f", b"x", mtime=mtime),
            symlink("d/s", "x", mtime=mtime),
            fifo("d/p", mtime=mtime),
        ],
    )
    seconds, _dot, fraction = mtime.partition(".")
    nanoseconds = int(fraction.ljust(9, "0") or 0)
    expected = int(seconds) * SECOND + (-nanoseconds if mtime.startswith("-") else nanoseconds)
    found = tree(tmp_path)
    assert {found[name].mtime for name in ("d", "d/f", "d/s", "d/p")} == {expected}


def test_owners_are_numbers_never_names(tmp_path: Path) -> None:
    """Section 4."""
    unpack(tmp_path, [file("f", uid=12345, gid=54321, uname="root", gname="root")])
    node = tree(tmp_path)["f"]
    assert (node.uid, node.gid) == owned(12345, 54321)


def test_a_read_only_directory_receives_its_children(tmp_path: Path) -> None:
    """Section 4: in the same layer, and from later ones."""
    unpack(
        tmp_path,
        [directory("d", 0o555, mtime=1), directory("d/e", 0o000, mtime=2), file("d/e/f", b"f")],
        [file("d/e/g", b"g"), whiteout("d/e/f"), file("d/new", b"n")],
    )
    found = tree(tmp_path)
    assert (found["d"].mode, found["d"].mtime) == (0o555, SECOND)
    assert (found["d/e"].mode, found["d/e"].mtime) == (0o000, 2 * SECOND)
    assert sorted(found) == [".", "d", "d/e", "d/e/g", "d/new"]


def test_directories_are_closed_until_the_end(tmp_path: Path) -> None:
    """Section 4: until then they are 0700, whatever the entries and the umask say."""
    top = tmp_path / "top"
    members = [directory(".", 0o777), directory("d", 0o777), file("d/e/f")]
    with pytest.raises(LayerError):
        unpack(top, members, [file("..")])
    for name in (".", "d", "d/e"):
        assert stat.S_IMODE(os.stat(top / name).st_mode) == 0o700


def test_a_directory_passed_through_keeps_its_time(tmp_path: Path) -> None:
    """Section 4."""
    unpack(
        tmp_path,
        [directory(".", mtime=4), directory("d", mtime="5.5"), directory("d/e", mtime=6)],
        [file("d/e/f"), file("d/e/deep/g"), symlink("s", "d")],
        [file("s/h"), whiteout("d/e/f")],
    )
    found = tree(tmp_path)
    assert found["."].mtime == 4 * SECOND
    assert found["d"].mtime == 5_500_000_000
    assert found["d/e"].mtime == 6 * SECOND


# -- what a report says


def test_counts(tmp_path: Path) -> None:
    """Section 8, report."""
    report = unpack(
        tmp_path,
        [directory("d"), file("d/f", b"12345"), sparse("d/s", [(512, b"x" * 512)], 4096)],
        [whiteout("d/f"), symlink("l", "d"), file("g", b"1")],
    )
    assert (report.entries, report.files, report.bytes) == (6, 3, 518)
    assert (report.whiteouts, report.to_dict()["counts"]) == (1, {})


# -- sparse files


@pytest.mark.parametrize("form", ["old-gnu", "pax-0.0", "pax-0.1", "pax-1.0"])
@pytest.mark.parametrize(
    ("regions", "length"),
    [
        ([(0, b"begin"), (1024 * 1024, b"m" * 4096), (8 * 1024 * 1024 - 3, b"end")], 8 * 1024 * 1024),
        ([], 1024 * 1024),
        ([], 0),
        ([(0, b"all of it")], 9),
        ([(number * 65536, b"%5d" % number) for number in range(64)], 64 * 65536),
    ],
    ids=["three", "hole", "empty", "whole", "many"],
)
def test_sparse_files_keep_their_holes(tmp_path: Path, form: t.Any, regions: t.Any, length: int) -> None:
    """Section 3: in all four forms."""
    expected = bytearray(length)
    for offset, data in regions:
        expected[offset : offset + len(data)] = data
    report = unpack(tmp_path, [sparse("d/s", regions, length, form, 0o640, mtime=7), file("next", b"!")], chunk=1000)
    node = tree(tmp_path)["d/s"]
    assert node.content == bytes(expected)
    assert (node.mode, node.mtime) == (0o640, 7 * SECOND)
    assert report.bytes == 1 + sum(len(data) for _offset, data in regions)
    holed = tmp_path / "holed"
    with open(holed, "wb") as probe:
        probe.truncate(8 * 1024 * 1024)
    if length >= 1024 * 1024 and not allocated(holed):
        # a block of 64 KiB for each region is more than any file system takes
        assert allocated(tmp_path / "d/s") <= 65536 * len(regions)


# -- whiteouts

LOWER: Members = [
    directory("d", 0o750, mtime=1),
    file("d/a", b"a"),
    file("d/b", b"b"),
    file("d/sub/deep/c", b"c"),
    symlink("d/link", "../keep"),
    symlink("d/dirlink", "../kept"),
    file("keep", b"k"),
    file("kept/f", b"f"),
]
ALL = [
    "d", "d/a", "d/b", "d/dirlink", "d/link", "d/sub", "d/sub/deep", "d/sub/deep/c",
    "keep", "kept", "kept/f",
]  # fmt: skip


@pytest.mark.parametrize(
    ("hidden", "gone"),
    [
        ("d/a", ["d/a"]),
        ("d/sub", ["d/sub", "d/sub/deep", "d/sub/deep/c"]),
        ("d/sub/deep/c", ["d/sub/deep/c"]),
        ("d/link", ["d/link"]),
        ("d/dirlink", ["d/dirlink"]),
        ("d/dirlink/f", ["kept/f"]),
        ("/./d//a", ["d/a"]),
        ("kept", ["kept", "kept/f"]),
    ],
)
def test_a_whiteout_hides_what_lower_layers_have(tmp_path: Path, hidden: str, gone: list[str]) -> None:
    """Section 5: the parent is resolved, what is removed is never followed."""
    report = unpack(tmp_path, LOWER, [whiteout(hidden)])
    assert names(tmp_path) == [name for name in ALL if name not in gone]
    assert report.whiteouts == 1
    assert report.to_dict()["counts"] == {}
    if not gone[0].startswith("kept"):
        assert tree(tmp_path)["d"].mtime == SECOND


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ("d", ["d", "keep", "kept", "kept/f"]),
        ("d/sub", [name for name in ALL if not name.startswith("d/sub/")]),
        ("d/dirlink", [name for name in ALL if name != "kept/f"]),
        ("", []),
        (".", []),
        ("/", []),
    ],
)
def test_an_opaque_mark_hides_all_of_its_directory(tmp_path: Path, where: str, left: list[str]) -> None:
    """Section 5; the directory itself stays, with its metadata."""
    report = unpack(tmp_path, LOWER, [opaque(where)])
    assert names(tmp_path) == left
    assert report.whiteouts == 1
    assert report.to_dict()["counts"] == {}
    if left:
        node = tree(tmp_path)["d"]
        assert (node.mode, node.mtime) == (0o750, SECOND)


@pytest.mark.parametrize(
    "mark",
    [
        entry("d/.wh.a", "0", b"content"),
        directory("d/.wh.a"),
        symlink("d/.wh.a", "b"),
        hardlink("d/.wh.a", "d/b"),
        fifo("d/.wh.a"),
        char("d/.wh.a", 1, 3),
    ],
    ids=["file", "directory", "symlink", "hardlink", "fifo", "char"],
)
def test_any_type_of_entry_may_be_a_whiteout(tmp_path: Path, mark: t.Any) -> None:
    """Section 5; and no marker lands in the tree."""
    unpack(tmp_path, LOWER, [mark])
    assert names(tmp_path) == [name for name in ALL if name != "d/a"]
    assert tree(tmp_path)["d/b"].links == 1


UPPER: dict[str, tuple[Members, dict[str, t.Any]]] = {
    # the entries of the second layer, and what they leave in d, whatever their order
    "a file that the layer brings": (
        [whiteout("d/a"), file("d/a", b"new")],
        {"d/a": b"new", "d/b": b"b"},
    ),
    "a file in a directory that it hides": (
        [whiteout("d"), file("d/new", b"new")],
        {"d/new": b"new"},
    ),
    "a directory that it hides and brings": (
        [whiteout("d"), directory("d", 0o711, mtime=9), file("d/new", b"new")],
        {"d/new": b"new"},
    ),
    "deep in a directory that it hides": (
        [whiteout("d"), file("d/sub/deep/new", b"new"), file("d/a", b"new")],
        {"d/a": b"new", "d/sub": None, "d/sub/deep": None, "d/sub/deep/new": b"new"},
    ),
    "an opaque mark and things of the layer": (
        [opaque("d"), file("d/new", b"new"), file("d/sub/new", b"new")],
        {"d/new": b"new", "d/sub": None, "d/sub/new": b"new"},
    ),
    "an opaque mark and the directory itself": (
        [opaque("d"), directory("d", 0o711, mtime=9), symlink("d/b", "x")],
        {"d/b": b"x"},
    ),
    "an opaque mark and a whiteout": (
        [opaque("d"), whiteout("d"), whiteout("d/a"), file("d/a", b"new")],
        {"d/a": b"new"},
    ),
    "two opaque marks": (
        [opaque("d/sub"), opaque("d"), opaque("d"), file("d/sub/deep/new", b"new")],
        {"d/sub": None, "d/sub/deep": None, "d/sub/deep/new": b"new"},
    ),
    "an opaque mark and several things of the layer": (
        [opaque("d"), file("d/x", b"new"), file("d/y", b"new"), directory("d/z", mtime=9)],
        {"d/x": b"new", "d/y": b"new", "d/z": None},
    ),
    "a directory that it hides with several things of the layer": (
        [whiteout("d"), file("d/x", b"new"), symlink("d/a", "new"), file("d/sub/y", b"new")],
        {"d/x": b"new", "d/a": b"new", "d/sub": None, "d/sub/y": b"new"},
    ),
    "an opaque root": (
        [opaque(), file("d/a", b"new"), file("keep", b"k")],
        {"d/a": b"new"},
    ),
    "a file in the place of a directory": (
        [whiteout("d/sub"), file("d/sub", b"file"), opaque("d")],
        {"d/sub": b"file"},
    ),
    "a directory in the place of a file": (
        [whiteout("d/a"), file("d/a/b", b"below")],
        {
            "d/a": None, "d/a/b": b"below", "d/b": b"b", "d/link": b"../keep",
            "d/dirlink": b"../kept", "d/sub": None, "d/sub/deep": None, "d/sub/deep/c": b"c",
        },
    ),
    "an empty directory of the layer": (
        [whiteout("d/sub"), directory("d/sub", 0o711, mtime=9)],
        {"d/sub": None, "d/a": b"a", "d/b": b"b"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UPPER)
def test_whiteouts_in_every_order(tmp_path: Path, case: str) -> None:
    """Section 5: neither touches what the same layer brings, whatever the order of the entries."""
    members, expected = UPPER[case]
    seen: list[dict[str, Node]] = []
    for number, order in enumerate(itertools.permutations(members)):
        top = tmp_path / str(number)
        unpack(top, LOWER, order)
        seen.append(tree(top))
    assert all(found == seen[0] for found in seen)
    found = {name: node.content for name, node in seen[0].items() if name[:2] == "d/"}
    for name, content in expected.items():
        assert found.pop(name) == content
    hidden = any(mark in case for mark in ("opaque", "hides"))
    assert not (hidden and found)


@pytest.mark.parametrize(
    ("members", "mode", "mtime"),
    [
        ([file("d/new")], 0o755, 0),
        ([directory("d", 0o711, mtime=9)], 0o711, 9),
        ([directory("d", 0o711, mtime=9), file("d/new")], 0o711, 9),
        ([file("d/sub/new")], 0o755, 0),
    ],
)
def test_the_metadata_of_a_directory_that_is_hidden_and_stays(
    tmp_path: Path, members: Members, mode: int, mtime: int
) -> None:
    """Section 5: the layer's own, or those of a missing parent."""
    for number, order in enumerate(itertools.permutations([whiteout("d"), *members])):
        top = tmp_path / str(number)
        unpack(top, LOWER, order)
        node = tree(top)["d"]
        assert (node.mode, node.mtime) == (mode, mtime * SECOND)


def test_what_a_layer_brought_is_lower_for_the_next(tmp_path: Path) -> None:
    unpack(
        tmp_path,
        LOWER,
        [file("d/new", b"2"), file("d/other", b"2")],
        [whiteout("d/new"), file("d/third", b"3")],
        [opaque("d"), file("d/fourth", b"4")],
        [whiteout("d/fourth"), file("d/third", b"5")],
    )
    assert names(tmp_path / "d") == ["third"]


def test_a_hard_link_to_what_is_hidden(tmp_path: Path) -> None:
    """Section 5: names are resolved in the tree as it is when their entry comes."""
    unpack(tmp_path / "good", LOWER, [hardlink("h", "d/a"), whiteout("d/a"), opaque("d")])
    assert contents(tmp_path / "good")["h"] == b"a"
    text = refused(tmp_path / "bad", LOWER, [whiteout("d/a"), hardlink("h", "d/a")])
    assert "'d/a', which does not exist" in text


def test_a_hidden_target_of_a_parent_link(tmp_path: Path) -> None:
    """The link resolves to nothing once its target is hidden: the target is made anew."""
    unpack(tmp_path, LOWER, [whiteout("kept"), file("d/dirlink/new", b"n")])
    assert names(tmp_path / "kept") == ["new"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("d/.wh.missing", "whiteouts_of_nothing"),
        ("missing/.wh.x", "whiteouts_of_nothing"),
        ("keep/.wh.x", "whiteouts_of_nothing"),
        ("missing/.wh..wh..opq", "whiteouts_of_nothing"),
        ("keep/.wh..wh..opq", "whiteouts_of_nothing"),
        (".wh..", "whiteouts_of_root"),
        ("./.wh..", "whiteouts_of_root"),
        ("missing/.wh..", "whiteouts_of_nothing"),
        (".wh...", "whiteouts_of_parent"),
        ("d/.wh...", "whiteouts_of_parent"),
        ("d/sub/.wh...", "whiteouts_of_parent"),
        (".wh..wh.plnk", "aufs_leftovers"),
        (".wh..wh.aufs", "aufs_leftovers"),
        (".wh..wh.orph", "aufs_leftovers"),
        ("d/.wh..wh.", "aufs_leftovers"),
        ("d/.wh..wh..opq2", "aufs_leftovers"),
        (".wh..wh.plnk/123.456", "aufs_leftovers"),
        ("d/.wh..wh.orph/.wh.a", "aufs_leftovers"),
    ],
)
def test_whiteouts_that_hide_nothing(tmp_path: Path, name: str, kind: str) -> None:
    """Section 5: counted; neither reaches the root or anything above it."""
    top = tmp_path / "above" / "top"
    top.parent.mkdir()
    (tmp_path / "above" / "beside").write_bytes(b"")
    report = unpack(top, LOWER, [entry(name, "0", b"content")])
    assert names(top) == ALL
    assert report.to_dict()["counts"] == {kind: 1}
    assert sorted(os.listdir(tmp_path / "above")) == ["beside", "top"]


def test_a_whiteout_of_its_own_directory(tmp_path: Path) -> None:
    """Section 5: ``.wh..`` hides it."""
    report = unpack(tmp_path, LOWER, [entry("d/sub/.wh..", "0")])
    assert names(tmp_path) == [name for name in ALL if not name.startswith("d/sub")]
    assert (report.whiteouts, report.to_dict()["counts"]) == (1, {})


@pytest.mark.parametrize("name", [".wh.", "d/.wh.", "missing/.wh."])
def test_a_whiteout_of_no_name(tmp_path: Path, name: str) -> None:
    """Section 5: an error."""
    text = refused(tmp_path, LOWER, [entry(name, "0")])
    assert text == f"'{name}': the whiteout names nothing; {ADVICE}"


@pytest.mark.parametrize("name", [".wh.x/y", "d/.wh.a/b/c", ".wh./x", ".wh..wh..opq/x"])
@pytest.mark.parametrize("make", [file, directory, fifo], ids=["file", "dir", "fifo"])
def test_entries_below_a_whiteout(tmp_path: Path, name: str, make: t.Any) -> None:
    """Section 5: an error."""
    text = refused(tmp_path, LOWER, [make(name)])
    mark = next(part for part in name.split("/") if part.startswith(".wh."))
    assert f": it lies below the whiteout '{mark}'; {ADVICE}" in text


@pytest.mark.parametrize("name", ["a.wh.b", ".whx", "d/x.wh.", ".wh", "d/.WH.a"])
def test_names_that_only_look_like_whiteouts(tmp_path: Path, name: str) -> None:
    report = unpack(tmp_path, LOWER, [file(name, b"x")])
    assert names(tmp_path) == sorted([*ALL, name])
    assert report.whiteouts == 0


def test_whiteouts_of_the_first_layer_hide_nothing(tmp_path: Path) -> None:
    """Section 5: there is no lower layer, and what the layer brings stays."""
    report = unpack(tmp_path, [*LOWER, whiteout("d/a"), opaque("d"), opaque()])
    assert names(tmp_path) == ALL
    assert report.to_dict()["counts"] == {"whiteouts_of_nothing": 3}


def test_an_opaque_xattr_is_data(tmp_path: Path) -> None:
    """Section 5: overlayfs's own marks hide nothing."""
    marks: dict[t.Any, t.Any] = {"trusted.overlay.opaque": "y", "user.overlay.opaque": "y"}
    report = unpack(tmp_path, LOWER, [directory("d", 0o750, mtime=1, xattrs=marks)])
    assert names(tmp_path) == ALL
    assert tree(tmp_path)["d"].xattrs == {}
    assert report.to_dict()["counts"] == {"xattrs_filtered": 2}


# -- bounds


def test_long_ways_through_links_are_bounded(tmp_path: Path) -> None:
    """Section 4: the steps that an image may cause are bounded."""
    step = "/" + "./" * 1900
    chain = [symlink(f"l{number}", f"{step}l{number + 1}") for number in range(39)]
    members = [directory("l39"), *chain]
    marks = [entry(f"l0/.wh.{number}", "0") for number in range(200)]
    began = time.monotonic()
    text = refused(tmp_path / "bad", [file("f")], [*members, *marks])
    assert time.monotonic() - began < 20
    assert (
        ": the image's paths lead through more than 1000000 links and levels, and 16 for each entry, a fixed limit;"
        " build the image with shorter paths"
    ) in text
    few = [entry(f"l0/.wh.{number}", "0") for number in range(5)]
    unpack(tmp_path / "good", [file("f")], [*members, *few])


def test_usual_links_are_never_bounded(tmp_path: Path) -> None:
    """Section 4: the bound grows with the number of entries."""
    members = [directory("usr/lib"), symlink("lib", "usr/lib")]
    unpack(tmp_path, [*members, *[file(f"lib/d{n % 7}/f{n}") for n in range(700)]])
    assert len(names(tmp_path / "usr/lib")) == 707


# -- what the system refuses


def test_a_file_larger_than_the_system_takes(tmp_path: Path) -> None:
    """Section 7: running out of room names layer and entry."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        text = refused(tmp_path, [file("d/f", b"x" * 20_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert text == "'d/f': cannot be written: a file is larger than the file system allows"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "the file system has no room left (blocks or inodes); make room there and run again"),
        (errno.EDQUOT, "the disk quota is used up; raise the quota or make room and run again"),
        (errno.EIO, "input/output error; the disk or its connection fails: look at the kernel's log"),
        (errno.EROFS, "read-only file system; mount it writable and run again"),
        (errno.EMLINK, "too many links; the file system allows no more links to one file"),
    ],
)
@pytest.mark.parametrize(
    ("call", "member"),
    [
        ("mkdir", directory("d/x")),
        ("open", file("d/x", b"x")),
        ("write", file("d/x", b"x")),
        ("symlink", symlink("d/x", "y")),
        ("link", hardlink("d/x", "f")),
        ("mknod", fifo("d/x")),
        ("utime", file("d/x", b"x")),
    ],
)
def test_what_the_disk_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, member: t.Any, code: int, message: str
) -> None:
    real: t.Callable[..., t.Any] = getattr(os, call)

    def fails(path: t.Any, *rest: t.Any, **keywords: t.Any) -> t.Any:
        # folders can still be opened
        if call == "open" and path != b"x":
            return real(path, *rest, **keywords)
        raise OSError(code, os.strerror(code))

    top = tmp_path / "top"
    top.mkdir(0o700)
    with monkeypatch.context() as patched:
        patched.setattr(os, call, fails)
        with pytest.raises(LayerError) as caught:
            unpack(top, [file("f"), member] if call == "link" else [member])
    name = "d/x/" if call == "mkdir" else "d/x"
    assert caught.value.message == (f"layer sha256:layer0, entry '{name}': cannot be written: {message}")


@needs_user
def test_an_ordinary_user_gets_all_as_his_own(tmp_path: Path) -> None:
    """Section 6, ownership: ignore."""
    report = unpack(
        tmp_path, [file("f", b"x", 0o4755, uid=0, gid=0), file("g", b"x", 0o2755, uid=5, gid=5), char("null", 1, 3)]
    )
    assert {node.uid for node in tree(tmp_path).values()} == {os.geteuid()}
    assert tree(tmp_path)["f"].mode == 0o755
    assert report.to_dict()["counts"] == {"devices_skipped": 1, "setid_bits_dropped": 2}


@pytest.mark.parametrize("name", [b".", b"./", b"/", b"//", b"/.", b"././/"])
def test_the_name_of_the_root(name: bytes) -> None:
    """Section 4."""
    assert split_name(name) == ((), b"")


def test_a_name_of_nothing() -> None:
    with pytest.raises(EntryError, match="its name is empty"):
        split_name(b"")


@pytest.mark.parametrize("name", [b"..", b"../", b"a/..", b"a/../", b"../a", b"a/../b", b"a/..//", b"a/../."])
def test_a_name_that_leads_up(name: bytes) -> None:
    """Section 4: wherever it stands, and whatever comes behind it."""
    with pytest.raises(EntryError, match="its name has a '..' component"):
        split_name(name)


@pytest.mark.parametrize("name", [b"%b", b"%b/", b"a/%b", b"%b/a", b"a/%b/b", b"%b/."])
def test_a_component_that_is_too_long(name: bytes) -> None:
    assert split_name(name % (b"x" * 255))
    with pytest.raises(EntryError, match="over 255 bytes"):
        split_name(name % (b"x" * 256))


# -- what is remembered


_REMEMBERED = "take more than 10000 bytes of memory, a fixed limit; build the image with fewer of them"


@pytest.mark.parametrize("links", [False, True])
def test_directories_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Section 3: those of entries, and those that names imply."""
    monkeypatch.setattr(root, "_MOST_REMEMBERED", 10_000)
    members = [file(f"d{number}/f") if links else directory(f"d{number}") for number in range(20)]
    unpack(tmp_path / "good", members[:19])
    more = [*members, directory("e")]
    assert _REMEMBERED in refused(tmp_path / "bad", more)
    assert _REMEMBERED in refused(tmp_path / "worse", [directory("n" * 200 + str(n)) for n in range(19)])


def test_directories_that_are_removed_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root, "_MOST_REMEMBERED", 10_000)
    again = [directory("d/a/b"), directory("d/c"), file("d")]
    unpack(tmp_path, again * 30)
    assert contents(tmp_path) == {"d": b""}


def test_names_of_a_layer_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 3: those that it adds to directories of lower layers, and of one layer at a time."""
    monkeypatch.setattr(root, "_MOST_REMEMBERED", 10_000)
    lower = [directory("d")]
    upper = [[file(f"d/{layer}{number:02}") for number in range(50)] for layer in "ab"]
    unpack(tmp_path / "good", lower, *upper)
    assert len(os.listdir(tmp_path / "good" / "d")) == 100
    # the same name counts once, and in a directory of its own layer none does
    unpack(tmp_path / "again", lower, [file("d/f")] * 100)
    unpack(tmp_path / "own", lower, [directory("e"), *[file(f"e/{n}") for n in range(99)]])
    assert _REMEMBERED in refused(tmp_path / "bad", lower, upper[0] + upper[1])
