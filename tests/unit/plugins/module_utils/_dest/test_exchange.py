# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Replacing dest as a whole, and what a run finds that comes after one that was stopped (docs/behaviour.md, section 7).

Records of each phase are written by hand here; that real runs die at every instant is for ``tests/crash``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import exchange as beside
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import in_use
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.exchange import ExchangedDest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest import Dest, lock_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest_path import resolve_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._fs import removal
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.record import (
    PREPARED,
    RESTORING,
    STAGED,
    UNPACKING,
    Binding,
    Record,
    Tree,
    bind,
)

pytestmark = pytest.mark.usefixtures("alone")

BY_NAME = Binding(None, 0, None)


class Lab:
    """A dest, its private folder, and trees that are known by the one file in them."""

    def __init__(self, top: Path, keep: int = 1) -> None:
        self.top = top
        self.dest = top / "dest"
        self.state = top / ".dest.oci_rootfs"
        self.keep = keep

    @contextlib.contextmanager
    def steps(self) -> t.Iterator[tuple[Dest, ExchangedDest]]:
        """A run."""
        with lock_dest(resolve_dest(str(self.dest)), 5.0, 0o700, False) as locked:
            yield locked, ExchangedDest(locked, False, self.keep)

    def tree(self, label: str, name: str = "", ours: bool = True) -> Tree:
        """A tree at dest, or in the private folder under ``name``."""
        path = self.state / name if name else self.dest
        self.state.mkdir(0o700, exist_ok=True)
        path.mkdir(0o700)
        (path / label).touch()
        fd = os.open(path, os.O_RDONLY)
        try:
            binding = bind(fd, new_token=ours)
        finally:
            os.close(fd)
        if not ours:
            return Tree(binding, name=name)
        return Tree(binding, {"label": label}, {"label": label}, name, 5)

    def recover(self, record: Record) -> Record:
        """Write a record as an earlier run left it, and recover; a second recovery changes nothing."""
        with self.steps() as (locked, steps):
            locked.save(record)
            recovered = steps.recover(locked.load())
            assert recovered == locked.load()
            assert steps.recover(recovered) == recovered
        return recovered

    def at_dest(self) -> str | None:
        """The label of what is at dest."""
        if not self.dest.exists():
            return None
        (label,) = os.listdir(self.dest)
        return label

    def kept(self) -> dict[str, str]:
        """The label of what lies in the private folder, by name."""
        if not self.state.exists():
            return {}
        found = {}
        for name in os.listdir(self.state):
            if name != "record.json":
                found[name] = "".join(os.listdir(self.state / name))
        return found


@pytest.fixture(name="lab")
def fixture_lab(tmp_path: Path) -> Lab:
    """A dest in the directory of the test."""
    return Lab(tmp_path)


def labels(trees: t.Iterable[Tree]) -> list[str]:
    """What a record says of trees; a foreign one has no label."""
    return [str(tree.fingerprint.get("label", "foreign")) for tree in trees]


# -- each phase that a record can say, and what recovery makes of it


@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("had", [True, False])
def test_unpacking(lab: Lab, had: bool, made: bool) -> None:
    """The staging goes, known by its random name; what is at dest stays."""
    old = lab.tree("old") if had else None
    if made:
        (lab.state / "n" / "half").mkdir(parents=True)
        os.chmod(lab.state, 0o700)
    record = lab.recover(Record(tree=old, next=Tree(BY_NAME, name="n"), phase=UNPACKING))
    assert record == Record(tree=old)
    assert lab.at_dest() == ("old" if had else None)
    assert lab.kept() == {}


def test_staged(lab: Lab) -> None:
    """A staged tree waits for the next run."""
    written = Record(tree=lab.tree("old"), next=lab.tree("new", "n"), phase=STAGED)
    record = lab.recover(written)
    assert record == written
    assert (lab.at_dest(), lab.kept()) == ("old", {"n": "new"})
    with lab.steps() as (_site, steps):
        assert steps.has_staged(record)
        (lab.state / "n" / "new").unlink()
        (lab.state / "n").rmdir()
        assert not steps.has_staged(record)


def test_a_staged_tree_that_was_swapped_is_none(lab: Lab) -> None:
    record = Record(next=lab.tree("new", "n"), phase=STAGED)
    os.rename(lab.state / "n", lab.top / "elsewhere")
    (lab.state / "n").mkdir(0o700)
    with lab.steps() as (_site, steps):
        assert not steps.has_staged(record)
        assert not steps.has_staged(replace(record, phase=PREPARED))


