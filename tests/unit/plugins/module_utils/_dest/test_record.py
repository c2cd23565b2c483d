# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records, and how a tree is known again (docs/behaviour.md, section 7)."""

from __future__ import annotations

import errno
import json
import os
import shutil
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import record
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.record import (
    FORMAT,
    MOVING,
    STAGED,
    Binding,
    Record,
    Selection,
    Tree,
    bind,
    from_json,
    move_token,
    to_json,
    unbind,
)

TREE = Tree(
    Binding("token", 5, "1.000000002"),
    {"format": 1, "manifest_digest": None},
    {"ref": "größe", "layers": [{"size": 1}]},
    "name",
    1_700_000_000_123_456_789,
)
FULL = Record(
    tree=TREE,
    next=Tree(Binding(None, 2**63, None)),
    phase=MOVING,
    aside="aside",
    trash=(TREE,),
    generations=(TREE, TREE),
    old_names=("a", os.fsdecode(b"\xff\n")),
    new_names=("b",),
    removing=True,
)


_OPENED: list[int] = []


@pytest.fixture(autouse=True)
def _closed_again() -> t.Iterator[None]:
    yield
    while _OPENED:
        os.close(_OPENED.pop())


def opened(path: Path) -> int:
    """A descriptor, which is closed when the test ends."""
    _OPENED.append(os.open(path, os.O_RDONLY))
    return _OPENED[-1]


@pytest.fixture
def no_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system, or a user, without trusted xattrs."""

    def refuse(*_arguments: object, **_keywords: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    for name in ("setxattr", "getxattr", "removexattr"):
        monkeypatch.setattr(os, name, refuse)


# -- as JSON


@pytest.mark.parametrize("value", [Record(), FULL, Record(tree=TREE)])
def test_there_and_back(value: Record) -> None:
    """Names that are no UTF-8 too."""
    assert from_json(to_json(value), "x") == value
    assert value.is_empty is (value == Record())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        to_json(FULL)[:-10],
        to_json(Record()).replace(b'"trash": []', b'"trash": [5]'),
        to_json(Record()).replace(b'"trash": []', b'"trash": null'),
        to_json(Record()).replace(b'"tree": null', b'"tree": {}'),
        to_json(Record()).replace(b'"tree": null', b'"tree": {"binding": {}}'),
        to_json(Record(tree=TREE)).replace(b'"inode": 5', b'"other": 5'),
        to_json(Record()).replace(b'"phase": "", ', b""),
    ],
)
def test_a_damaged_record(data: bytes) -> None:
    """One sentence that says what to do."""
    with pytest.raises(RootfsError) as caught:
        from_json(data, "/srv/.x.oci_rootfs")
    assert caught.value.message == (
        "the record in /srv/.x.oci_rootfs is damaged; look at the tree, then remove that folder"
        " to give the record up"
    )


@pytest.mark.parametrize("number", [FORMAT + 1, 0, "one", None])
def test_a_record_of_another_version(number: object) -> None:
    data = json.dumps({**json.loads(to_json(Record())), "format": number}).encode()
    with pytest.raises(RootfsError) as caught:
        from_json(data, "/srv/.x.oci_rootfs")
    assert caught.value.message == (
        f"the record in /srv/.x.oci_rootfs is of format {number!r}, which this version does not know;"
        " update the collection, or remove that folder to give the tree up"
    )


def test_what_is_thrown_away() -> None:
    """A next tree becomes trash, never nothing: the next run clears it."""
    value = Record(tree=TREE, next=TREE, phase=STAGED, generations=(TREE,))
    assert value.without_next() == Record(tree=TREE, trash=(TREE,), generations=(TREE,))
    assert Record(tree=TREE).without_next() == Record(tree=TREE)


# -- bindings


def test_a_tree_is_known_again(tmp_path: Path) -> None:
    """Also under another name, with other content and times: those are the container's."""
    (tmp_path / "a").mkdir()
    binding = bind(opened(tmp_path / "a"))
    (tmp_path / "a/f").write_bytes(b"")
    os.chmod(tmp_path / "a", 0o555)
    os.utime(tmp_path / "a", (1, 1))
    os.rename(tmp_path / "a", tmp_path / "b")
    again: t.Any = from_json(to_json(Record(tree=Tree(binding))), "x").tree
    assert again.binding.holds(opened(tmp_path / "b"))


