# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Entries, applied (docs/behaviour.md, section 4)."""

from __future__ import annotations

import errno
import os
import resource
import stat
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import LayerError
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs import root
from ansible_collections.hypervisor.oci.tests.images.builder import (
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
    SECOND,
    Members,
    allocated,
    contents,
    in_layers,
    names,
    needs_root,
    needs_user,
    owned,
    refused,
    tree,
    unpack,
)

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
    "symlink": lambda: [symlink("x", "text", mtime=5)],
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
    unpack(tmp_path, *in_layers(layers, [*kept, *OLD[old]()], NEW[new]()))
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
        mode = {"symlink": 0o777, "directory": 0o750}.get(new, 0o640)
        content = {"file": b"new", "sparse file": b"new", "symlink": b"text"}.get(new)
        kind = {"sparse file": "file"}.get(new, new)
        assert (node.type, node.mode, node.content) == (kind, mode, content)
        assert node.mtime == 5 * SECOND
        assert keep.links == 1
    assert (keep.mode, keep.mtime, keep.content) == (0o600, 3 * SECOND, b"kept")
    assert found["kept/f"].content == b"f"


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
    what = f"cannot be written: {message}"
    if (call, code) == ("link", errno.EMLINK):
        what = (
            "the file system of dest cannot make this hard link (too many links); choose a dest on another file system"
        )
    assert caught.value.message == f"layer sha256:layer0, entry '{name}': {what}"


@needs_user
def test_an_ordinary_user_gets_all_as_his_own(tmp_path: Path) -> None:
    """Section 6, ownership: ignore."""
    report = unpack(
        tmp_path, [file("f", b"x", 0o4755, uid=0, gid=0), file("g", b"x", 0o2755, uid=5, gid=5), char("null", 1, 3)]
    )
    assert {node.uid for node in tree(tmp_path).values()} == {os.geteuid()}
    assert tree(tmp_path)["f"].mode == 0o755
    assert report.to_dict()["counts"] == {"devices_skipped": 1, "setid_bits_dropped": 2}


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
