# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Updates, staged trees, the way back, and removal (docs/behaviour.md, section 7)."""

from __future__ import annotations

import os
import stat
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.tests.unit.support import Watched, contents, mounted, names, needs_root, run
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import (
    ONE,
    TWO,
    refused,
    beside_of,
    names_beside,
    everything,
)

pytestmark = pytest.mark.usefixtures("alone")


def test_an_update(dest: Path, one: str, two: str) -> None:
    run(dest, src=one)
    (dest / "written").touch()
    inode = dest.stat().st_ino
    result = run(dest, src=two)
    assert result["changed"] is True
    assert contents(dest)["bin/app"] == b"two"
    assert not (dest / "written").exists()
    assert not (dest / "data/one").exists()
    assert dest.stat().st_ino != inode
    (old,) = [path for path in beside_of(dest).iterdir() if path.is_dir()]
    assert old.stat().st_ino == inode
    assert stat.S_IMODE(beside_of(dest).stat().st_mode) == 0o700


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_how_many_are_kept(dest: Path, one: str, two: str, keep: int) -> None:
    """Section 7, earlier trees."""
    for src in (one, two, one, two):
        run(dest, src=src, keep=keep)
    assert len([path for path in beside_of(dest).iterdir() if path.is_dir()]) == keep


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_fewer_are_kept_when_nothing_else_changes(dest: Path, one: str, two: str, keep: int) -> None:
    """Section 7, earlier trees: what is to be kept no longer goes at the next run, but not in check mode."""

    def kept() -> int:
        return len([path for path in beside_of(dest).iterdir() if path.is_dir()])

    for src in (one, two, one):
        run(dest, src=src, keep=2)
    assert run(dest, src=one, keep=keep, check_mode=True)["changed"] is False
    assert kept() == 2
    assert run(dest, src=one, keep=keep)["changed"] is False
    assert kept() == keep
    assert contents(dest)["bin/app"] == b"one"


def test_previous(dest: Path, one: str, two: str) -> None:
    """Section 7: ``state: previous`` exchanges back, and gives the facts of that tree."""
    first = run(dest, src=one)
    run(dest, src=two)
    assert run(dest, state="previous", check_mode=True)["changed"] is True
    assert contents(dest)["bin/app"] == b"two"
    result = run(dest, state="previous")
    assert (result["changed"], result["ref"]) == (True, "demo:1")
    for key in ("manifest_digest", "config_digest", "layers", "image", "report", "platform"):  # fmt: skip
        assert result[key] == first[key]
    assert contents(dest)["bin/app"] == b"one"
    assert run(dest, src=one)["changed"] is False
    assert run(dest, state="previous")["manifest_digest"] == TWO.manifest_digest
    assert contents(dest)["bin/app"] == b"two"


def test_no_previous(dest: Path, one: str) -> None:
    message = f"no earlier tree of '{dest}' is kept; set keep to more than 0 before the next update"
    assert refused(dest, state="previous") == message
    assert os.listdir(dest.parent) == []
    run(dest, src=one)
    assert refused(dest, state="previous") == message
    elsewhere = dest.parent / "not" / "there"
    assert "no earlier tree" in refused(elsewhere, state="previous")
    assert not elsewhere.parent.exists()


def test_staged_and_then_present(dest: Path, one: str, two: str, sources: list[Watched]) -> None:
    """Section 7: stops after the tree is whole; the next present only exchanges."""
    run(dest, src=one)
    before = everything(dest)
    staged = run(dest, src=two, state="staged")
    assert staged["changed"] is True
    assert staged["image"]["uid"] == 1000
    assert everything(dest) == before
    again = run(dest, src=two, state="staged")
    assert again["changed"] is False
    for key in ("manifest_digest", "image", "report", "layers"):
        assert again[key] == staged[key]
    # a check predicts, and sees what is staged
    check = run(dest, src=two, check_mode=True)
    assert (check["changed"], check["report"]) == (True, staged["report"])
    del sources[:]
    result = run(dest, src=two)
    assert (result["changed"], result["report"]) == (True, staged["report"])
    assert not {layer.path for layer in TWO.layers} & set(sources[0].reads)
    assert contents(dest)["bin/app"] == b"two"
    assert run(dest, src=two)["changed"] is False


