# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that were merely touched do not stay suspects for ever (docs/behaviour.md, section 17)."""

from __future__ import annotations

import os
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest import view_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest_path import resolve_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._drift import content
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.exclusions import parse_exclusions
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.options import Verifying
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.descriptors import opened
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.stack import opened_tree
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import verify
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.audit import Audit
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.inspect import describe_dest
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    directory,
    file,
    hardlink,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import beside_of
from ansible_collections.hypervisor.oci.tests.unit.support import loop_mounted, needs_root, run, without_waiting

pytestmark = needs_root

TIME = 1_600_000_000
LOWER = Layer(
    directory("etc", 0o755), *(file(f"etc/{name}", f"the {name}", mtime=TIME) for name in ("a", "b", "c", "d"))
)
UPPER = Layer(file("etc/b", b"the B of the upper", mtime=TIME), file("one", b"1", mtime=TIME), hardlink("two", "one"))
IMAGE = Image([LOWER, UPPER])


class Lab(t.NamedTuple):
    """A tree that was unpacked a moment ago."""

    top: Path
    src: str
    store: str

    def verify(self, level: str = "metadata", check_mode: bool = False, **options: t.Any) -> dict[str, t.Any]:
        """What a run finds."""
        found = run(self.top, check_mode, src=self.src, store_dir=self.store, verify=level, **options)
        assert options or found["changed"] is False
        return dict(found["drift"])

    def suspects(self, **options: t.Any) -> list[str]:
        """What metadata suspects."""
        drift = self.verify(**options)
        assert drift["verdict"] in ("suspect", "clean")
        return list(drift["suspects"]["paths"])

    def change(self, act: t.Callable[[Path], t.Any]) -> None:
        """Do something in the tree, in another tick of the clock than what came before and comes next."""
        time.sleep(0.02)
        with opened(os.open(self.top, os.O_RDONLY)) as fd, opened_tree(fd, str(self.top), True) as root:
            act(Path(f"/proc/self/fd/{root}"))
        time.sleep(0.02)

    def papers(self) -> list[str]:
        """Names of what is kept about touched files."""
        return [path.name for path in beside_of(self.top).glob("*.proven*")]


@pytest.fixture(name="src")
def fixture_src(tmp_path: Path) -> str:
    return write_oci_archive(tmp_path / "image.tar", IMAGE)


@pytest.fixture(name="lab")
def fixture_lab(tmp_path: Path, src: str, monkeypatch: pytest.MonkeyPatch) -> Lab:
    without_waiting(monkeypatch)
    return _made(tmp_path, src, "")


@pytest.fixture(name="any_lab", params=["", "btrfs", "ext4"])
def fixture_any_lab(
    tmp_path: Path, src: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[Lab]:
    """A tree of its own, a snapshot, or a stack."""
    without_waiting(monkeypatch)
    if not request.param:
        yield _made(tmp_path, src, "")
        return
    point = tmp_path / "disk"
    point.mkdir(0o700)
    with loop_mounted(point, tmp_path / "disk.raw", request.param):
        lab = _made(point, src, str(point / "store"))
        yield lab
        run(lab.top, state="absent")


def _made(folder: Path, src: str, store: str) -> Lab:
    (folder / "guests").mkdir(0o700)
    lab = Lab(folder / "guests/web", src, store)
    run(lab.top, src=src, store_dir=store)
    time.sleep(0.02)
    return lab


def rewrite(path: Path, data: bytes) -> None:
    """Write another content of the same length, and put the time back."""
    with open(path, "r+b") as file_:
        file_.write(data)
    os.utime(path, (TIME, TIME))


def touch_some(root: Path) -> None:
    (root / "etc/a").touch()
    os.chmod(root / "etc/b", 0o644)
    os.utime(root / "etc/c", (5, 5))


def test_a_touched_file_is_judged_once(any_lab: Lab) -> None:
    """In trees of their own, snapshots and stacks; the store's records stay as they are."""
    lab = any_lab

    def of_store() -> dict[str, tuple[int, int]]:
        paths = (Path(lab.store) / "r").iterdir() if lab.store else ()
        return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in paths}

    before = of_store()
    lab.change(touch_some)
    assert lab.suspects() == ["/etc/a", "/etc/b", "/etc/c"]
    assert lab.verify("content")["verdict"] == "clean"
    assert lab.suspects() == []
    assert len(lab.papers()) == 1
    assert of_store() == before
    # another touch makes another suspect
    lab.change(lambda root: (root / "etc/a").touch())
    assert lab.suspects() == ["/etc/a"]
    lab.change(lambda root: rewrite(root / "etc/b", b"tHE b of the upper"))
    assert lab.suspects() == ["/etc/a", "/etc/b"]
    assert [item["path"] for item in lab.verify("content")["changed"]["files"]] == ["/etc/b"]
    assert lab.suspects() == ["/etc/b"]


