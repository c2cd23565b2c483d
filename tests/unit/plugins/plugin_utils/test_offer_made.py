# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a controller tells of an image: a node that reads it chooses as it would from the source itself.

docs/behaviour.md, sections 1, 2 and 7.
"""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import (
    ImageError,
    OciError,
    SourceError,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._image.platform import (
    parse_platform,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._image.selection import (
    select_image,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source import offer
from ansible_collections.hypervisor.oci.plugins.module_utils._source.offer import (
    OfferSource,
    unpack_offer,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import (
    open_source,
)
from ansible_collections.hypervisor.oci.plugins.plugin_utils import _offer
from ansible_collections.hypervisor.oci.plugins.plugin_utils._offer import (
    make_offer,
    pack,
)
from ansible_collections.hypervisor.oci.tests.images.builder import (
    ABSENT,
    Image,
    Index,
    Layer,
    artifact,
    attestation,
    file,
    flip,
    symlink,
    write_docker_archive,
    write_layout,
    write_oci_archive,
)

AMD = Image([Layer(file("a", "a")), Layer(file("b", "b"))], platform="linux/amd64")
ARM = Image([Layer(file("c", "c"))], platform="linux/arm64")
GONE = Image([Layer(file("d", "d"))], platform="linux/s390x", missing=True)
SILENT = Image(
    [Layer(file("e"))], platform="linux/riscv64", descriptor={"platform": ABSENT}
)
INDEX = Index(AMD, ARM, GONE, SILENT, attestation(AMD), artifact(), ref="demo:1")


def sent(path: str) -> OfferSource:
    """The source as a node has it."""
    with contextlib.closing(open_source(path)) as source:
        return OfferSource(unpack_offer(pack(make_offer(source)), "x"), 0, 0)


def chosen(source: t.Any, platform: str, ref: str | None = None) -> t.Any:
    """The image, or the message of why there is none."""
    try:
        return select_image(source, ref, None, parse_platform(platform))
    except OciError as error:
        return error.message


def written(folder: Path) -> dict[str, str]:
    """The same images in every form."""
    return {
        "archive": write_oci_archive(folder / "i.tar", INDEX),
        "compressed": write_oci_archive(folder / "i.tgz", INDEX, compression="gzip"),
        "layout": write_layout(folder / "layout", INDEX),
        "docker": write_docker_archive(folder / "d.tar", AMD, repo_tags=[["demo:1"]]),
        "old docker": write_docker_archive(
            folder / "o.tar", AMD, repo_tags=[["demo:1"]], style="old", links="symlink"
        ),
    }


@pytest.mark.parametrize(
    "form", ["archive", "compressed", "layout", "docker", "old docker"]
)
def test_a_node_chooses_as_from_the_source_itself(tmp_path: Path, form: str) -> None:
    path = written(tmp_path)[form]
    for platform in ("linux/amd64", "linux/arm64/v8", "linux/arm", "linux/s390x", "linux/riscv64"):  # fmt: skip
        for ref in (None, "demo:1", "other"):
            with contextlib.closing(open_source(path)) as source:
                expected = chosen(source, platform, ref)
            assert chosen(sent(path), platform, ref) == expected
    source = sent(path)
    assert source.path == path


def test_an_offer_holds_what_can_be_asked_for_and_no_more(tmp_path: Path) -> None:
    path = write_oci_archive(
        tmp_path / "i.tar", INDEX, members=[file("junk", bytes(9999)), file("n.json", b"{}")]
    )  # fmt: skip
    with contextlib.closing(open_source(path)) as source:
        made = make_offer(source)
        opened = source.opened
    layers = [layer.path for image in (AMD, ARM, SILENT) for layer in image.layers]
    assert sorted(made.sizes) == sorted(layers)
    documents = {"index.json", "oci-layout", INDEX.path}
    for image in (AMD, ARM, SILENT):
        documents |= {image.path, image.config.path}
    assert set(made.documents) == documents | {artifact().path}
    # nothing else was opened, and nothing twice
    assert sorted(opened) == sorted(made.documents)


@pytest.mark.parametrize(
    "broken",
    [
        Image([Layer(file("x"))], platform="linux/386", config_document=b"[]"),
        Image([Layer(file("x"), missing=True)], platform="linux/386"),
        Image([Layer(file("x"))], platform="linux/386", edit_stored=flip(1)),
        Image([Layer(file("x"))], platform="linux/386", diff_ids=[]),
        Image([Layer(file("x"))], platform="linux/386", config_options={"missing": True}),
        Image([Layer(file("x"))], platform="linux/386", config_document={"junk": "x" * (4 << 20)}),
    ],
)  # fmt: skip
def test_what_is_wrong_with_one_image_is_told_by_the_node_that_wants_it(
    tmp_path: Path, broken: Image
) -> None:
    path = write_oci_archive(tmp_path / "i.tar", AMD, broken)
    assert chosen(sent(path), "linux/amd64").layers
    with contextlib.closing(open_source(path)) as source:
        expected = chosen(source, "linux/386")
    assert isinstance(expected, str)
    assert chosen(sent(path), "linux/386") == expected


def test_a_layer_that_is_a_link_out_is_told_as_such(tmp_path: Path) -> None:
    """Hostile: the same message as where the archive lies on the node (section 1)."""
    layer = AMD.layers[0]
    path = write_oci_archive(
        tmp_path / "i.tar", AMD, files={layer.path: symlink(layer.path, "/etc/shadow")}
    )
    with contextlib.closing(open_source(path)) as source:
        expected = chosen(source, "linux/amd64")
    assert "is a link out of the archive" in expected
    assert chosen(sent(path), "linux/amd64") == expected


@pytest.mark.parametrize(
    "index", [b"[]", b"{", {"manifests": [{"digest": "../x"}]}, {"layers": []}]
)
def test_what_is_wrong_with_all_of_it_is_told_on_the_controller(
    tmp_path: Path, index: t.Any
) -> None:
    path = write_oci_archive(tmp_path / "i.tar", AMD, index=index)
    with pytest.raises((ImageError, SourceError)):
        sent(path)


def test_an_offer_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_oci_archive(tmp_path / "i.tar", AMD)
    monkeypatch.setattr(_offer, "LIMIT", 500)
    monkeypatch.setattr(offer, "LIMIT", 500)
    with pytest.raises(SourceError, match="more than 500 bytes, a fixed limit"):
        sent(path)


def test_an_offer_of_many_images_stays_small(tmp_path: Path) -> None:
    """An up-to-date node costs 400 kB at most, and the module takes most of that."""
    images = [
        Image([Layer(file(f"{number}-{layer}")) for layer in range(20)], ref=f"app:{number}")
        for number in range(20)
    ]  # fmt: skip
    path = write_oci_archive(tmp_path / "i.tar", *images)
    with contextlib.closing(open_source(path)) as source:
        assert len(pack(make_offer(source))) < 100_000
