# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Replacing what a mount point holds (docs/behaviour.md, section 7).

Most tests treat a plain directory as a mount point, which an ordinary user can do too; those with a mount come last.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import sys
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import provision
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import mounted as mounted_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.mounted import MountedDest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest import Dest, lock_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest_path import DestPath
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.record import (
    MOVING,
    STAGED,
    UNPACKING,
    Binding,
    Record,
    Tree,
    bind,
)
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    directory,
    file,
    opaque,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.support import (
    command,
    contents,
    loop_mounted,
    mounted,
    needs_root,
    owned,
    run,
    set_xattr_or_skip,
    tree,
)

pytestmark = pytest.mark.usefixtures("alone")

BY_NAME = Binding(None, 0, None)


class Lab:
    """A dest that is treated as a mount point, with its record elsewhere."""

    def __init__(self, top: Path) -> None:
        self.dest = top / "data"
        self.dest.mkdir()
        self.states = top / "states"
        self.location = DestPath(os.fspath(top), "data", True)

    @contextlib.contextmanager
    def steps(self) -> t.Iterator[tuple[Dest, MountedDest]]:
        """A run."""
        with lock_dest(self.location, 5.0, 0o700, False) as locked:
            yield locked, MountedDest(locked, False)

    def fill(self, *names: str) -> None:
        """Content of dest; a name that ends in a slash is a directory with something in it."""
        for name in names:
            if name.endswith("/"):
                (self.dest / name / "below").mkdir(parents=True)
            else:
                (self.dest / name).touch()

    def stage(self, steps: MountedDest, record: Record, *names: str, mode: int = 0o755) -> Record:
        """A new tree of these files, staged."""
        record, fd = steps.stage(record)
        assert record.next is not None
        staging = self.dest / record.next.name
        assert record.next.name.startswith(".")
        assert stat.S_IMODE(staging.stat().st_mode) == 0o700
        try:
            assert os.listdir(fd) == []
            for name in names:
                (staging / "new" / name).touch()
            os.fchmod(fd, mode)
            os.utime(fd, ns=(5, 5))
            label = {"label": "".join(names)}
            return steps.staged(record, Tree(bind(fd), label, label, "", 5))
        finally:
            os.close(fd)

    def replace_with(self, *names: str) -> Record:
        """A run that replaces what dest holds."""
        with self.steps() as (locked, steps):
            record = steps.recover(locked.load())
            record = steps.commit(self.stage(steps, record, *names))
            assert record == locked.load()
            return record

    def names(self) -> list[str]:
        """What dest holds."""
        return sorted(os.listdir(self.dest))


@pytest.fixture(name="lab")
def fixture_lab(tmp_path: Path, states: Path) -> Lab:
    """Records of mount points lie in the directory of the test."""
    return Lab(tmp_path)


# -- a whole replacement


def test_an_empty_mount_is_filled(lab: Lab) -> None:
    record = lab.replace_with("a", "b")
    assert lab.names() == ["a", "b"]
    assert (record.next, record.phase, record.trash) == (None, "", ())
    with lab.steps() as (_locked, steps):
        current = steps.current(record)
        assert current is not None
        assert current.fingerprint == {"label": "ab"}
        assert not steps.holds_foreign(record)
    status = lab.dest.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o755, 5)


def test_the_next_tree_replaces_all_of_it(lab: Lab) -> None:
    """What the container wrote goes too; ``lost+found`` stays."""
    lab.fill("lost+found/")
    lab.replace_with("a", "b")
    lab.fill("written", "by a container/")
    record = lab.replace_with("b", "c")
    assert lab.names() == ["b", "c", "lost+found"]
    assert (record.generations, record.trash) == ((), ())
    assert lab.dest.stat().st_mtime_ns == 5


def test_a_mount_with_lost_and_found_alone_is_empty(lab: Lab) -> None:
    lab.fill("lost+found/")
    with lab.steps() as (_locked, steps):
        assert not steps.holds_foreign(Record())
        assert not steps.has_something(Record(), True)
        lab.fill("other")
        assert steps.holds_foreign(Record())
        assert steps.has_something(Record(), False)


