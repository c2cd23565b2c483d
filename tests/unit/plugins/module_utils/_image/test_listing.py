# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All images of a source as values (docs/behaviour.md, sections 2 and 8)."""

from __future__ import annotations

import contextlib
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import ImageError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.listing import list_images
from ansible_collections.hypervisor.oci.plugins.module_utils._image.platform import parse_platform
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Index,
    Layer,
    artifact,
    attestation,
    cut,
    file,
    flip,
    write_docker_archive,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.support import watched

if t.TYPE_CHECKING:
    from pathlib import Path

LAYER = Layer(file("a", b"data"))
AMD64 = Image([LAYER], platform="linux/amd64")
ARM = Image([LAYER], platform="linux/arm/v6")
GONE = Image([LAYER], platform="linux/s390x", missing=True)
BOTH = Index(AMD64, attestation(AMD64), ARM, GONE, ref="app:1")
OTHER = Image([LAYER], {"Cmd": ["/other"]}, ref="other")


def listed(path: str, **asked: str) -> list[dict[str, t.Any]]:
    """What a source holds."""
    platform = asked.get("platform")
    with contextlib.closing(watched(open_source(path))) as source:
        found = list_images(
            source, asked.get("ref"), asked.get("digest"), parse_platform(platform) if platform else None
        )
        assert LAYER.path not in source.reads
    return found


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """An archive of an index of three platforms, one of which is missing, and another image."""
    return write_oci_archive(tmp_path / "archive", BOTH, OTHER, artifact(ref="thing"))


def test_all_images(archive: str) -> None:
    amd64, arm, gone, other = listed(archive)
    assert amd64 == {
        "refs": ["app:1"],
        "platform": "linux/amd64",
        "present": True,
        "manifest_digest": AMD64.digest,
        "config_digest": AMD64.config_digest,
        "layers": [
            {"digest": LAYER.digest, "diff_id": LAYER.diff_id, "size": LAYER.size, "media_type": LAYER.media_type}
        ],
        "image": amd64["image"],
        "warnings": [],
        "problem": None,
    }
    assert amd64["image"]["cmd"] == ["/bin/sh"]
    assert (arm["platform"], arm["image"]["variant"]) == ("linux/arm/v6", "v6")
    assert gone == {
        "refs": ["app:1"],
        "platform": "linux/s390x",
        "present": False,
        "manifest_digest": GONE.digest,
        "config_digest": None,
        "layers": None,
        "image": None,
        "warnings": [],
        "problem": None,
    }
    assert (other["refs"], other["image"]["cmd"]) == (["other"], ["/other"])


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({"ref": "app:1"}, 3),
        ({"ref": "docker.io/library/other"}, 1),
        ({"ref": "nothing"}, 0),
        ({"platform": "linux/amd64"}, 2),
        ({"platform": "linux/arm/v7"}, 1),
        ({"platform": "linux/arm/v5"}, 0),
        ({"platform": "linux/s390x"}, 1),
        ({"digest": ARM.manifest_digest}, 1),
        ({"digest": ARM.config_digest}, 1),
        ({"digest": BOTH.index_digest}, 3),
        ({"digest": BOTH.index_digest, "platform": "linux/amd64"}, 1),
        ({"digest": "sha256:" + "0" * 64}, 0),
    ],
)
def test_filters(archive: str, asked: dict[str, str], count: int) -> None:
    assert len(listed(archive, **asked)) == count


def test_a_digest_that_is_none(archive: str) -> None:
    with pytest.raises(ImageError, match="the option digest has an invalid digest: 'x'"):
        listed(archive, digest="x")


def test_broken_images_are_listed_with_their_problem(tmp_path: Path) -> None:
    short = Layer(file("a"), edit_stored=cut(3))
    images = [
        OTHER,
        Image([LAYER], edit_stored=flip(1)),
        Image([short], {"Cmd": ["x"]}),
        Image([LAYER], platform="linux/arm64", config_document=b"{"),
    ]
    path = write_oci_archive(tmp_path / "archive", *images)
    fine, damaged, cut_short, unreadable = listed(path)
    assert fine["problem"] is None
    assert damaged["problem"].startswith(f"the manifest {images[1].digest} has content")
    assert damaged["manifest_digest"] == images[1].digest
    assert damaged["image"] is None
    assert cut_short["problem"].startswith(f"the layer {short.digest} has 3 bytes")
    assert cut_short["image"]["cmd"] == ["x"]
    assert cut_short["layers"] is None
    assert "is not valid JSON" in unreadable["problem"]
    assert unreadable["platform"] == "linux/arm64"


@pytest.mark.parametrize("style", ["old", "new"])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_docker_archives(tmp_path: Path, style: t.Any, compression: t.Any) -> None:
    path = write_docker_archive(
        tmp_path / "archive", AMD64, style=style, repo_tags=[["app:1"]], compression=compression
    )
    (found,) = listed(path)
    assert found["refs"] == ["app:1"]
    assert found["config_digest"] == AMD64.config_digest
    assert found["manifest_digest"] == (None if style == "old" else AMD64.digest)
    (layer,) = found["layers"]
    assert layer["digest"] == (LAYER.diff_id if style == "old" else LAYER.digest)
    assert layer["size"] == (len(LAYER.tar) if style == "old" else LAYER.size)