@pytest.mark.parametrize("changes", [{}, {"keep_dirlinks": True}, {"recreate": True}], ids=str)
def test_a_staged_tree_for_something_else(dest: Path, one: str, two: str, changes: dict[str, t.Any]) -> None:
    """Section 7: it is removed."""
    run(dest, src=one, keep=0)
    run(dest, src=two, state="staged", keep=0)
    src = two if changes else one
    result = run(dest, src=src, keep=0, **changes)
    assert result["changed"] is bool(changes)
    assert names_beside(dest) == ["record.json"]
    assert contents(dest)["bin/app"] == (b"two" if changes else b"one")


def test_staged_on_the_first_run(dest: Path, one: str) -> None:
    assert run(dest, src=one, state="staged")["changed"] is True
    assert not dest.exists()
    assert run(dest, src=one, state="staged")["changed"] is False
    assert run(dest, src=one)["changed"] is True
    assert contents(dest)["bin/app"] == b"one"


def test_absent(dest: Path, one: str, two: str) -> None:
    """Section 7: the tree, the record, and what is left beside it; and then nothing more."""
    run(dest, src=one)
    run(dest, src=two)
    run(dest, src=one, state="staged")
    before = everything(dest.parent)
    check = run(dest, state="absent", check_mode=True)
    assert (check["changed"], check["warnings"]) == (True, [])
    assert everything(dest.parent) == before
    result = run(dest, state="absent")
    assert result["changed"] is True
    assert (result["dest"], result["diff"]["after"]) == (str(dest), {})
    assert result["diff"]["before"]["manifest_digest"] == TWO.manifest_digest
    assert os.listdir(dest.parent) == []
    for check_mode in (True, False):
        assert run(dest, state="absent", check_mode=check_mode)["changed"] is False
    assert os.listdir(dest.parent) == []


def test_absent_where_nothing_is(tmp_path: Path) -> None:
    """Nothing is made above a dest that is to be absent."""
    for path in ("x", "a/b/c"):
        assert run(tmp_path / path, state="absent")["changed"] is False
    assert os.listdir(tmp_path) == []


def test_absent_and_foreign_trees(dest: Path, one: str) -> None:
    """Section 7: what force put aside stays, unless force is given again."""
    dest.mkdir()
    (dest / "foreign").touch()
    run(dest, src=one, force=True)
    result = run(dest, state="absent")
    (warning,) = result["warnings"]
    kept = warning.partition(" is kept in ")[2].partition(";")[0]
    assert os.listdir(kept) == ["foreign"]
    assert run(dest, state="absent")["changed"] is False
    assert run(dest, state="absent", force=True, check_mode=True)["changed"] is True
    assert run(dest, state="absent", force=True)["changed"] is True
    assert os.listdir(dest.parent) == []


def test_absent_of_a_foreign_tree(dest: Path) -> None:
    dest.mkdir()
    (dest / "foreign").touch()
    assert "set force: true" in refused(dest, state="absent")
    assert run(dest, state="absent", force=True)["changed"] is True
    assert os.listdir(dest.parent) == []


@needs_root
def test_removal_stays_on_its_mount_whatever_is_ignored(dest: Path, one: str, two: str) -> None:
    """Section 7, in use."""
    run(dest, src=one)
    with mounted(dest / "data"):
        (dest / "data/precious").touch()
        for changes in ({"src": two}, {"state": "absent"}):
            message = refused(dest, **changes)
            assert f"is in use by a mount at '{dest}/data';" in message
        before = everything(dest.parent)
        message = refused(dest, state="absent", in_use="ignore")
        assert message == (
            f"'{dest}' cannot be replaced or removed with a mount at '{dest}/data' in it; unmount that and run again"
        )
        assert everything(dest.parent) == before
        assert (dest / "data/precious").exists()
    assert run(dest, state="absent")["changed"]