@pytest.mark.parametrize(
    ("at_dest", "in_state", "aside", "expected", "kept"),
    [
        # stopped before the exchange: the old tree stays, the new one goes
        ("old", "new", None, "old", []),
        # stopped after it: the new tree stays, the old one is put away
        ("new", "old", None, "new", ["old"]),
        # two renames: before the first, between them, after the second
        ("old", "new", "", "old", []),
        (None, "new", "old", "new", ["old"]),
        ("new", None, "old", "new", ["old"]),
        # the first run of all
        (None, "new", None, None, []),
        ("new", None, None, "new", []),
        # dest was changed by others after the exchange, and before it
        ("foreign", "old", None, "foreign", ["old"]),
        ("foreign", "new", None, "foreign", []),
        # dest was removed by others after the exchange, and before it
        (None, "old", None, None, ["old"]),
    ],
)
def test_prepared(
    lab: Lab, at_dest: str | None, in_state: str | None, aside: str | None, expected: str | None, kept: list[str]
) -> None:
    """The binding that is found at dest decides."""
    trees: dict[str, Tree] = {}
    for label, name in ((at_dest, ""), (in_state, "n"), (aside, "a")):
        if label:
            trees[label] = lab.tree(label, name, label != "foreign")
    old = trees.get("old")
    new = trees.get("new") or Tree(Binding("gone", 1, None), {"label": "new"})
    record = lab.recover(
        Record(
            tree=replace(old, name="") if old else None,
            next=replace(new, name="n"),
            phase=PREPARED,
            aside="" if aside is None else "a",
        )
    )
    assert lab.at_dest() == expected
    assert (record.next, record.phase, record.aside, record.trash) == (None, "", "", ())
    assert sorted(lab.kept().values()) == kept
    assert labels(record.generations) == kept
    with lab.steps() as (_site, steps):
        current = steps.current(record)
        assert (current.fingerprint["label"] if current else None) == (expected if expected != "foreign" else None)
        assert steps.holds_foreign(record) is (expected == "foreign")


@pytest.mark.parametrize("exchanged", [True, False])
def test_restoring(lab: Lab, exchanged: bool) -> None:
    """An earlier tree is on its way back; one that did not get there stays an earlier tree."""
    if exchanged:
        earlier, current = lab.tree("earlier"), lab.tree("current", "g")
    else:
        current, earlier = lab.tree("current"), lab.tree("earlier", "g")
    record = lab.recover(Record(tree=replace(current, name=""), next=replace(earlier, name="g"), phase=RESTORING))
    assert lab.at_dest() == ("earlier" if exchanged else "current")
    left = "current" if exchanged else "earlier"
    assert labels(record.generations) == [left]
    assert lab.kept() == {"g": left}


@pytest.mark.parametrize("moved", [True, False])
def test_removing(lab: Lab, moved: bool) -> None:
    """A removal is finished where the tree is out already; else it never began."""
    old = lab.tree("old", "a" if moved else "")
    record = lab.recover(Record(tree=replace(old, name=""), aside="a", removing=True))
    if moved:
        assert record.is_empty
        assert sorted(os.listdir(lab.top)) == []
    else:
        assert record == Record(tree=old)
        assert lab.at_dest() == "old"


def test_trash(lab: Lab) -> None:
    """Leftovers are known by record and binding, never by a name's pattern."""
    ours = lab.tree("ours", "a")
    swapped = lab.tree("swapped", "b")
    os.rename(lab.state / "b", lab.top / "elsewhere")
    lab.tree("another", "b", ours=False)
    lab.tree("unknown", "0123456789abcdef0123456789abcdef", ours=False)
    (lab.state / "c").mkdir()
    missing = Tree(BY_NAME, name="missing")
    record = lab.recover(Record(trash=(ours, swapped, Tree(BY_NAME, name="c"), missing)))
    assert record.is_empty
    assert sorted(lab.kept().values()) == ["another", "unknown"]


# -- a whole replacement


def stage(lab: Lab, steps: ExchangedDest, record: Record, label: str) -> Record:
    """A new tree, staged."""
    record, fd = steps.stage(record)
    try:
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o700
        assert record.next is not None
        assert os.listdir(fd) == []
        (lab.state / record.next.name / label).touch()
        return steps.staged(record, Tree(bind(fd), {"label": label}, {"label": label}))
    finally:
        os.close(fd)


