# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stack is compared by its upper directory, with the findings of the whole tree (docs/behaviour.md, section 17)."""

from __future__ import annotations

import contextlib
import os
import random
import stat
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest import view_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest_path import resolve_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.compare import compare
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.exclusions import parse_exclusions
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.objects import Looks
from ansible_collections.hypervisor.oci.plugins.module_utils._drift.options import Verifying
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.beneath import Beneath
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.descriptors import opened
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.directories import DIRECTORY
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.removal import try_remove_tree
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.stack import opened_tree
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import verify as verifying
from ansible_collections.hypervisor.oci.tests.images.builder import write_oci_archive
from ansible_collections.hypervisor.oci.tests.unit.plugins.module_utils._provision import test_drift_runs as runs
from ansible_collections.hypervisor.oci.tests.unit.support import loop_mounted, needs_root, run, without_waiting

pytestmark = needs_root

Result = t.Dict[str, t.Any]


class Lab(t.NamedTuple):
    """A stack on an ext4, unpacked a moment ago."""

    dest: Path
    src: str

    def run(self, level: str = "metadata", **options: t.Any) -> Result:
        """A run that compares it."""
        store = str(self.dest.parent.parent / "store")
        return run(self.dest, src=self.src, store_dir=store, verify=level, **options)

    @contextlib.contextmanager
    def inside(self) -> t.Iterator[Path]:
        """What a container sees, to write to."""
        with contextlib.ExitStack() as stack:
            fd = stack.enter_context(opened(os.open(self.dest, os.O_RDONLY)))
            yield Path(f"/proc/self/fd/{stack.enter_context(opened_tree(fd, str(self.dest), True))}")

    def by_both(self, **exclusions: t.Any) -> tuple[Result, Result]:
        """What the upper directory tells, and what the whole tree does."""
        how = Verifying("metadata", parse_exclusions(exclusions.get("paths"), exclusions.get("extra")), 60.0)
        with view_dest(resolve_dest(str(self.dest))) as (dest, _busy):
            tree = dest.load().tree
            assert tree is not None and tree.form == "overlay"
            basis = verifying.read_basis(dest, tree, how.exclusions)
            assert isinstance(basis, verifying.Basis)
            upper = verifying.compare_metadata(dest, basis, how)
            with verifying.opening(dest) as top:
                whole = compare(top, basis.recorded, basis.rules, basis.looks, time.monotonic() + 60)
        assert upper.suspects == whole.suspects
        assert upper.files.keys() == whole.files.keys()
        return upper.drift.to_result(), whole.drift.to_result()

    def require_same(self, **exclusions: t.Any) -> Result:
        """The findings, which are those of the whole tree."""
        upper, whole = self.by_both(**exclusions)
        assert upper == whole
        return upper


def remove(path: Path) -> None:
    """Remove a file or a tree of a stack's overlay, which has no path that other tests could mean."""
    with opened(os.open(path.parent, DIRECTORY)) as folder:
        assert not try_remove_tree(folder, os.fsencode(path.name))


@pytest.fixture(name="lab")
def fixture_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Lab]:
    without_waiting(monkeypatch)
    point = tmp_path / "disk"
    point.mkdir(0o700)
    with loop_mounted(point, tmp_path / "disk.raw", "ext4"):
        (point / "guests").mkdir(0o700)
        lab = Lab(point / "guests/web", write_oci_archive(tmp_path / "image.tar", runs.IMAGE))
        run(lab.dest, src=lab.src, store_dir=str(point / "store"))
        time.sleep(0.02)
        yield lab


def test_a_fresh_stack_is_clean(lab: Lab) -> None:
    drift = lab.require_same()
    assert (drift["verdict"], drift["suspects"]["count"]) == ("clean", 0)
    assert drift["entries"] > 60


def test_planted_changes_are_found(lab: Lab) -> None:
    """The same ones as in a tree of its own, by metadata and by content; a repair puts them back."""
    expected: dict[str, list[str]] = {}
    with lab.inside() as top:
        for folder in runs.FOLDERS:
            expected.update(runs.plant(top, folder))
        (top / "new").mkdir()
        (top / "new/a").write_bytes(b"")
        (top / "new/b").write_bytes(b"")
        (top / "new/b").chmod(0o4755)
        os.chmod(top / "var/lib", 0o777)
    expected.update({"/new": ["extra"], "/new/b": ["extra"], "/var/lib": ["mode"]})
    # a name that is a file of its own now is what an overlay makes of one that is opened for writing
    own = {path for path, differs in expected.items() if differs == ["links"]}
    assert own == {f"/{folder}/linked-2" for folder in runs.FOLDERS}
    for path in own:
        del expected[path]
    contents = {path for path, differs in expected.items() if differs == ["content"]}
    drift = lab.require_same()
    assert runs.found(drift) == {path: differs for path, differs in expected.items() if path not in contents}
    assert set(drift["suspects"]["paths"]) == contents | own
    assert runs.found(lab.run()["drift"]) == runs.found(drift)
    assert runs.found(lab.run("content")["drift"]) == expected
    assert lab.run(repair="paths")["changed"] is True
    drift = lab.require_same()
    extras = {path for path, differs in expected.items() if differs == ["extra"]}
    assert set(runs.found(drift)) == extras
    assert lab.run("content", repair="paths")["changed"] is True
    assert set(runs.found(lab.run("content")["drift"])) == extras


