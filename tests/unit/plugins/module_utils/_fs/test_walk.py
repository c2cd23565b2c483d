# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A walk by descriptor through a tree of any depth."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._fs import walk as walks
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.descriptors import opened
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.walk import walk
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors


def seen(top: Path) -> list[bytes]:
    """The paths that a walk sees; each status must be that of the name in its directory."""
    before = open_descriptors()
    found = []
    with opened(os.open(top, os.O_RDONLY)) as fd:
        for item in walk(fd, "to be read"):
            assert os.path.samestat(os.stat(item.name, dir_fd=item.fd, follow_symlinks=False), item.status)
            found.append(item.path + b"/" + item.name)
    assert open_descriptors() == before
    return found


def test_everything_is_seen_once(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/d").mkdir()
    (tmp_path / "a/b/f").touch()
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "a/d/p")
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    paths = seen(tmp_path)
    assert sorted(paths) == [b"/a", b"/a/b", b"/a/b/c", b"/a/b/f", b"/a/d", b"/a/d/p", b"/link", b"/\xff"]


def test_a_walk_that_is_not_finished(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    before = open_descriptors()
    with opened(os.open(tmp_path, os.O_RDONLY)) as fd:
        steps = walk(fd, "to be read")
        next(steps)
        t.cast("t.Any", steps).close()
    assert open_descriptors() == before


def test_a_directory_that_moves_away(tmp_path: Path) -> None:
    """By a running container: nothing outside of the tree is seen in its place."""
    (tmp_path / "top/a/b/c").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    with opened(os.open(tmp_path / "top", os.O_RDONLY)) as fd, pytest.raises(RootfsError) as caught:
        for item in walk(fd, "to be read"):
            if item.name == b"c":
                os.rename(tmp_path / "top/a/b", tmp_path / "other/b")
    assert caught.value.message.startswith("directories of the root file system are moved")


@pytest.mark.parametrize("deep", [False, True])
def test_names_that_are_held_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deep: bool) -> None:
    """In one directory, or in several above each other; visited directories do not count."""
    monkeypatch.setattr(walks, "_MOST_WAITING", 6)
    for number in range(3):
        (tmp_path / f"{number}/a/b").mkdir(parents=True)
    assert len(seen(tmp_path)) == 9
    for number in range(6):
        (tmp_path / ("0/a" if deep else ".") / f"more{number}").mkdir()
    if deep:
        for number in range(3):
            (tmp_path / f"1/more{number}").mkdir()
            (tmp_path / f"2/more{number}").mkdir()
    with pytest.raises(RootfsError) as caught:
        seen(tmp_path)
    assert caught.value.message.startswith("more than 6 directories lie beside each other, too many to be read")