def replace_with(lab: Lab, label: str) -> Record:
    """A run that replaces dest."""
    with lab.steps() as (locked, steps):
        record = steps.recover(locked.load())
        record = steps.commit(stage(lab, steps, record, label))
        assert record == locked.load()
        return record


@pytest.mark.parametrize(
    ("keep", "kept"), [(0, []), (1, ["three"]), (2, ["three", "two"]), (9, ["three", "two", "one"])]
)
def test_earlier_trees(lab: Lab, keep: int, kept: list[str]) -> None:
    """``keep`` of them stay, the newest first."""
    lab.keep = keep
    for label in ("one", "two", "three", "four"):
        record = replace_with(lab, label)
        assert lab.at_dest() == label
    assert labels(record.generations) == kept
    assert sorted(lab.kept().values()) == sorted(kept)
    assert stat.S_IMODE(lab.state.stat().st_mode) == 0o700


def test_fewer_are_kept_from_the_next_update_on(lab: Lab) -> None:
    lab.keep = 3
    for label in ("one", "two", "three"):
        replace_with(lab, label)
    lab.keep = 1
    assert labels(replace_with(lab, "four").generations) == ["three"]
    assert list(lab.kept().values()) == ["three"]


# a file system in user space may take the exchange for a plain rename, which fails over a directory with content
REFUSALS = [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV, errno.ENOTEMPTY, errno.EEXIST]