def test_directories_that_were_made_anew(lab: Lab) -> None:
    """Nothing lower is seen in them, at any depth."""
    with lab.inside() as top:
        remove(top / "var/lib")
        (top / "var/lib/app/closed").mkdir(parents=True)
        (top / "var/lib/app/kept").write_bytes(b"kept of var/lib/app")
        remove(top / "etc/folder")
        (top / "etc/folder").symlink_to("/usr")
        remove(top / "usr/share")
    found = runs.found(lab.require_same())
    assert found["/var/lib/app/setuid"] == ["missing"]
    assert found["/usr/share"] == ["missing"]
    assert "/var/lib/app/kept" not in found
    assert not [path for path in found if path.startswith("/usr/share/")]


def test_names_of_one_file(lab: Lab) -> None:
    """Writing to one of them makes it a file of its own; two files may become one."""
    with lab.inside() as top:
        with open(top / "etc/linked-3", "r+b") as file:
            file.write(b"SEVERAL names")
        (top / "var/lib/app/linked").unlink()
        (top / "var/lib/app/kept").unlink()
        os.link(top / "var/lib/app/edited", top / "var/lib/app/kept")
        os.link(top / "usr/share/app/linked", top / "usr/share/app/another")
    drift = lab.require_same()
    found = runs.found(drift)
    assert "/etc/linked-3" in drift["suspects"]["paths"] and "/etc/linked-3" not in found
    assert found["/usr/share/app/another"] == ["extra"]
    assert found["/var/lib/app/kept"]
    assert found["/var/lib/app/linked"] == ["missing"]
    assert "/var/lib/app/linked-2" not in found


def test_what_is_left_out(lab: Lab) -> None:
    with lab.inside() as top:
        for folder in runs.FOLDERS:
            runs.plant(top, folder)
        remove(top / "etc/closed")
    for exclusions in (
        {"paths": ["/etc", "/usr/share/app/opened"]},
        {"paths": ["/**/app", "/etc/f*"], "extra": ["/etc/e*"]},
        {"paths": ["/**/closed/**", "/*/folder"]},
    ):
        lab.require_same(**exclusions)


def test_only_what_was_written_is_looked_at(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with lab.inside() as top:
        (top / "etc/edited").write_bytes(b"edited")
        (top / "var/lib/app/removed").unlink()
    folders: list[str] = []
    judged: list[str] = []
    opening, judging = Beneath.directory, Looks.judge

    def counted(beneath: Beneath, path: str) -> int:
        folders.append(path)
        return opening(beneath, path)

    def judge(looks: Looks, fd: int, name: str, number: int, status: os.stat_result) -> t.Any:
        judged.append(name)
        return judging(looks, fd, name, number, status)

    monkeypatch.setattr(Beneath, "directory", counted)
    monkeypatch.setattr(Looks, "judge", judge)
    drift = lab.run()["drift"]
    assert runs.found(drift) == {"/etc/edited": ["size"], "/var/lib/app/removed": ["missing"]}
    assert sorted(folders) == ["", "/etc", "/var", "/var/lib", "/var/lib/app"]
    assert sorted(judged) == ["", "app", "edited", "etc", "lib", "var"]
    assert drift["entries"] > 60


def test_a_snapshot_that_somebody_wrote_to(lab: Lab) -> None:
    """Only content finds it: metadata takes lower entries for what they were."""
    (path,) = (lab.dest.parent.parent / "store/s").glob("*/etc/edited")
    with open(path, "r+b") as file:
        file.write(b"EDITED")
    os.utime(path, (runs.TIME, runs.TIME))
    assert lab.run()["drift"]["verdict"] == "clean"
    assert runs.found(lab.run("content")["drift"]) == {"/etc/edited": ["content"]}


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_container_does(lab: Lab, seed: int) -> None:
    """The findings are those of the whole tree after each of many changes."""
    chosen = random.Random(seed)
    for _step in range(12):
        with lab.inside() as top:
            for _change in range(4):
                with contextlib.suppress(OSError):
                    _change_something(chosen, top)
        lab.require_same()


def _change_something(chosen: random.Random, top: Path) -> None:
    folders = [folder for folder, _names, _files in os.walk(top) if "/dev" not in folder]
    folder = Path(chosen.choice(folders))
    names = sorted(os.listdir(folder)) or ["x"]
    path, other = folder / chosen.choice(names), Path(chosen.choice(folders)) / chosen.choice([*names, "new", "n2"])
    how = chosen.randrange(9)
    if how == 0:
        remove(path)
    elif how == 1:
        other.mkdir()
    elif how == 2 and not path.is_symlink():
        os.chmod(path, chosen.choice((0o600, 0o4755, 0o777)))
    elif how == 3:
        os.link(path, other, follow_symlinks=False)
    elif how == 4:
        path.rename(other)
    elif how == 5 and stat.S_ISREG(os.lstat(path).st_mode):
        path.write_bytes(b"written")
    elif how == 6:
        other.symlink_to("somewhere")
    elif how == 7:
        os.setxattr(path, "user.kind", b"other", follow_symlinks=False)
    elif folder != top:
        # what is removed and made again is opaque
        remove(folder)
        folder.mkdir()
