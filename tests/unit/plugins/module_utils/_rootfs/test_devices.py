# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Devices and FIFOs (docs/behaviour.md, section 4)."""

from __future__ import annotations

import os
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.images.builder import block, char, fifo, file, symlink
from ansible_collections.hypervisor.oci.tests.unit.support import (
    SECOND,
    Members,
    Node,
    contents,
    in_layers,
    names,
    needs_root,
    owned,
    refused,
    tree,
    unpack,
)


def make_nodes_or_skip(top: Path, *numbers: tuple[int, int]) -> None:
    """Skip where this machine refuses device nodes, as containers and overlayfs do."""
    for major, minor in numbers:
        try:
            os.mknod(top / "probe", stat.S_IFCHR | 0o600, os.makedev(major, minor))
        except OSError as error:
            pytest.skip(f"no character device {major}:{minor} here: {error}")
        os.unlink(top / "probe")


SAFE = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)]


@needs_root
@pytest.mark.parametrize("choice", ["safe", "create"])
def test_devices_that_give_nobody_anything(tmp_path: Path, choice: str) -> None:
    """Section 4, devices."""
    make_nodes_or_skip(tmp_path, *SAFE)
    top = tmp_path / "top"
    report = unpack(top, [char(f"c{a}-{b}", a, b, 0o620, uid=1, gid=5, mtime=7) for a, b in SAFE], devices=choice)
    found = tree(top)
    for a, b in SAFE:
        assert found[f"c{a}-{b}"] == Node("char", 0o620, 1, 5, 7 * SECOND, (a, b), {}, 1)
    assert report.to_dict()["counts"] == {"devices_created": len(SAFE)}


@needs_root
def test_overlayfs_own_mark_is_data(tmp_path: Path) -> None:
    """Sections 4 and 5: a 0:0 device is no whiteout."""
    make_nodes_or_skip(tmp_path, (0, 0))
    top = tmp_path / "top"
    report = unpack(top, [file("f", b"x")], [char("g", 0, 0), char("f", 0, 0)])
    assert contents(top) == {"f": (0, 0), "g": (0, 0)}
    assert report.to_dict()["counts"] == {"devices_created": 2}
    assert report.whiteouts == 0


@needs_root
@pytest.mark.parametrize(
    ("member", "number"),
    [
        (char("x", 10, 232), (10, 232)),
        (char("x", 1, 1), (1, 1)),
        (char("x", 5, 3), (5, 3)),
        (block("x", 1, 3), (1, 3)),
        (block("x", 8, 0), (8, 0)),
        (block("x", 259, 70000), (259, 70000)),
    ],
)
@pytest.mark.parametrize("choice", ["safe", "create", "skip", "fail"])
def test_devices_that_are_something(tmp_path: Path, member: t.Any, number: tuple[int, int], choice: str) -> None:
    """Section 4: a disk's node in a readable tree is the disk."""
    make_nodes_or_skip(tmp_path, (10, 232))
    top = tmp_path / "top"
    if choice == "fail":
        assert refused(top, [member], devices=choice) == (
            "'x': it is a device, and devices are set to fail; set devices to safe, create or skip"
        )
        return
    report = unpack(top, [member], devices=choice)
    if choice == "create":
        assert contents(top) == {"x": number}
        assert report.to_dict()["counts"] == {"devices_created": 1}
    else:
        assert contents(top) == {}
        assert report.to_dict()["counts"] == {"devices_skipped": 1}


@pytest.mark.parametrize("choice", ["skip", "fail"])
def test_safe_devices_that_are_not_wanted(tmp_path: Path, choice: str) -> None:
    members = [char("null", 1, 3)]
    if choice == "fail":
        assert "it is a device" in refused(tmp_path, members, devices=choice)
    else:
        report = unpack(tmp_path, members, devices=choice)
        assert report.to_dict()["counts"] == {"devices_skipped": 1}
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "old",
    [[file("x", b"old")], [file("x/below", b"old")], [symlink("x", "keep")], [symlink("x", "kept")], []],
    ids=["file", "directory", "link", "link to a directory", "nothing"],
)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_skipped_device_hides_what_is_there(tmp_path: Path, old: Members, layers: int) -> None:
    """Section 4."""
    first = [file("keep", b"k"), file("kept/f", b"f"), *old]
    unpack(tmp_path, *in_layers(layers, first, [block("x", 8, 0)]), devices="skip")
    assert contents(tmp_path) == {"keep": b"k", "kept": None, "kept/f": b"f"}


def test_a_skipped_device_makes_no_folders(tmp_path: Path) -> None:
    unpack(tmp_path, [char("dev/null", 1, 3)], devices="skip")
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [(2**40, 0), (0, 2**40)])
def test_device_numbers_that_are_none(tmp_path: Path, number: tuple[int, int]) -> None:
    member = char("x", 0, 0, dialect="gnu", fields={"devmajor": number[0], "devminor": number[1]})
    text = refused(tmp_path, [member], devices="create")
    assert text.startswith("'x': its device number is too large; ")


@pytest.mark.parametrize(("uid", "gid", "mode"), [(0, 0, 0o600), (5, 6, 0o1666), (0, 0, 0)])
def test_a_fifo_is_made(tmp_path: Path, uid: int, gid: int, mode: int) -> None:
    """Section 4; nothing waits for its other end."""
    unpack(tmp_path, [fifo("p", mode, uid=uid, gid=gid, mtime="3.000000001")])
    expected = Node("fifo", mode, *owned(uid, gid), 3_000_000_001, None, {}, 1)
    assert tree(tmp_path)["p"] == expected
