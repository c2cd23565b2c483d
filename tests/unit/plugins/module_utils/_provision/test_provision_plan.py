# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which options and changes of the tree need a new tree (docs/behaviour.md, section 7)."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.unit.support import needs_root, run
from ansible_collections.hypervisor.oci.tests.tools.removal import remove_below
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import ONE, everything

CHANGES_THE_TREE: list[dict[str, t.Any]] = [
    {"devices": "fail"},
    {"xattrs": ["trusted.a"]},
    {"acl": "drop"},
    {"keep_dirlinks": True},
]


CHANGES_NOTHING: list[dict[str, t.Any]] = [
    {"keep": 5},
    {"lock_timeout": 9},
    {"force": True},
    {"in_use": "ignore"},
    {"max_size": 10**9},
    {"max_entries": 10**5},
    {"ref": "demo:1"},
    {"ref": "docker.io/library/demo:1"},
    {"digest": ONE.manifest_digest},
    {"digest": ONE.config_digest},
    {"platform": "linux/x86_64"},
    {"xattrs": []},
    {"state": "staged"},
]


@pytest.mark.parametrize("changes", CHANGES_THE_TREE)
def test_options_that_change_the_tree(dest: Path, one: str, changes: dict[str, t.Any]) -> None:
    """Section 7, fingerprint."""
    run(dest, src=one)
    for expected in (True, False):
        assert run(dest, src=one, check_mode=True, **changes)["changed"] is expected
        assert run(dest, src=one, **changes)["changed"] is expected
    assert run(dest, src=one)["changed"] is True


@needs_root
@pytest.mark.parametrize(
    "changes",
    [{"ownership": "ignore"}, {"devices": "create"}, {"uid_map": ["0:1000:2000"], "gid_map": ["0:1000:2000"]}],
)
def test_options_of_root_that_change_the_tree(dest: Path, one: str, changes: dict[str, t.Any]) -> None:
    run(dest, src=one)
    for expected in (True, False):
        assert run(dest, src=one, **changes)["changed"] is expected


@needs_root
def test_the_same_map_in_another_order_is_the_same(dest: Path, one: str) -> None:
    ranges = ["0:1000:1000", "1000:9000:1000"]
    maps: dict[str, t.Any] = {"uid_map": ranges, "gid_map": ranges}
    run(dest, src=one, xattrs=["trusted.a", "trusted.b"], **maps)
    turned: dict[str, t.Any] = {key: value[::-1] for key, value in maps.items()}
    result = run(dest, src=one, xattrs=["trusted.b", "trusted.a"], **turned)
    assert result["changed"] is False


@pytest.mark.parametrize("changes", CHANGES_NOTHING)
def test_options_that_change_nothing(dest: Path, one: str, changes: dict[str, t.Any]) -> None:
    """Section 7: ``force`` changes nothing where the fingerprint matches."""
    run(dest, src=one)
    before = everything(dest)
    assert run(dest, src=one, **changes)["changed"] is False
    assert everything(dest) == before


def test_recreate_always_makes_the_tree_anew(dest: Path, one: str) -> None:
    """Section 7; in check mode it says so."""
    run(dest, src=one)
    inode = dest.stat().st_ino
    assert run(dest, src=one, recreate=True, check_mode=True)["changed"] is True
    assert dest.stat().st_ino == inode
    assert run(dest, src=one, recreate=True)["changed"] is True
    assert dest.stat().st_ino != inode
    assert run(dest, src=one)["changed"] is False


def test_what_a_container_writes_changes_nothing(dest: Path, one: str) -> None:
    """Section 7: the record lies beside the tree, which belongs to the container."""
    run(dest, src=one)
    (dest / "written").write_bytes(b"x")
    (dest / "bin/app").unlink()
    os.chmod(dest, 0o700)
    result = run(dest, src=one)
    assert result["changed"] is False
    assert result["image"]["uid"] == 1000
    assert (dest / "written").exists()


def _deleted(dest: Path) -> None:
    remove_below(dest.parent, dest)


def _emptied(dest: Path) -> None:
    remove_below(dest.parent, dest)
    dest.mkdir()


def test_a_tree_that_was_deleted(dest: Path, one: str) -> None:
    """Section 7, fingerprint: it does not pass, and needs no force."""
    for change in (_deleted, _emptied):
        run(dest, src=one)
        change(dest)
        assert run(dest, src=one, check_mode=True)["changed"] is True
        assert run(dest, src=one)["changed"] is True
        assert (dest / "bin/app").read_bytes() == b"one"
        assert run(dest, src=one)["changed"] is False