def no_exchange(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A kernel or file system that cannot exchange."""

    def refuse(*_arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(beside, "exchange", refuse)


@pytest.mark.parametrize("code", REFUSALS)
def test_two_renames(lab: Lab, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Where the kernel or file system cannot exchange."""
    no_exchange(monkeypatch, code)
    replace_with(lab, "one")
    record = replace_with(lab, "two")
    assert lab.at_dest() == "two"
    assert list(lab.kept().values()) == labels(record.generations) == ["one"]
    with lab.steps() as (_site, steps):
        steps.restore_previous(record)
    assert lab.at_dest() == "one"


@pytest.mark.parametrize("exchanges", [True, False])
def test_trees_whose_roots_are_closed(lab: Lab, monkeypatch: pytest.MonkeyPatch, exchanges: bool) -> None:
    """An ordinary user may move no directory that he cannot write to; the modes stay as they were."""
    if not exchanges:
        no_exchange(monkeypatch, errno.EINVAL)
    replace_with(lab, "one")
    os.chmod(lab.dest, 0o555)
    record = replace_with(lab, "two")
    os.chmod(lab.dest, 0o500)
    for expected, mode, other in (("one", 0o555, 0o500), ("two", 0o500, 0o555)):
        with lab.steps() as (_site, steps):
            record = steps.restore_previous(record)
        assert lab.at_dest() == expected
        assert stat.S_IMODE(lab.dest.stat().st_mode) == mode
        (kept,) = lab.kept()
        assert stat.S_IMODE((lab.state / kept).stat().st_mode) == other
    with lab.steps() as (_site, steps):
        steps.remove(record, False)
    assert os.listdir(lab.top) == []


def test_an_exchange_that_fails_otherwise(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_with(lab, "one")
    no_exchange(monkeypatch, errno.EIO)
    with lab.steps() as (locked, steps):
        record = stage(lab, steps, locked.load(), "two")
        with pytest.raises(OSError, match="Input/output"):
            steps.commit(record)
        steps.abandon(locked.load())
    assert (lab.at_dest(), lab.kept()) == ("one", {})


def test_a_directory_that_cannot_be_moved_at_all(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a lower layer of an overlay answers; dest stays as it was."""
    replace_with(lab, "one")
    no_exchange(monkeypatch, errno.EXDEV)
    real = beside.move

    def move(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
        if old == b"dest":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        real(old_dir, old, new_dir, new)

    monkeypatch.setattr(beside, "move", move)
    with lab.steps() as (locked, steps):
        record = stage(lab, steps, locked.load(), "two")
        with pytest.raises(RootfsError) as caught:
            steps.commit(record)
        steps.abandon(locked.load())
    assert caught.value.message == (
        f"'{lab.dest}' cannot be moved on its file system (a lower layer of an overlay?);"
        " remove it or choose another dest"
    )
    assert (lab.at_dest(), lab.kept()) == ("one", {})


def test_a_second_rename_that_fails(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old tree comes back."""
    replace_with(lab, "one")
    no_exchange(monkeypatch, errno.EINVAL)
    real = beside.move

    def move(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
        if new == b"dest" and os.listdir(lab.state / os.fsdecode(old)) == ["two"]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(old_dir, old, new_dir, new)

    monkeypatch.setattr(beside, "move", move)
    with lab.steps() as (locked, steps):
        record = stage(lab, steps, locked.load(), "two")
        with pytest.raises(OSError, match="Input/output"):
            steps.commit(record)
        steps.abandon(locked.load())
    assert (lab.at_dest(), lab.kept()) == ("one", {})


def test_nothing_is_staged(lab: Lab) -> None:
    with lab.steps() as (_site, steps), pytest.raises(RootfsError) as caught:
        steps.commit(Record())
    assert caught.value.message == "no tree is staged; run again"


# -- the order on disk


def test_the_order_on_disk(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record prepared, exchange, folders synced, record done; only then is anything old removed."""
    lab.keep = 0
    replace_with(lab, "one")
    happened: list[str] = []

    def note(what: str, real: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        def noted(*arguments: t.Any) -> t.Any:
            happened.append(what)
            return real(*arguments)

        return noted

    with lab.steps() as (locked, steps):
        record = stage(lab, steps, locked.load(), "two")
        real_save = locked.save

        def save(value: Record) -> None:
            happened.append(f"record {value.phase or 'done'}")
            real_save(value)

        def fsync(fd: int) -> None:
            happened.append("fsync " + os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))

        monkeypatch.setattr(locked, "save", save)
        monkeypatch.setattr(beside, "exchange", note("exchange", beside.exchange))
        remove = note("remove", removal.try_remove_tree)
        monkeypatch.setattr(removal, "try_remove_tree", remove)
        monkeypatch.setattr(os, "fsync", fsync)
        steps.commit(record)
    written = ["fsync record.json.new", "fsync .dest.oci_rootfs"]
    assert happened == [
        "record prepared",
        *written,
        "exchange",
        f"fsync {lab.top.name}",
        "fsync .dest.oci_rootfs",
        "record done",
        *written,
        "remove",
        "record done",
        *written,
    ]


# -- foreign trees


def test_a_foreign_tree_is_told_apart(lab: Lab) -> None:
    with lab.steps() as (_site, steps):
        assert not steps.holds_foreign(Record())
        lab.dest.mkdir()
        assert not steps.holds_foreign(Record())
        (lab.dest / "foreign").touch()
        assert steps.holds_foreign(Record())


def test_what_force_replaces_is_always_kept(lab: Lab) -> None:
    """Section 7, earlier trees: and its path can be told."""
    lab.keep = 0
    lab.tree("foreign", ours=False)
    for label in ("one", "two", "three"):
        record = replace_with(lab, label)
    assert list(lab.kept().values()) == labels(record.generations) == ["foreign"]
    with lab.steps() as (_site, steps):
        (path,) = steps.path_of_kept(record)
        assert os.listdir(path) == ["foreign"]
        with pytest.raises(RootfsError):
            steps.previous(record)


def test_what_force_replaced_takes_no_place_of_ours(lab: Lab) -> None:
    """``keep`` counts the trees that this module made."""
    replace_with(lab, "one")
    replace_with(lab, "two")
    (lab.dest / "two").unlink()
    lab.dest.rmdir()
    lab.tree("foreign", ours=False)
    record = replace_with(lab, "three")
    assert labels(record.generations) == ["foreign", "one"]
    record = replace_with(lab, "four")
    assert labels(record.generations) == ["three", "foreign"]


def test_an_empty_directory_is_not_kept(lab: Lab) -> None:
    lab.dest.mkdir()
    record = replace_with(lab, "one")
    assert (record.generations, lab.kept()) == ((), {})


# -- previous


def test_previous_there_and_back(lab: Lab) -> None:
    replace_with(lab, "one")
    record = replace_with(lab, "two")
    for expected, other in (("one", "two"), ("two", "one"), ("one", "two")):
        with lab.steps() as (locked, steps):
            assert steps.previous(record).fingerprint == {"label": expected}
            record = steps.restore_previous(record)
            assert record == locked.load()
        assert lab.at_dest() == expected
        assert list(lab.kept().values()) == labels(record.generations) == [other]


def test_previous_throws_a_staged_tree_away(lab: Lab) -> None:
    replace_with(lab, "one")
    replace_with(lab, "two")
    with lab.steps() as (locked, steps):
        record = stage(lab, steps, locked.load(), "three")
        record = steps.restore_previous(record)
    assert lab.at_dest() == "one"
    assert list(lab.kept().values()) == ["two"]


def test_no_previous(lab: Lab) -> None:
    record = replace_with(lab, "one")
    with lab.steps() as (_site, steps), pytest.raises(RootfsError) as caught:
        steps.previous(record)
    assert caught.value.message == (
        f"no earlier tree of '{lab.dest}' is kept;" " set keep to more than 0 before the next update"
    )


# -- removal


def test_removal(lab: Lab) -> None:
    """Section 7, absent: the tree, the record, and what is left beside it."""
    for label in ("one", "two"):
        record = replace_with(lab, label)
    with lab.steps() as (locked, steps):
        record = stage(lab, steps, record, "three")
        assert steps.has_something(record, False)
        assert steps.remove(record, False) == []
        assert locked.load() == Record()
        assert not steps.has_something(locked.load(), False)
    assert os.listdir(lab.top) == []


def test_removal_of_what_is_there_only_in_part(lab: Lab) -> None:
    """The tree is gone, but what lies beside it is not."""
    for label in ("one", "two"):
        record = replace_with(lab, label)
    (lab.dest / "two").unlink()
    lab.dest.rmdir()
    with lab.steps() as (locked, steps):
        record = steps.recover(locked.load())
        assert steps.has_something(record, False)
        steps.remove(record, False)
    assert os.listdir(lab.top) == []


@pytest.mark.parametrize("force", [False, True])
def test_removal_and_foreign_trees(lab: Lab, force: bool) -> None:
    """They stay, unless force is given again."""
    lab.tree("foreign", ours=False)
    record = replace_with(lab, "one")
    with lab.steps() as (locked, steps):
        kept = steps.remove(record, force)
        record = locked.load()
        if force:
            assert (kept, record) == ([], Record())
        else:
            assert [os.listdir(path) for path in kept] == [["foreign"]]
            assert labels(record.generations) == ["foreign"]
            assert not steps.has_something(record, False)
            assert steps.has_something(record, True)
    assert os.listdir(lab.top) == ([] if force else [".dest.oci_rootfs"])


# -- errors on the way


def test_abandoned(lab: Lab) -> None:
    """After an error nothing of the new tree is left, at or beside dest."""
    with lab.steps() as (locked, steps):
        record, fd = steps.stage(locked.load())
        os.close(fd)
        assert record.next is not None
        (lab.state / record.next.name / "half").touch()
        steps.abandon(locked.load())
        assert locked.load() == Record()
    assert os.listdir(lab.top) == []


def test_abandoned_once_staged(lab: Lab) -> None:
    replace_with(lab, "one")
    with lab.steps() as (locked, steps):
        before = locked.load()
        stage(lab, steps, before, "two")
        assert steps.abandon(locked.load()) == before == locked.load()
    assert (lab.at_dest(), lab.kept()) == ("one", {})


def test_what_is_live_is_never_abandoned(lab: Lab) -> None:
    new = lab.tree("new")
    record = Record(next=replace(new, name="n"), phase=PREPARED)
    with lab.steps() as (_site, steps):
        assert steps.abandon(record) == record
    assert lab.at_dest() == "new"


def test_a_tree_in_use(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 7, in use: checked before anything is exchanged or removed, and not where it is ignored."""
    asked: list[str] = []

    def require_unused(_fd: int, path: str) -> None:
        asked.append(os.path.relpath(path, lab.top))
        raise RootfsError("in use")

    replace_with(lab, "one")
    with lab.steps() as (locked, steps):
        record = stage(lab, steps, locked.load(), "two")
        monkeypatch.setattr(in_use, "require_unused", require_unused)
        with pytest.raises(RootfsError):
            steps.commit(record)
        assert (lab.at_dest(), asked) == ("one", ["dest"])
        # what is no longer needed waits, with a warning
        record = steps.discard_next(locked.load())
        assert record == locked.load()
        assert labels(record.trash) == ["two"]
        assert len(asked) == 2
        assert asked[1].startswith(".dest.oci_rootfs/")
        assert list(lab.kept().values()) == ["two"]
        assert locked.warnings == [
            f"'{lab.top / asked[1]}' is no longer needed, but could not be removed completely: in use;"
            " the next run tries again"
        ]
        ignoring = ExchangedDest(locked, True, 1)
        ignoring.recover(locked.load())
        assert lab.kept() == {}