def test_who_may_not_write_notes_nothing(lab: Lab) -> None:
    """Check mode and ``oci_rootfs_info`` only tell."""
    lab.change(touch_some)
    assert lab.verify("content", True)["verdict"] == "clean"
    how = Audit(Verifying("content", parse_exclusions(None, None), 600.0), lab.src)
    assert describe_dest(str(lab.top), False, how)["drift"]["verdict"] == "clean"
    assert lab.papers() == []
    assert len(lab.suspects()) == 3
    # what is noted counts for both
    lab.verify("content")
    assert lab.suspects(check_mode=True) == []
    how = Audit(Verifying("metadata", parse_exclusions(None, None), 600.0))
    assert describe_dest(str(lab.top), False, how)["drift"]["verdict"] == "clean"


def test_nothing_is_written_without_need(lab: Lab) -> None:
    lab.verify("content")
    assert lab.papers() == []
    lab.change(touch_some)
    lab.verify("content")
    (paper,) = beside_of(lab.top).glob("*.proven")
    inode = paper.stat().st_ino
    lab.verify("content")
    assert paper.stat().st_ino == inode


def test_what_was_left_out_is_not_proven(lab: Lab) -> None:
    lab.change(touch_some)
    assert lab.verify("content", verify_exclude=["/etc/a"])["verdict"] == "clean"
    assert lab.suspects() == ["/etc/a"]