def test_a_copy_is_not_the_tree(tmp_path: Path) -> None:
    """Section 7, fingerprint: deleted, copied, swapped or rolled back."""
    (tmp_path / "a").mkdir()
    binding = bind(opened(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    if binding.token is not None:
        # even with all xattrs
        os.setxattr(tmp_path / "copy", record._TOKEN, binding.token.encode())
    assert not binding.holds(opened(tmp_path / "copy"))


def test_a_new_directory_is_not_the_tree(tmp_path: Path) -> None:
    """Even where it gets the same inode number, as ext4 gives it."""
    (tmp_path / "a").mkdir()
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    binding = bind(fd)
    os.close(fd)
    for _again in range(5):
        (tmp_path / "a").rmdir()
        (tmp_path / "a").mkdir()
        fd = os.open(tmp_path / "a", os.O_RDONLY)
        assert not binding.holds(fd)
        # an open descriptor would keep the inode number from coming back
        os.close(fd)


def test_another_token_is_not_the_tree(tmp_path: Path) -> None:
    """A second provisioning in the same directory is another tree."""
    (tmp_path / "a").mkdir()
    first = bind(opened(tmp_path / "a"))
    second = bind(opened(tmp_path / "a"))
    if first.token is None:
        pytest.skip("no trusted xattrs here: the inode and its birth are all there is")
    assert first.token != second.token
    assert not first.holds(opened(tmp_path / "a"))
    assert second.holds(opened(tmp_path / "a"))


def test_a_token_that_was_taken_away(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    binding = bind(opened(tmp_path / "a"))
    unbind(opened(tmp_path / "a"))
    unbind(opened(tmp_path / "a"))
    if binding.token is None:
        pytest.skip("no trusted xattrs here: there is no token to take away")
    assert not binding.holds(opened(tmp_path / "a"))


@pytest.mark.usefixtures("no_trusted")
def test_without_trusted_xattrs(tmp_path: Path) -> None:
    """Section 7: inode and birth time."""
    (tmp_path / "a").mkdir()
    fd = opened(tmp_path / "a")
    binding = bind(fd)
    assert binding.token is None
    assert binding.holds(fd)
    if binding.birth is None:
        pytest.skip("this file system does not tell birth times")
    assert not Binding(None, binding.inode, "1.000000000").holds(fd)
    assert not Binding(None, binding.inode + 1, binding.birth).holds(fd)
    assert not Binding("token", binding.inode, binding.birth).holds(fd)


def test_a_foreign_tree_gets_no_token(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    binding = bind(opened(tmp_path / "a"), new_token=False)
    assert binding.token is None
    assert record._TOKEN not in os.listxattr(tmp_path / "a")
    assert binding.holds(opened(tmp_path / "a"))


def test_the_token_moves_to_the_roots_own_directory(tmp_path: Path) -> None:
    """Section 7, mount points: the mount's root takes it over."""
    for name in "ab":
        (tmp_path / name).mkdir()
    binding = bind(opened(tmp_path / "a"))
    moved = move_token(binding, opened(tmp_path / "b"))
    assert moved.token == binding.token
    assert moved.holds(opened(tmp_path / "b"))
    assert not moved.holds(opened(tmp_path / "a"))


def test_an_error_that_says_nothing_of_xattrs_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    fd = opened(tmp_path / "a")

    def broken(*_arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "setxattr", broken)
    with pytest.raises(OSError, match="Input/output error"):
        bind(fd)


SELECTION = Selection("linux/amd64", ("sha256:a", "sha256:b"), ("a warning",), {"r.example": "https://auth.example"})


def test_how_an_image_was_chosen_is_remembered() -> None:
    record = Record(tree=replace(TREE, selection=SELECTION), generations=(replace(TREE, selection=SELECTION),))
    assert from_json(to_json(record), "x") == record


@pytest.mark.parametrize("selection", [7, "x", {"platform": "x", "other": 1}, {"indexes": 7}, None])
def test_a_damaged_selection(selection: object) -> None:
    value = json.loads(to_json(Record(tree=TREE)))
    value["tree"]["selection"] = selection
    with pytest.raises(RootfsError, match="is damaged"):
        from_json(json.dumps(value).encode(), "x")


def test_selections_are_joined() -> None:
    newer = Selection("linux/amd64", ("sha256:c", "sha256:a"), ("another",), {"s.example": "https://s.example"})
    realms = {"r.example": "https://auth.example", "s.example": "https://s.example"}
    assert newer.joined(SELECTION) == Selection(
        "linux/amd64", ("sha256:c", "sha256:a", "sha256:b"), ("another",), realms
    )
    other = replace(newer, platform="linux/arm64")
    assert other.joined(SELECTION) == replace(other, realms=realms)
    many = Selection("linux/amd64", tuple(map(str, range(16))))
    assert newer.joined(many).indexes == (*newer.indexes, *map(str, range(14)))
