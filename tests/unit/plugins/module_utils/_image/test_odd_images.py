# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images without a platform, beside damaged ones, and in two lists of which one is wrong (docs/behaviour.md, section 2)."""

from __future__ import annotations

import contextlib
import json
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._image import selection
from ansible_collections.hypervisor.oci.plugins.module_utils._image.image import Image as Chosen
from ansible_collections.hypervisor.oci.plugins.module_utils._image.image import open_layer
from ansible_collections.hypervisor.oci.plugins.module_utils._image.listing import list_images
from ansible_collections.hypervisor.oci.plugins.module_utils._image.platform import parse_platform
from ansible_collections.hypervisor.oci.plugins.module_utils._image.selection import select_image
from ansible_collections.hypervisor.oci.plugins.module_utils._source.offer import OfferSource, unpack_offer
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.plugins.plugin_utils._criteria import Criteria
from ansible_collections.hypervisor.oci.plugins.plugin_utils._offer import make_offer, pack
from ansible_collections.hypervisor.oci.tests.images.builder import (
    ABSENT,
    Blob,
    Image,
    Index,
    Layer,
    artifact,
    docker_archive,
    file,
    flip,
    oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.support import watched

if t.TYPE_CHECKING:
    from pathlib import Path

LAYER = Layer(file("etc/issue", b"hello"), compression="none")
NODE = parse_platform("linux/amd64")
PLATFORM = {"os": "linux", "architecture": "amd64"}


def image(label: str, platform: str = "linux/amd64", **options: t.Any) -> Image:
    """An image whose config holds a label, so that no two are the same."""
    return Image([LAYER], {"Labels": {"name": label}}, platform=platform, **options)


def without(label: str, *fields: str, **options: t.Any) -> Image:
    """An image whose documents leave out fields of the platform: ``os``, ``architecture``."""
    document = {field: ABSENT for field in fields}
    return image(label, config_document=document, descriptor={"platform": ABSENT}, **options)


class Choose:
    """Choose from an archive as an amd64 node, which has the archive or gets an offer of it."""

    def __init__(self, path: Path, offered: bool) -> None:
        self._path = path
        self._offered = offered
        self.reads: list[str] = []

    def __call__(
        self, data: bytes, ref: str | None = None, digest: str | None = None, platform: str | None = None
    ) -> Chosen:
        self._path.write_bytes(data)
        wanted = parse_platform(platform) if platform else None
        with contextlib.closing(watched(open_source(str(self._path)))) as source:
            self.reads = source.reads
            if not self._offered:
                return select_image(source, ref, digest, wanted)
            made = make_offer(source, Criteria(ref, digest, wanted))
        node = OfferSource(unpack_offer(pack(made), "offer"), 0, 0)
        return select_image(node, ref, None if made.pinned else digest, wanted)

    def problem(self, data: bytes, **asked: str) -> str:
        """What is wrong, without the place of the archive."""
        with pytest.raises(OciError) as caught:
            self(data, **asked)
        return caught.value.message.replace(f"'{self._path}'", "SRC")

    def listed(self, data: bytes, **asked: t.Any) -> list[dict[str, t.Any]]:
        """What oci_image_info lists."""
        self._path.write_bytes(data)
        with contextlib.closing(open_source(str(self._path))) as source:
            return list_images(source, asked.get("ref"), asked.get("digest"), asked.get("platform"))


@pytest.fixture(params=["node", "controller"])
def choose(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Choose:
    """See ``Choose``."""
    monkeypatch.setattr(selection, "node_platform", lambda: NODE)
    return Choose(tmp_path / "archive", request.param == "controller")


# -- no platform


@pytest.mark.parametrize("fields", [("os", "architecture"), ("architecture",), ("os",)])
@pytest.mark.parametrize("empty", [False, True])
def test_the_only_image_may_leave_out_its_platform(choose: Choose, fields: tuple[str, ...], empty: bool) -> None:
    odd = without("odd", *fields, ref="odd")
    if empty:
        odd = image(
            "odd",
            config_document={field: "" for field in fields},
            descriptor={"platform": {"os": "", "architecture": ""}},
            ref="odd",
        )
    for asked in ({}, {"ref": "odd"}, {"digest": odd.digest}, {"digest": odd.config_digest}):
        chosen = choose(oci_archive(odd, artifact(ref="thing")), **asked)
        assert chosen.manifest_digest == odd.digest
        (warning,) = chosen.warnings
        assert "its config does not give both os and architecture, so nothing shows whether it runs" in warning
    assert chosen.platform.name is None
    (listed,) = choose.listed(oci_archive(odd))
    assert (listed["platform"], listed["problem"], listed["warnings"]) == (None, None, [warning])


def test_ref_or_digest_leave_one_without_a_platform(choose: Choose) -> None:
    odd, other = without("odd", "architecture", ref="odd"), image("a", "linux/arm64", ref="other")
    for asked in ({"ref": "odd"}, {"digest": odd.digest}, {"digest": odd.config_digest}):
        assert choose(oci_archive(odd, other), **asked).manifest_digest == odd.digest
    said = choose.problem(oci_archive(odd, other))
    assert "'odd' for linux on an unknown architecture; 'other' for linux/arm64" in said
    assert said.endswith("; if the image without a platform is the right one, choose it by digest")
    # one that says its platform is taken first
    fine = image("a", ref="fine")
    assert choose(oci_archive(odd, fine)).manifest_digest == fine.digest


def test_a_platform_that_was_asked_for_is_never_guessed(choose: Choose) -> None:
    odd = without("odd", "architecture", ref="odd")
    said = choose.problem(oci_archive(odd), platform="linux/amd64")
    assert said == (
        "SRC holds no image for linux/amd64; it holds 'odd' for linux on an unknown architecture; if the image without a"
        " platform is the right one, choose it by digest and leave out platform"
    )
    said = choose.problem(oci_archive(odd), platform="linux/amd64", digest=odd.digest)
    assert said.endswith("is the right one, leave out platform")


def test_what_an_image_says_must_be_right(choose: Choose) -> None:
    """An operating system alone is a statement, too."""
    odd = image("odd", config_document={"os": "windows", "architecture": ""}, descriptor={"platform": ABSENT})
    said = choose.problem(oci_archive(odd))
    assert "an image without a name for windows on an unknown architecture" in said


def test_an_old_docker_archive_without_a_platform(choose: Choose) -> None:
    odd = without("odd", "os", "architecture")
    data = docker_archive(odd, style="old", repo_tags=[["odd:1"]])
    assert choose(data).config_digest == odd.config_digest
    assert choose(data, digest=odd.config_digest).ref == "odd:1"
    assert "choose it by digest" in choose.problem(data, platform="linux/amd64")


# -- damaged neighbours

BROKEN = [
    image("x", edit_stored=flip(0), ref="broken"),
    image("x", config_options={"edit_stored": flip(0)}, ref="broken"),
    image("x", config_options={"missing": True}, ref="broken"),
    image("x", manifest=b"[]", ref="broken"),
    Index(image("x"), edit_stored=flip(3), ref="broken"),
    Index(image("x"), document=b"{", ref="broken"),
    image(
        "x", descriptor={"digest": "sha1:" + "0" * 40, "annotations": {"org.opencontainers.image.ref.name": "broken"}}
    ),
    image("x", descriptor={"size": -1}, ref="broken"),
]


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("first", [False, True])
def test_a_damaged_neighbour_does_not_matter(choose: Choose, broken: Blob, first: bool) -> None:
    fine = image("a", ref="fine")
    index = Index(image("b"), ref="index")
    others: list[Blob] = [fine, index]
    data = oci_archive(*([broken, *others] if first else [*others, broken]))
    for asked in ({"ref": "fine"}, {"digest": fine.digest}, {"digest": fine.config_digest}):
        assert choose(data, **asked).manifest_digest == fine.digest
    for asked in ({"ref": "index"}, {"digest": index.digest}):
        assert choose(data, **asked).manifest_digest == index.contents[0].digest
    listed = choose.listed(data)
    assert sorted(item["refs"] for item in listed) == [["broken"], ["fine"], ["index"]]
    for item in listed:
        assert bool(item["problem"]) == (item["refs"] == ["broken"])
    # it may be the one that is meant, so it hinders a choice without a name
    assert choose.problem(data) != ""
    listed = choose.listed(data, ref="broken")
    assert listed[0]["problem"].split(" ")[1:3] == choose.problem(data, ref="broken").split(" ")[1:3]


def test_a_damaged_image_of_another_platform_does_not_matter(choose: Choose) -> None:
    broken, fine = image("x", "linux/arm64", edit_stored=flip(0)), image("a")
    assert choose(oci_archive(broken, fine)).manifest_digest == fine.digest
    worse = image("x", "linux/amd64", edit_stored=flip(0))
    better = image("a", "linux/amd64/v2")
    assert (
        choose(oci_archive(image("x", "linux/amd64/v1", edit_stored=flip(0)), better), platform="linux/amd64/v2")
        is not None
    )
    said = choose.problem(oci_archive(worse, fine))
    assert said.startswith(f"the manifest {worse.digest} has content with the digest")
    assert said.endswith("; or choose another image by ref or digest")


def test_a_pin_reads_only_what_it_needs(choose: Choose) -> None:
    images = [image(str(number)) for number in range(5)]
    choose(oci_archive(*images), digest=images[3].digest)
    own = [images[3].path, images[3].config.path]
    assert set(choose.reads) == {"oci-layout", "index.json", *own}
    # of a config, the manifests must be read that may name it, and no other config
    choose(oci_archive(*images), digest=images[3].config_digest)
    assert set(choose.reads) == {"oci-layout", "index.json", *(one.path for one in images), images[3].config.path}


# -- two lists


def lower_case(one: Image) -> bytes:
    """A manifest.json as old versions of jib write it."""
    layers = [layer.path for layer in one.layers]
    return json.dumps([{"config": one.config.path, "repoTags": ["jib:1"], "layers": layers}]).encode()


def test_keys_in_lower_case(choose: Choose) -> None:
    one = image("a")
    files = {"index.json": None, "oci-layout": None}
    chosen = choose(docker_archive(one, manifest=lower_case(one), files=files), ref="jib:1")
    assert chosen.config_digest == one.config_digest
    assert [layer.name for layer in chosen.layers] == [LAYER.path]


@pytest.mark.parametrize(
    "manifest",
    [
        b'[{"Config": "gone.json", "RepoTags": ["side:1"], "Layers": ["gone/layer.tar"]}]',
        b'[{"Config": 1}]',
        b"[",
        b"{}",
        b'{"schemaVersion": 2, "config": {}, "layers": []}',
    ],
)
def test_a_side_list_that_is_wrong(choose: Choose, manifest: bytes) -> None:
    one = image("a", ref="one")
    data = oci_archive(one, files={"manifest.json": manifest})
    for asked in ({}, {"ref": "one"}, {"digest": one.digest}):
        assert choose(data, **asked).manifest_digest == one.digest


@pytest.mark.parametrize("layers", [[], None, ABSENT])
def test_a_manifest_without_layers_beside_a_right_list(choose: Choose, layers: t.Any) -> None:
    """moby 25.0 wrote such."""
    one = image("a", manifest={"layers": layers})
    data = docker_archive(one, repo_tags=[["one:1"]])
    for asked in ({}, {"ref": "one:1"}, {"digest": one.digest}, {"digest": one.config_digest}):
        chosen = choose(data, **asked)
        assert chosen.manifest_digest == one.digest
        assert [layer.digest for layer in chosen.layers] == [LAYER.diff_id]
        assert chosen.warnings[0].endswith("; using the layers that manifest.json lists")
    assert choose.listed(data)[0]["problem"] is None
    # nothing is taken from a list that is wrong as well
    wrong = docker_archive(one, manifest=lower_case(image("a", manifest={"layers": []})).replace(b"layers", b"more"))
    assert "has 0 layers, but the config" in choose.problem(wrong)


@pytest.mark.parametrize(
    "changes",
    [
        {"index": b"{"},
        {"index": {"manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "x"}]}},
        {"files": {"oci-layout": b"{}"}},
    ],
)
def test_a_wrong_index_beside_a_right_list(choose: Choose, changes: dict[str, t.Any]) -> None:
    one = image("a")
    data = docker_archive(one, repo_tags=[["one:1"]], **changes)
    for asked in ({}, {"ref": "one:1"}, {"digest": one.config_digest}):
        assert choose(data, **asked).config_digest == one.config_digest


def test_a_damaged_manifest_beside_a_right_list(choose: Choose) -> None:
    one = image("a", edit_stored=flip(0))
    data = docker_archive(one, repo_tags=[["one:1"]])
    chosen = choose(data)
    assert (chosen.manifest_digest, chosen.config_digest, chosen.ref) == (None, one.config_digest, "one:1")


def test_layers_of_the_other_list_are_those_of_the_config(tmp_path: Path) -> None:
    """A manifest.json that lists foreign layers changes nothing that the config's diff_ids do not allow."""
    one = image("a", manifest={"layers": []})
    path = tmp_path / "archive"
    path.write_bytes(docker_archive(one, repo_tags=[["one:1"]]))
    with contextlib.closing(open_source(str(path))) as source:
        (layer,) = select_image(source, None, None, NODE).layers
        assert layer.digest_is_diff_id
        with contextlib.closing(open_layer(source, layer)) as blob:
            assert blob.read() == LAYER.tar


# -- names


def test_the_name_that_was_asked_for(choose: Choose) -> None:
    one = image("a", ref="1", name="docker.io/library/app:1")
    data = oci_archive(one, one.listed(ref="2"), one.listed(ref="quay.io/me/app:3", name="quay.io/me/app:3"))
    for ref, name in (("app:1", "docker.io/library/app:1"), ("2", "2"), ("quay.io/me/app:3", "quay.io/me/app:3")):
        assert choose(data, ref=ref).ref == name


# -- what is not an image

HELM = "application/vnd.cncf.helm.config.v1+json"


def test_an_artifact_with_a_platform_is_not_an_image(choose: Choose) -> None:
    """The message does not say that the source holds what it does not hold."""
    chart = artifact(ref="0.1.0", config_media_type=HELM, artifact_type=HELM, descriptor={"platform": PLATFORM})
    said = choose.problem(oci_archive(chart), platform="linux/amd64")
    assert said == f"SRC holds no image for linux/amd64; it holds '0.1.0', which is a Helm chart ('{HELM}')"
    assert choose.listed(oci_archive(chart)) == []


def test_what_was_passed_over_is_told_where_nothing_else_is(choose: Choose) -> None:
    types = ["application/vnd.docker.distribution.manifest.v1+prettyjws", "application/vnd.example.thing", ""]
    others = [Blob(b"{}", media_type) for media_type in [*types, types[1]]]
    said = choose.problem(oci_archive(*others), platform="linux/amd64")
    assert said == (
        "SRC holds no image for linux/amd64; it holds a manifest of Docker's obsolete schema 1"
        f" ('{types[0]}'); a descriptor of the type '{types[1]}' (2 times); a descriptor without a media type"
    )
    # beside an image, they are of no interest
    assert "schema 1" not in choose.problem(oci_archive(*others, image("a", "linux/arm64")), platform="linux/amd64")
