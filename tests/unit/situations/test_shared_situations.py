# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The same situations in trees that share their layers (docs/behaviour.md, section 16)."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.descriptors import opened
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.stack import opened_tree
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    directory,
    file,
    hardlink,
    symlink,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.situations.test_situations import SITUATIONS
from ansible_collections.hypervisor.oci.tests.unit.support import loop_mounted, needs_root, run, tree, without_waiting

pytestmark = needs_root

_DRIVERS = {"overlay": "ext4", "btrfs": "btrfs"}
# images that are refused, in their second layer
_REFUSED: dict[str, list[list[t.Any]]] = {
    "a name that leads out": [[directory("etc")], [file("../outside/new")]],
    "a hard link that leads out": [[directory("etc")], [hardlink("etc/x", "../outside/precious")]],
    "a hard link through a link": [[symlink("out", "../outside")], [hardlink("x", "out/precious")]],
    "a hard link to nothing": [[directory("etc")], [hardlink("x", "etc/nothing")]],
}


@pytest.fixture(name="place", params=_DRIVERS)
def fixture_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> t.Iterator[tuple[str, Path]]:
    """A driver, and a folder on its file system."""
    without_waiting(monkeypatch)
    point = tmp_path / "disk"
    point.mkdir(0o700)
    with loop_mounted(point, tmp_path / "image", _DRIVERS[request.param]):
        (point / "outside").mkdir()
        (point / "outside/precious").write_bytes(b"precious")
        (point / "guests").mkdir(0o700)
        yield request.param, point


def outcome(point: Path, name: str, src: str, store: str | None) -> tuple[t.Any, ...]:
    """The verdict, what is told, and the tree as a container sees it."""
    dest = point / "guests" / name
    try:
        result = run(dest, src=src, store_dir=store)
    except OciError as error:
        return error.message.replace(str(dest), "dest"), None, dest.exists()
    with opened(os.open(dest, os.O_RDONLY)) as fd, opened_tree(fd, name) as root:
        return result["report"], result["image"], tree(f"/proc/self/fd/{root}/.")


@pytest.mark.parametrize("is_refused", [False, True])
def test_all_three_ways(place: tuple[str, Path], is_refused: bool) -> None:
    driver, point = place
    images = _REFUSED if is_refused else {name: layers for name, (layers, _expected) in SITUATIONS.items()}
    for number, (name, layers) in enumerate(images.items()):
        src = write_oci_archive(point / "image.tar", Image([Layer(*members) for members in layers]))
        store = str(point / f"store{number}")
        ordinary = outcome(point, f"ordinary{number}", src, None)
        assert isinstance(ordinary[0], str) == is_refused, name
        for way in ("cold", "warm"):
            assert outcome(point, f"{way}{number}", src, store) == ordinary, (driver, name, way)
    assert os.listdir(point / "outside") == ["precious"]
    assert (point / "outside/precious").read_bytes() == b"precious"