def test_an_image_that_brings_lost_and_found(lab: Lab) -> None:
    """Section 7: an error, and dest stays as it was."""
    lab.replace_with("a")
    lab.fill("lost+found/")
    with lab.steps() as (locked, steps):
        record = lab.stage(steps, locked.load(), "b", "lost+found")
        with pytest.raises(RootfsError) as caught:
            steps.commit(record)
        steps.abandon(locked.load())
    assert caught.value.message == (
        f"the image has 'lost+found', a name that is reserved at the top of '{lab.dest}';"
        " use a directory below the mount point as dest"
    )
    assert lab.names() == ["a", "lost+found"]
    assert lab.dest.stat().st_mtime_ns == 5


@pytest.mark.parametrize("who", ["it holds", "the image has"])
def test_too_many_names_at_the_top(lab: Lab, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    """Section 7: a container cannot make a run hold and record any number of names."""
    monkeypatch.setattr(mounted_dest, "_MOST_NAMES", 3)
    if who == "it holds":
        lab.fill("a", "b", "c", "d/")
    with lab.steps() as (locked, steps):
        record = lab.stage(steps, locked.load(), *("efgh" if who == "the image has" else "e"))
        with pytest.raises(RootfsError) as caught:
            steps.commit(record)
        steps.abandon(locked.load())
    assert caught.value.message == (
        f"'{lab.dest}' is a mount point, and {who} more than 3 names at the top, too many to move one by one;"
        " use a directory below the mount point as dest"
    )
    assert lab.names() == (["a", "b", "c", "d"] if who == "it holds" else [])


def test_lost_and_found_of_an_image_where_there_is_none(lab: Lab) -> None:
    lab.replace_with("a", "lost+found")
    assert lab.names() == ["a", "lost+found"]


def test_what_force_replaces_is_kept(lab: Lab) -> None:
    """Section 7: nothing but foreign content is kept in a mount point, and its path can be told."""
    lab.fill("foreign", "more/")
    record = lab.replace_with("a")
    with lab.steps() as (_locked, steps):
        (kept,) = steps.path_of_kept(record)
        assert not steps.holds_foreign(record)
    assert sorted(os.listdir(kept)) == ["foreign", "more"]
    record = lab.replace_with("b")
    assert lab.names() == sorted(["b", os.path.basename(os.path.dirname(kept))])
    assert sorted(os.listdir(kept)) == ["foreign", "more"]


def test_what_took_our_trees_place_is_kept(lab: Lab) -> None:
    """Another file system is mounted there today; the record of the old one does not make it ours."""
    record = lab.replace_with("a")
    (lab.dest / "a").unlink()
    lab.dest.rmdir()
    lab.dest.mkdir()
    lab.fill("foreign")
    with lab.steps() as (_locked, steps):
        assert steps.current(record) is None
        assert steps.holds_foreign(record)
    record = lab.replace_with("b")
    with lab.steps() as (_locked, steps):
        (kept,) = steps.path_of_kept(record)
    assert os.listdir(kept) == ["foreign"]


# -- the root directory's own metadata


def test_metadata_of_the_mounts_root(lab: Lab) -> None:
    """It gets what the image's root has, and loses what the earlier one left."""
    set_xattr_or_skip(lab.dest, "user.old", b"1")
    os.setxattr(lab.dest, "user.both", b"1")
    with lab.steps() as (locked, steps):
        record = lab.stage(steps, locked.load(), "a", mode=0o1751)
        assert record.next is not None
        new = lab.dest / record.next.name / "new"
        os.setxattr(new, "user.both", b"2")
        os.utime(new, ns=(7, 7))
        steps.commit(record)
    node = tree(lab.dest)["."]
    assert node.mode == 0o1751
    assert node.xattrs == {"user.both": b"2"}


@needs_root
def test_the_owner_of_the_mounts_root(lab: Lab) -> None:
    with lab.steps() as (locked, steps):
        record = lab.stage(steps, locked.load(), "a")
        assert record.next is not None
        os.chown(lab.dest / record.next.name / "new", 12, 34)
        steps.commit(record)
    node = tree(lab.dest)["."]
    assert (node.uid, node.gid) == owned(12, 34)


# -- records of each phase, by hand


@pytest.mark.parametrize("had", [True, False])
@pytest.mark.parametrize("made", [True, False])
def test_unpacking(lab: Lab, had: bool, made: bool) -> None:
    """The staging goes; the root's time does not show that it was there."""
    record = lab.replace_with("a") if had else Record()
    if made:
        lab.fill(".n/")
    with lab.steps() as (locked, steps):
        locked.save(replace(record, next=Tree(BY_NAME, name=".n"), phase=UNPACKING))
        assert steps.recover(locked.load()) == locked.load() == record
    assert lab.names() == (["a"] if had else [])
    if had:
        assert lab.dest.stat().st_mtime_ns == 5
    else:
        # no record is left that would speak of a mount point
        assert not lab.states.joinpath("hypervisor.oci").exists()


def test_staged(lab: Lab) -> None:
    """What an earlier run staged is thrown away: a container could have changed it since."""
    before = lab.replace_with("a")
    with lab.steps() as (locked, steps):
        record = lab.stage(steps, locked.load(), "b")
        # what waits is no content of the old tree, nor foreign
        assert not steps.holds_foreign(record)
        assert not steps.has_staged(record)
        assert steps.recover(locked.load()) == before == locked.load()
    assert lab.names() == ["a"]
    assert lab.dest.stat().st_mtime_ns == 5


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("stop", range(12))
def test_moving(lab: Lab, monkeypatch: pytest.MonkeyPatch, stop: int, keeps: bool) -> None:
    """Stopped after each single move: what is half done is ours, is never what is asked for, and is made anew."""
    old = {"one", "two", "both"}
    if keeps:
        lab.fill(*old)
    else:
        lab.replace_with(*sorted(old))
    lab.fill("lost+found/")
    moves = [0]
    real = mounted_dest.move

    def move(*arguments: t.Any) -> None:
        if moves[0] == stop:
            raise KeyboardInterrupt
        moves[0] += 1
        real(*arguments)

    with lab.steps() as (locked, steps):
        record = lab.stage(steps, locked.load(), "both", "new", "three")
        monkeypatch.setattr(mounted_dest, "move", move)
        with contextlib.suppress(KeyboardInterrupt):
            steps.commit(record)
        monkeypatch.setattr(mounted_dest, "move", real)
        record = locked.load()
        half = record.phase == MOVING
        assert half is (stop < 6)
        if half:
            assert steps.current(record) is None
            assert not steps.holds_foreign(record)
            assert steps.abandon(record) == record
        record = steps.recover(record)
        assert record == locked.load()
        assert steps.recover(record) == record
        current = steps.current(record)
        assert current is not None
        assert (current.fingerprint == {"label": "bothnewthree"}) is not half
        assert not steps.holds_foreign(record)
        record = steps.commit(lab.stage(steps, record, "both", "new", "three"))
        kept = steps.path_of_kept(record)
    visible = [name for name in lab.names() if not name.startswith(".")]
    assert visible == ["both", "lost+found", "new", "three"]
    assert [set(os.listdir(path)) for path in kept] == ([old] if keeps else [])
    assert len(lab.names()) == 4 + keeps


def test_moving_when_the_staging_is_gone(lab: Lab) -> None:
    """What cannot be finished never passes for provisioned."""
    lab.fill("a", "b")
    with lab.steps() as (locked, steps):
        locked.save(
            Record(
                tree=Tree(BY_NAME, {"label": "old"}),
                next=Tree(BY_NAME, {"label": "new"}, name=".n"),
                phase=MOVING,
                old_names=("a",),
                new_names=("b",),
            )
        )
        record = steps.recover(locked.load())
        assert (record.tree, record.next, record.phase) == (None, None, "")
        assert steps.current(record) is None
        assert steps.holds_foreign(record)
    assert lab.names() == ["a", "b"]


@pytest.mark.parametrize("how", ["link", "open", "names", "gone"])
def test_moving_when_a_container_changed_the_staging(lab: Lab, how: str) -> None:
    """What the user's own force replaced is not thrown away, and no run fails for it."""
    lab.fill("foreign", "more/")
    with lab.steps() as (locked, steps):
        record = lab.stage(steps, locked.load(), "a", "b")
        assert record.next is not None
        staging = lab.dest / record.next.name
        old = staging / "old"
        if how == "link":
            old.symlink_to("/")
        else:
            old.mkdir(0o777 if how == "open" else 0o700)
            os.rename(lab.dest / "foreign", old / "foreign")
        if how == "open":
            old.chmod(0o777)
        if how == "names":
            lab.fill("foreign")
        locked.save(replace(record, phase=MOVING, aside="foreign", old_names=("foreign", "more"), new_names=("a", "b")))
        if how == "gone":
            staging.rename(lab.dest.parent / "gone")
        record = steps.recover(locked.load())
        assert steps.recover(locked.load()) == record
        if how == "gone":
            assert steps.holds_foreign(record)
            return
        assert [tree.name for tree in record.generations] == [staging.name]
        steps.commit(lab.stage(steps, record, "c"))
    assert lab.names() == sorted(["c", staging.name])
    if how != "link":
        assert (old / "foreign").exists()
    assert Path("/etc").is_dir()


def test_removing(lab: Lab) -> None:
    """A removal that was stopped is finished."""
    lab.fill("foreign")
    record = lab.replace_with("a", "b")
    lab.fill("lost+found/")
    (lab.dest / "a").unlink()
    with lab.steps() as (locked, steps):
        locked.save(replace(record, removing=True))
        assert steps.current(locked.load()) is None
        assert not steps.holds_foreign(locked.load())
        record = steps.recover(locked.load())
        (kept,) = steps.path_of_kept(record)
        assert record == Record(generations=record.generations)
    assert os.listdir(kept) == ["foreign"]
    assert len(lab.names()) == 2


# -- removal, errors


@pytest.mark.parametrize("force", [False, True])
def test_removal(lab: Lab, force: bool) -> None:
    """Section 7, absent; foreign content stays, unless force is given again."""
    lab.fill("lost+found/", "foreign")
    record = lab.replace_with("a")
    with lab.steps() as (locked, steps):
        record = lab.stage(steps, record, "b")
        assert steps.has_something(record, False)
        kept = steps.remove(record, force)
        if force:
            assert (kept, locked.load()) == ([], Record())
        else:
            assert [os.listdir(path) for path in kept] == [["foreign"]]
            assert not steps.has_something(locked.load(), False)
            assert steps.has_something(locked.load(), True)
    assert len(lab.names()) == (1 if force else 2)
    assert lab.states.joinpath("hypervisor.oci").exists() is not force


def test_no_earlier_tree_is_kept(lab: Lab) -> None:
    lab.replace_with("a")
    record = lab.replace_with("b")
    with lab.steps() as (_locked, steps):
        for call in (steps.previous, steps.restore_previous):
            with pytest.raises(RootfsError) as caught:
                call(record)
            assert caught.value.message == (
                f"'{lab.dest}' is a mount point, where no earlier tree is kept;" " provision the earlier image again"
            )


@pytest.mark.parametrize("whole", [False, True])
def test_abandoned(lab: Lab, whole: bool) -> None:
    """After an error nothing of the new tree is left."""
    before = lab.replace_with("a")
    with lab.steps() as (locked, steps):
        if whole:
            lab.stage(steps, before, "b")
        else:
            _record, fd = steps.stage(before)
            os.close(fd)
        assert steps.abandon(locked.load()) == before == locked.load()
    assert lab.names() == ["a"]
    assert lab.dest.stat().st_mtime_ns == 5


def test_abandoned_on_the_first_run(lab: Lab) -> None:
    with lab.steps() as (locked, steps):
        _record, fd = steps.stage(locked.load())
        os.close(fd)
        steps.abandon(locked.load())
    assert lab.names() == []
    assert not lab.states.joinpath("hypervisor.oci").exists()


def test_a_mount_that_is_gone(lab: Lab) -> None:
    with lab.steps() as (_locked, steps):
        lab.dest.rmdir()
        with pytest.raises(RootfsError) as caught:
            steps.holds_foreign(Record())
    assert caught.value.message == f"'{lab.dest}' is gone; mount it and run again"


def test_nothing_is_staged(lab: Lab) -> None:
    with lab.steps() as (_locked, steps):
        with pytest.raises(RootfsError, match="no tree is staged; run again"):
            steps.commit(Record())
        with pytest.raises(RootfsError) as caught:
            steps.commit(Record(next=Tree(BY_NAME, name=".n"), phase=STAGED))
    assert caught.value.message == f"the staging of '{lab.dest}' is gone; run again"


def test_the_staging_is_another_one(lab: Lab) -> None:
    """A container that runs although it should not put another tree there."""
    lab.replace_with("a")
    with lab.steps() as (locked, steps):
        record = lab.stage(steps, locked.load(), "b")
        assert record.next is not None
        new = lab.dest / record.next.name / "new"
        new.rename(new.parent / "other")
        new.mkdir()
        with pytest.raises(RootfsError, match="is gone or was replaced; stop what uses"):
            steps.commit(record)
    assert "a" in lab.names()


def test_a_mount_in_use(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 7: before anything is moved or removed; not where it is ignored."""

    def require_unused(_fd: int, path: str) -> None:
        raise RootfsError(f"{path} in use")

    lab.replace_with("a")
    monkeypatch.setattr(mounted_dest, "require_unused", require_unused)
    with lab.steps() as (locked, steps):
        record = lab.stage(steps, locked.load(), "b")
        with pytest.raises(RootfsError, match="in use"):
            steps.commit(record)
        assert (lab.dest / "a").exists()
        moving = replace(record, phase=MOVING, old_names=("a",), new_names=("b",))
        for half in (moving, replace(record, removing=True)):
            with pytest.raises(RootfsError, match="in use"):
                steps.recover(half)
        MountedDest(locked, True).commit(record)
    assert lab.names() == ["b"]


def test_what_cannot_be_removed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 7: it is put aside where it is in the way of nothing, with a warning, and tried again."""
    lab.fill("lost+found/")
    lab.replace_with("a", "stuck")
    real = os.unlink
    code = errno.EIO

    def unlink(name: t.Any, **options: t.Any) -> None:
        if name == b"stuck":
            raise OSError(code, os.strerror(code))
        real(name, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    with lab.steps() as (locked, steps):
        record = steps.commit(lab.stage(steps, locked.load(), "b"))
        (trash,) = record.trash
        warning = (
            "'{0}' is no longer needed, but could not be removed completely: '{0}{1}/stuck' (input/output error);"
            " the disk or its connection fails: look at the kernel's log; the next run tries again"
        )
        old = f"{lab.dest}/{trash.name}"
        assert locked.warnings == [warning.format(old, "/old")]
        assert not steps.holds_foreign(record)
        assert lab.names() == sorted([trash.name, "b", "lost+found"])
        assert lab.dest.stat().st_mtime_ns == 5
    lab.fill("stuck")
    with lab.steps() as (locked, steps):
        assert steps.recover(locked.load()) == record
        assert steps.remove(record, False) == []
        record = locked.load()
        (rest,) = record.trash
        assert lab.names() == sorted([rest.name, "lost+found"])
        assert locked.warnings[1].startswith(f"'{lab.dest}/{rest.name}' is no longer")
        assert f"'{lab.dest}/{rest.name}/stuck'" in locked.warnings[1]
        assert f"'{lab.dest}/{rest.name}/{trash.name}/old/stuck'" in locked.warnings[1]
        # it is not in the way of what comes next
        assert not steps.holds_foreign(record)
        record = steps.commit(lab.stage(steps, record, "stuck"))
        assert lab.names() == sorted([rest.name, "lost+found", "stuck"])
        monkeypatch.setattr(os, "unlink", real)
        assert steps.recover(record).trash == ()
        assert lab.names() == ["lost+found", "stuck"]


# -- with a mount


@needs_root
def test_whole_runs_on_a_mount(lab: Lab, tmp_path: Path) -> None:
    """Section 7, mount points: provision, nothing to do, update, check, absent."""
    one = Image([Layer(directory(".", 0o751, mtime=7), file("etc/f", "one"), file("old"))])
    two = Image([Layer(file("etc/f", "two")), Layer(opaque("etc"), file("new", mtime=9))])
    sources = [write_oci_archive(tmp_path / f"{number}.tar", image) for number, image in enumerate((one, two))]
    with mounted(lab.dest):
        assert run(lab.dest, check_mode=True, src=sources[0])["changed"]
        assert not lab.names()
        assert run(lab.dest, src=sources[0])["changed"]
        before = tree(lab.dest)
        assert contents(lab.dest) == {"etc": None, "etc/f": b"one", "old": b""}
        assert (before["."].mode, before["."].mtime) == (0o751, 7 * 10**9)
        assert not run(lab.dest, src=sources[0])["changed"]
        assert tree(lab.dest) == before
        assert run(lab.dest, src=sources[1])["changed"]
        assert contents(lab.dest) == {"etc": None, "new": b""}
        assert not run(lab.dest, src=sources[1])["changed"]
        assert run(lab.dest, src=sources[0])["changed"]
        assert tree(lab.dest) == before
        assert run(lab.dest, state="absent", check_mode=True)["changed"]
        assert tree(lab.dest) == before
        assert run(lab.dest, state="absent")["changed"]
        assert lab.names() == []
        assert not run(lab.dest, state="absent")["changed"]
    assert not lab.states.joinpath("hypervisor.oci").exists()


@contextlib.contextmanager
def changing_container(top: Path) -> t.Iterator[None]:
    """A process whose root is ``top``: it has changed the file ``f`` of every tree that it can see, and runs."""
    code = (
        "import os, sys\n"
        f"os.chroot({str(top)!r})\nos.chdir('/')\n"
        "for folder, _folders, files in os.walk('/'):\n"
        "  if 'f' in files: open(folder + '/f', 'w').write('changed')\n"
        "print('done', flush=True)\n"
        "sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "done\n"
        yield
    finally:
        child.communicate()


@needs_root
def test_nothing_is_staged_in_a_mount(lab: Lab, tmp_path: Path) -> None:
    """The container could change it before it is used, whether it runs now or is started in between."""
    one = write_oci_archive(tmp_path / "1.tar", Image([Layer(file("f", "one"))]))
    two = write_oci_archive(tmp_path / "2.tar", Image([Layer(file("f", "two"))]))
    with mounted(lab.dest):
        run(lab.dest, src=one)
        for check_mode in (True, False):
            with pytest.raises(RootfsError) as caught:
                run(lab.dest, check_mode, src=two, state="staged")
            assert caught.value.message == (
                f"'{lab.dest}' is a mount point, where the container could change a staged tree before it is used;"
                " stop the container and use state: present, or use a directory below the mount point as dest"
            )
        assert lab.names() == ["f"]


@needs_root
def test_a_staged_tree_that_a_container_changed(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an earlier release left it in a mount: what is not verified in this run is not used."""
    one = write_oci_archive(tmp_path / "1.tar", Image([Layer(file("f", "one"))]))
    two = write_oci_archive(tmp_path / "2.tar", Image([Layer(file("f", "two"))]))
    with mounted(lab.dest):
        run(lab.dest, src=one)
        with monkeypatch.context() as patch:
            patch.setattr(provision, "require_stageable", lambda _target: None)
            assert run(lab.dest, src=two, state="staged")["changed"]
        with changing_container(lab.dest), pytest.raises(RootfsError, match="with its root"):
            run(lab.dest, src=two)
        assert run(lab.dest, src=two)["changed"]
        assert contents(lab.dest) == {"f": b"two"}
        assert not run(lab.dest, src=two)["changed"]


@needs_root
@pytest.mark.parametrize("moved", range(5))
def test_a_move_that_was_stopped_and_changed(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    """A container that was started on what is half done cannot make its own files pass for the image's."""
    one = write_oci_archive(tmp_path / "1.tar", Image([Layer(file("a"), file("b"))]))
    two = Image([Layer(file("d/f", "two"), file("f", "two"))])
    source = write_oci_archive(tmp_path / "2.tar", two)
    moves = [0]
    real = mounted_dest.move

    def move(*arguments: t.Any) -> None:
        if moves[0] == moved:
            raise KeyboardInterrupt
        moves[0] += 1
        real(*arguments)

    with mounted(lab.dest):
        run(lab.dest, src=one)
        with monkeypatch.context() as patch:
            patch.setattr(mounted_dest, "move", move)
            with contextlib.suppress(KeyboardInterrupt):
                run(lab.dest, src=source)
        done = moved == 4
        if not done:
            with changing_container(lab.dest), pytest.raises(RootfsError, match="with its root"):
                run(lab.dest, src=source)
        assert run(lab.dest, src=source, check_mode=True)["changed"] is not done
        assert run(lab.dest, src=source)["changed"] is not done
        assert contents(lab.dest) == {"d": None, "d/f": b"two", "f": b"two"}
        assert not run(lab.dest, src=source)["changed"]


@needs_root
def test_another_mount_does_not_pass_for_the_old_one(lab: Lab, tmp_path: Path) -> None:
    source = write_oci_archive(tmp_path / "i.tar", Image([Layer(file("f", "x"))]))
    with mounted(lab.dest):
        run(lab.dest, src=source)
    with mounted(lab.dest):
        (lab.dest / "foreign").touch()
        with pytest.raises(RootfsError, match="was not made by this module"):
            run(lab.dest, src=source)
        result = run(lab.dest, src=source, force=True)
        (warning,) = result["warnings"]
        assert warning.startswith("what was at dest before this module came is kept in ")
        assert (lab.dest / "f").exists()
        assert "/old;" in warning


@needs_root
def test_a_full_mount_keeps_the_old_tree(lab: Lab, tmp_path: Path) -> None:
    """Section 7: running out of room is an error that leaves the old tree as it was."""
    small = write_oci_archive(tmp_path / "s.tar", Image([Layer(file("f", "x"))]))
    huge = Layer(file("a"), file("d/huge", bytes(8 * 1024 * 1024)))
    large = write_oci_archive(tmp_path / "l.tar", Image([huge]))
    with mounted(lab.dest):
        run(lab.dest, src=small)
        before = tree(lab.dest)
        with pytest.raises(Exception, match="no room left") as caught:
            run(lab.dest, src=large)
        assert str(caught.value) == (
            f"layer {huge.digest}, entry 'd/huge': cannot be written: the file system has no room left"
            " (blocks or inodes); make room there and run again"
        )
        assert tree(lab.dest) == before
        assert not run(lab.dest, src=small)["changed"]


@needs_root
@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_a_container_cannot_keep_its_mount(lab: Lab, tmp_path: Path, kind: str) -> None:
    """Section 7: by attributes or read-only subvolumes, of the mount's own root too."""
    sources = [
        write_oci_archive(tmp_path / f"{text}.tar", Image([Layer(file("f", text), file("d/g", text))]))
        for text in ("one", "two")
    ]
    with loop_mounted(lab.dest, tmp_path / "disk", kind):
        run(lab.dest, src=sources[0])
        steps: list[dict[str, t.Any]] = [{"src": sources[1]}, {"src": sources[0]}, {"state": "absent"}]
        for changes in steps:
            if kind == "btrfs":
                for words in (
                    f"subvolume create {lab.dest}/sub",
                    f"subvolume snapshot -r {lab.dest}/sub {lab.dest}/d/copy",
                    f"property set -ts {lab.dest}/sub ro true",
                ):
                    command("btrfs", *words.split())
            command("chattr", "+a", f"{lab.dest}/d")
            command("chattr", "+i", *(f"{lab.dest}/{name}" for name in ("f", "d/g", "")))
            if kind == "btrfs":
                command("btrfs", "property", "set", "-ts", str(lab.dest), "ro", "true")
            result = run(lab.dest, **changes)
            assert (result["changed"], result["warnings"]) == (True, [])
            expected = {"d", "f"} if "src" in changes else set()
            assert {*lab.names()} - {"lost+found"} == expected
