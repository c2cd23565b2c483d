# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whiteouts (docs/behaviour.md, section 5)."""

from __future__ import annotations

import itertools
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.images.builder import (
    char,
    directory,
    entry,
    fifo,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
)
from ansible_collections.hypervisor.oci.tests.unit.support import (
    ADVICE,
    IS_ROOT,
    SECOND,
    Members,
    Node,
    contents,
    names,
    owned,
    refused,
    tree,
    unpack,
)

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


# -- AUFS


PLINK = ".wh..wh.plnk/162.654"


def test_hard_links_to_files_of_aufs(tmp_path: Path) -> None:
    """Section 5: files in .wh..wh.plnk are kept aside for the hard links of their layer, and land nowhere else."""
    layer = [
        directory(".wh..wh.plnk"),
        file(PLINK, b"content", 0o4755, uid=3, gid=4, mtime=5),
        hardlink("bin/a", PLINK),
        hardlink("b", "/" + PLINK),
        file(".wh..wh.plnk/unused", b"x"),
        opaque(),
        hardlink("bin/c", "./" + PLINK),
    ]
    report = unpack(tmp_path, [file("lower", b"l"), file("b", b"old")], layer)
    found = tree(tmp_path)
    assert names(tmp_path) == ["b", "bin", "bin/a", "bin/c"]
    for name in ("b", "bin/a", "bin/c"):
        assert (found[name].content, found[name].mtime, found[name].links) == (b"content", 5 * 10**9, 3)
        assert (found[name].uid, found[name].gid) == owned(3, 4)
    counts = report.to_dict()["counts"]
    assert counts["aufs_leftovers"] == 3
    # what links may bring counts for who reaches the tree
    assert IS_ROOT is False or (found["b"].mode, counts["setid_files"]) == (0o4755, 1)


def test_a_file_of_aufs_that_comes_twice(tmp_path: Path) -> None:
    """Section 4: the last one counts, for what links to it afterwards."""
    unpack(tmp_path, [file(PLINK, b"1"), hardlink("a", PLINK), file(PLINK, b"2" * 3000), hardlink("b", PLINK)])
    assert contents(tmp_path) == {"a": b"1", "b": b"2" * 3000}


@pytest.mark.parametrize(
    "layers",
    [
        [[hardlink("a", PLINK)]],
        [[file(PLINK, b"1"), hardlink("x", PLINK)], [hardlink("a", PLINK)]],
        [[file(PLINK, b"1"), hardlink("a", ".wh..wh.plnk")]],
        [[file(PLINK, b"1"), hardlink("a", ".wh..wh.plnk/other")]],
        [[file(PLINK, b"1"), hardlink("a", ".wh..wh.plnk/" + "n" * 300)]],
        [[file(PLINK, b"1"), symlink("l", ".wh..wh.plnk"), hardlink("a", "l/162.654")]],
        [[file("d/" + PLINK, b"1"), hardlink("a", "d/" + PLINK)]],
        [[symlink(PLINK, "/etc/passwd"), hardlink("a", PLINK)]],
    ],
)
def test_hard_links_to_what_aufs_did_not_keep(tmp_path: Path, layers: list[t.Any]) -> None:
    assert ", which does not exist; " in refused(tmp_path, *layers)


def test_nothing_goes_through_what_is_kept_aside(tmp_path: Path) -> None:
    """Hostile: neither a link nor an opaque mark meets it."""
    escape = [file(PLINK, b"1"), symlink("l", ".wh..wh.plnk"), file("l/162.654", b"2")]
    assert "its path leads through the whiteout '.wh..wh.plnk'" in refused(tmp_path / "a", escape)
    unpack(tmp_path / "b", [file("lower")], [file(PLINK, b"1"), opaque(), whiteout("lower"), hardlink("a", PLINK)])
    assert contents(tmp_path / "b") == {"a": b"1"}


def test_an_error_leaves_the_folder_to_who_empties_the_tree(tmp_path: Path) -> None:
    refused(tmp_path, [file(PLINK, b"1"), file("../x")])
    assert names(tmp_path) == []
