# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives as podman, buildah, skopeo, Nix, jib, ko, kaniko and Bazel write them (docs/behaviour.md, section 1)."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._image.listing import list_images
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.tests.images.builder import SHAPES, Image, Layer, directory, file, whiteout
from ansible_collections.hypervisor.oci.tests.unit.support import contents, run, without_waiting

if t.TYPE_CHECKING:
    from pathlib import Path

BASE = Layer(directory("etc"), file("etc/issue", b"one"), file("etc/gone", b"x"))
TOP = Layer(file("etc/issue", b"two"), whiteout("etc/gone"))
IMAGE = Image([BASE, BASE, TOP], {"Cmd": ["/app"]})


@pytest.mark.parametrize("shape", SHAPES)
def test_an_archive_of_each_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    without_waiting(monkeypatch)
    path = tmp_path / "image.tar"
    path.write_bytes(SHAPES[shape](IMAGE, "example.org/me/app:1.0"))
    dest = tmp_path / "guests" / "web"
    for digest in (None, IMAGE.config_digest):
        result = run(dest, src=str(path), ref="example.org/me/app:1.0", digest=digest)
        assert contents(dest) == {"etc": None, "etc/issue": b"two"}
        assert (result["ref"], result["config_digest"]) == ("example.org/me/app:1.0", IMAGE.config_digest)
        assert (result["platform"], result["image"]["cmd"], result["warnings"]) == ("linux/amd64", ["/app"], [])
    assert result["changed"] is False
    source = open_source(str(path))
    (listed,) = list_images(source, None, None, None)
    source.close()
    assert (listed["refs"], listed["problem"], listed["warnings"]) == (["example.org/me/app:1.0"], None, [])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_bytes_each_time(shape: str) -> None:
    assert SHAPES[shape](IMAGE, "app:1") == SHAPES[shape](IMAGE, "app:1")