@needs_root
def test_what_cannot_be_removed_stops_nothing(dest: Path, one: str, two: str) -> None:
    """Section 7: a mount in the old tree is named by its full path, run for run, until it is gone."""
    run(dest, src=one)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "test", str(dest / "data")], check=False)
    if done.returncode:
        pytest.skip("nothing can be mounted here")
    (dest / "data/precious").touch()
    point = dest / "data"
    try:
        result = run(dest, src=two, in_use="ignore", keep=0)
        (name,) = set(names_beside(dest)) - {"record.json"}
        old = beside_of(dest) / name
        point = old / "data"
        expected = (
            f"'{old}' is no longer needed, but could not be removed completely: '{point}' (a mount point);"
            " unmount it; the next run tries again"
        )
        assert (result["changed"], result["warnings"]) == (True, [expected])
        assert contents(dest)["bin/app"] == b"two"
        assert names(old) == ["data", "data/precious"]
        # the mount is a use of the old tree, which is then left alone
        used = expected.replace(
            f"'{point}' (a mount point); unmount it;",
            f"'{old}' is in use by a mount at '{point}'; stop what uses it, or set in_use: ignore;",
        )
        for in_use_, warning in (("fail", used), ("ignore", expected)):
            result = run(dest, src=two, keep=0, in_use=in_use_)
            assert (result["changed"], result["warnings"]) == (False, [warning])
            result = run(dest, src=one, keep=0, in_use=in_use_)
            assert (result["changed"], result["warnings"]) == (True, [warning])
            run(dest, src=two, keep=0, in_use=in_use_)
        for changed in (True, False):
            result = run(dest, state="absent")
            assert (result["changed"], result["warnings"]) == (changed, [used])
            assert os.listdir(dest.parent) == [beside_of(dest).name]
        result = run(dest, src=one)
        assert (result["changed"], result["warnings"]) == (True, [used])
        assert (point / "precious").exists()
    finally:
        subprocess.run(["umount", str(point)], check=True)
    result = run(dest, src=one)
    assert (result["changed"], result["warnings"]) == (False, [])
    assert names_beside(dest) == ["record.json"]


@needs_root
@pytest.mark.parametrize("attribute", ["+i", "+a"])
def test_a_container_cannot_keep_its_tree_by_attributes(dest: Path, one: str, two: str, attribute: str) -> None:
    """Section 7: neither an update nor a removal fails for them, of files, directories or the tree itself."""
    run(dest, src=one)
    try:
        for state in ({"src": two}, {"src": one, "keep": 0}, {"state": "absent"}):
            for name in ("bin/app", "bin", "."):
                done = subprocess.run(["chattr", attribute, str(dest / name)], check=False, capture_output=True)
                if done.returncode:
                    pytest.skip("this file system has no attributes")
            result = run(dest, **state)
            assert (result["changed"], result["warnings"]) == (True, [])
    finally:
        subprocess.run(["chattr", "-R", "-f", "-ia", str(dest.parent)], check=False)
    assert os.listdir(dest.parent) == []


def test_a_tree_that_failed_does_not_come_back(dest: Path, one: str, two: str) -> None:
    """Section 15: it stays as an earlier tree until the next update."""
    run(dest, src=one)
    run(dest, src=two)
    assert run(dest, state="previous", mark_failed=True)["manifest_digest"] == ONE.manifest_digest
    assert contents(dest)["bin/app"] == b"one"
    assert len(names_beside(dest)) == 2
    for check_mode in (True, False):
        with pytest.raises(OciError, match="no earlier tree"):
            run(dest, check_mode, state="previous")
    # the same image may be tried again, and the good tree is the one to go back to
    assert run(dest, src=two)["changed"] is True
    assert len(names_beside(dest)) == 2
    assert run(dest, state="previous")["manifest_digest"] == ONE.manifest_digest