def test_what_changes_meanwhile_stays_a_suspect(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the moment in which it is read, before, and just after."""
    lab.change(touch_some)
    opening, settled = content._Check._open, content._File.is_settled

    def touched_before(check: t.Any, place: t.Any) -> t.Any:
        if place.name == "a":
            (lab.top / "etc/a").touch()
        return opening(check, place)

    def changed_after(file_: t.Any) -> bool:
        found = settled(file_)
        if file_.place.name == "b":
            rewrite(lab.top / "etc/b", b"tHE b of the upper")
        return found

    monkeypatch.setattr(content._Check, "_open", touched_before)
    monkeypatch.setattr(content._File, "is_settled", changed_after)
    lab.verify("content")
    monkeypatch.undo()
    assert lab.suspects() == ["/etc/a", "/etc/b"]
    assert [item["path"] for item in lab.verify("content")["changed"]["files"]] == ["/etc/b"]


def test_a_time_to_come_proves_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the clock was set back, a file could get the same times once more."""
    lab.change(touch_some)
    lab.change(lambda root: (root / "etc/a").touch())
    with monkeypatch.context() as patch:
        # the file is as new as the moment in which it is compared
        patch.setattr(verify, "change_time", lambda _fd: (lab.top / "etc/a").stat().st_ctime_ns)
        lab.verify("content")
    assert lab.suspects() == ["/etc/a"]


def test_names_of_one_file(lab: Lab) -> None:
    lab.change(lambda root: (root / "two").touch())
    assert lab.suspects() == ["/one"]
    lab.verify("content")
    assert lab.suspects() == []


def test_names_that_were_one_file(lab: Lab) -> None:
    """A name that is a file of its own now is a finding, and proves nothing of the other one."""

    def split(root: Path) -> None:
        (root / "two").unlink()
        (root / "two").write_bytes(b"1")
        os.utime(root / "two", (TIME, TIME))

    lab.change(split)
    assert lab.verify("content")["changed"]["count"] == 1
    assert lab.papers() == []


@pytest.mark.parametrize("data", [b"", b"oci-proven-1\n", b"oci-proven-1\nxxxx", b"other", bytes(range(200))])
def test_what_is_damaged_proves_nothing(lab: Lab, data: bytes) -> None:
    lab.change(touch_some)
    lab.verify("content")
    (paper,) = beside_of(lab.top).glob("*.proven")
    whole = paper.read_bytes()
    for damaged in (data, whole[:-5], whole[:-1]):
        paper.write_bytes(damaged)
        assert len(lab.suspects()) == 3
    lab.verify("content")
    assert lab.suspects() == []


def test_an_interrupted_note(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was known before is known, and nothing else lies beside the tree."""
    lab.change(lambda root: (root / "etc/a").touch())
    lab.verify("content")
    lab.change(lambda root: (root / "etc/b").touch())

    def interrupted(*_args: t.Any, **_options: t.Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "rename", interrupted)
        lab.verify("content")
    assert lab.suspects() == ["/etc/b"]
    assert len(lab.papers()) == 1
    lab.verify("content")
    assert lab.suspects() == []
    assert not (beside_of(lab.top) / "record.json.new").exists()


def test_it_goes_with_its_tree(lab: Lab) -> None:
    lab.change(touch_some)
    lab.verify("content")
    run(lab.top, src=lab.src, recreate=True)
    assert lab.suspects() == []
    run(lab.top, state="previous")
    assert lab.suspects() == []
    run(lab.top, src=lab.src, recreate=True, keep=0)
    assert lab.papers() == []


def test_a_place_where_nothing_can_be_made(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is whole all the same."""

    def failing(_fd: int) -> int:
        raise OSError(30, "Read-only file system")

    lab.change(touch_some)
    monkeypatch.setattr(verify, "change_time", failing)
    assert lab.verify("content")["verdict"] == "clean"
    assert len(lab.suspects()) == 3


@pytest.mark.parametrize("level", ["metadata", "content"])
def test_what_a_repair_makes_is_no_suspect(lab: Lab, level: str) -> None:
    """Whatever else is one; a file that only gets its permissions back is one, unless its content was compared."""

    def change(root: Path) -> None:
        (root / "etc/a").unlink()
        os.chmod(root / "etc/b", 0o600)
        (root / "etc/c").touch()

    lab.change(change)
    assert lab.verify(level, repair="paths")["verdict"] == "drifted"
    assert lab.suspects() == (["/etc/b", "/etc/c"] if level == "metadata" else [])


def test_a_repair_of_permissions_hides_no_content(lab: Lab) -> None:
    """A file that has another mode and another content, too, is a suspect when the mode is put back."""

    def change(root: Path) -> None:
        rewrite(root / "etc/a", b"THE a")
        os.chmod(root / "etc/a", 0o600)

    lab.change(change)
    lab.verify(repair="paths")
    assert lab.suspects() == ["/etc/a"]
    assert [item["path"] for item in lab.verify("content")["changed"]["files"]] == ["/etc/a"]


def test_a_repair_while_the_tree_may_be_used_proves_nothing(lab: Lab) -> None:
    lab.change(lambda root: (root / "etc/a").unlink())
    lab.verify("content", repair="paths", in_use="ignore")
    assert lab.suspects() == ["/etc/a"]


def test_it_is_read_from_a_closed_folder(lab: Lab) -> None:
    lab.change(touch_some)
    lab.verify("content")
    with view_dest(resolve_dest(str(lab.top))) as (dest, _busy):
        (name,) = lab.papers()
        assert os.stat(name, dir_fd=dest.state).st_mode & 0o777 == 0o600
        assert os.fstat(dest.state).st_mode & 0o077 == 0
