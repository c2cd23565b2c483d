# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The situations that Proxmox's own unpacker documents, from an archive to a root (docs/behaviour.md, 2, 4 and 5)."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    directory,
    file,
    symlink,
    whiteout,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.support import contents, run

_ETC = [directory("etc"), file("etc/passwd", b"p"), directory("var"), file("var/x")]

SITUATIONS: dict[str, tuple[list[list[t.Any]], dict[str, t.Any]]] = {
    "a whiteout of the root": (
        [[*_ETC], [whiteout(".")]],
        {"etc": None, "etc/passwd": b"p", "var": None, "var/x": b""},
    ),
    "a whiteout of the root's parent": (
        [[*_ETC], [whiteout("..")]],
        {"etc": None, "etc/passwd": b"p", "var": None, "var/x": b""},
    ),
    "a whiteout of a directory's parent": (
        [[*_ETC], [whiteout("etc/..")]],
        {"etc": None, "etc/passwd": b"p", "var": None, "var/x": b""},
    ),
    "a whiteout of the current directory": ([[*_ETC], [whiteout("etc/.")]], {"var": None, "var/x": b""}),
    "a whiteout of a symlink": (
        [[*_ETC, symlink("link", "etc/passwd")], [whiteout("link")]],
        {"etc": None, "etc/passwd": b"p", "var": None, "var/x": b""},
    ),
    "a whiteout of a symlink to a directory": (
        [[*_ETC, symlink("link", "etc")], [whiteout("link")]],
        {"etc": None, "etc/passwd": b"p", "var": None, "var/x": b""},
    ),
    "a whiteout under a symlink": (
        [[*_ETC, symlink("link", "etc")], [whiteout("link/passwd")]],
        {"etc": None, "var": None, "var/x": b"", "link": b"etc"},
    ),
    "a whiteout under a dangling symlink": (
        [[*_ETC, symlink("link", "nowhere")], [whiteout("link/passwd")]],
        {"etc": None, "etc/passwd": b"p", "var": None, "var/x": b"", "link": b"nowhere"},
    ),
    "a whiteout under a symlink that leads out": (
        [[*_ETC, symlink("link", "../../../outside")], [whiteout("link/precious")]],
        {"etc": None, "etc/passwd": b"p", "var": None, "var/x": b"", "link": b"../../../outside"},
    ),
    "a file replaced by a file": (
        [[*_ETC], [file("etc/passwd", b"new")]],
        {"etc": None, "etc/passwd": b"new", "var": None, "var/x": b""},
    ),
    "a file replaced by a directory": (
        [[*_ETC], [directory("etc/passwd"), file("etc/passwd/in", b"i")]],
        {"etc": None, "etc/passwd": None, "etc/passwd/in": b"i", "var": None, "var/x": b""},
    ),
    "a directory replaced by a file": ([[*_ETC], [file("etc", b"e")]], {"etc": b"e", "var": None, "var/x": b""}),
    "an absolute name": (
        [[*_ETC], [file("/outside/precious", b"in")]],
        {"etc": None, "etc/passwd": b"p", "var": None, "var/x": b"", "outside": None, "outside/precious": b"in"},
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_situation(tmp_path: Path, situation: str) -> None:
    """The tree is as it should be, and a file outside is still there."""
    layers, expected = SITUATIONS[situation]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    image = Image([Layer(*members) for members in layers])
    source = write_oci_archive(tmp_path / "image.tar", image)
    dest = tmp_path / "above" / "rootfs"
    assert run(dest, src=source)["changed"]
    assert contents(dest) == expected
    assert contents(outside) == {"precious": b"precious"}
    assert not run(dest, src=source)["changed"]


def test_layers_in_another_order_than_the_diff_ids(tmp_path: Path) -> None:
    """Section 2: the order of diff_ids is the order of application."""
    lower = Layer(*_ETC)
    upper = Layer(whiteout("var"), file("etc/passwd", b"new"))
    image = Image([upper, lower], diff_ids=[lower.diff_id, upper.diff_id])
    source = write_oci_archive(tmp_path / "image.tar", image)
    dest = tmp_path / "rootfs"
    assert run(dest, src=source)["changed"]
    assert contents(dest) == {"etc": None, "etc/passwd": b"new"}
