# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Choosing one image (docs/behaviour.md, section 2)."""

from __future__ import annotations

import contextlib
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import ImageError, OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._image import index_walk, selection
from ansible_collections.hypervisor.oci.plugins.module_utils._image.image import Image as Chosen
from ansible_collections.hypervisor.oci.plugins.module_utils._image.image import open_layer
from ansible_collections.hypervisor.oci.plugins.module_utils._image.platform import parse_platform
from ansible_collections.hypervisor.oci.plugins.module_utils._image.selection import select_image
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.tests.images.builder import (
    ABSENT,
    Blob,
    Image,
    Index,
    Layer,
    append,
    artifact,
    attestation,
    cut,
    docker_archive,
    file,
    flip,
    oci_archive,
    symlink,
    write_layout,
)
from ansible_collections.hypervisor.oci.tests.unit.support import watched

if t.TYPE_CHECKING:
    from pathlib import Path

CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = Layer(file("etc/issue", b"hello"))
OTHER = Layer(file("etc/other", b"hello"), compression="none")


def image(label: str = "", platform: str = "linux/amd64", **options: t.Any) -> Image:
    """An image whose config holds a label, so that no two are the same."""
    labels = {"Labels": {"name": label}}
    layers = options.pop("layers", [LAYER, OTHER])
    return Image(layers, labels, platform=platform, **options)


class Choose:
    """Choose from an archive, as if on an amd64 node."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.reads: list[str] = []

    def __call__(
        self, data: bytes, ref: str | None = None, digest: str | None = None, platform: str | None = None
    ) -> Chosen:
        self._path.write_bytes(data)
        with contextlib.closing(watched(open_source(str(self._path)))) as source:
            self.reads = source.reads
            return select_image(source, ref, digest, parse_platform(platform) if platform else None)

    def problem(self, data: bytes, **asked: str) -> str:
        """What is wrong, without the place of the archive."""
        with pytest.raises(OciError) as caught:
            self(data, **asked)
        return caught.value.message.replace(f"'{self._path}'", "SRC")


@pytest.fixture
def choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Choose:
    """See ``Choose``."""
    node = parse_platform("linux/amd64")
    monkeypatch.setattr(selection, "node_platform", lambda: node)
    return Choose(tmp_path / "archive")


# -- one image


@pytest.mark.parametrize("media", ["oci", "docker"])
def test_the_only_image(choose: Choose, media: t.Any) -> None:
    one = image(ref="1.0", media=media)
    chosen = choose(oci_archive(one))
    assert chosen.ref == "1.0"
    assert str(chosen.platform) == "linux/amd64"
    assert chosen.manifest_digest == one.manifest_digest
    assert chosen.config_digest == one.config_digest
    assert chosen.config.labels == {"name": ""}
    assert chosen.warnings == ()
    assert [layer.to_result() for layer in chosen.layers] == [
        {"digest": layer.digest, "diff_id": layer.diff_id, "size": layer.size, "media_type": layer.media_type_as(media)}
        for layer in (LAYER, OTHER)
    ]
    # no layer is opened, and no document twice
    assert choose.reads == ["oci-layout", "index.json", one.path, one.config.path]


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": "./"},
        {"compression": "gzip"},
        {"compression": "zstd"},
        {"files": {"oci-layout": None}},
        {"order": "reversed"},
        {"index": {"mediaType": ABSENT, "schemaVersion": ABSENT, "junk": [1]}},
    ],
)
def test_forms_of_one_archive(choose: Choose, options: dict[str, t.Any]) -> None:
    one = image(ref="app")
    assert choose(oci_archive(one, **options)).config_digest == one.config_digest


def test_a_layout_directory(tmp_path: Path) -> None:
    one = image(ref="app")
    path = write_layout(tmp_path / "layout", one)
    with contextlib.closing(open_source(path)) as source:
        chosen = select_image(source, "app", None, parse_platform("linux/amd64"))
        assert [open_layer(source, layer).read() for layer in chosen.layers] == [LAYER.data, OTHER.data]
    assert chosen.manifest_digest == one.manifest_digest


def test_sha512_and_inline_data(choose: Choose) -> None:
    inline = Layer(file("a"), algorithm="sha512", inline=True, missing=True)
    one = image(
        layers=[inline], algorithm="sha512", config_options={"algorithm": "sha512", "inline": True, "missing": True}
    )
    chosen = choose(oci_archive(one))
    (layer,) = chosen.layers
    assert chosen.config_digest.startswith("sha512:")
    assert layer.digest == inline.digest
    reader = open_layer(t.cast(t.Any, None), layer)
    assert reader.read(5) + reader.read() == inline.data
    reader.close()


def test_the_same_layer_twice(choose: Choose) -> None:
    chosen = choose(oci_archive(image(layers=[LAYER, OTHER, LAYER])))
    assert [layer.digest for layer in chosen.layers] == [LAYER.digest, OTHER.digest, LAYER.digest]


# -- by name


NAMED = [
    image("a", ref="docker.io/library/alpine:3.20"),
    image("b", name="docker.io/library/alpine:latest", ref="latest"),
    image("c", ref="quay.io/me/app:1.0"),
    image("d", ref="v2"),
]


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("alpine:3.20", "a"),
        ("3.20", "a"),
        ("alpine", "b"),
        ("latest", "b"),
        ("library/alpine", "b"),
        ("quay.io/me/app:1.0", "c"),
        ("1.0", "c"),
        ("v2", "d"),
        ("quay.io/any/thing:v2", "d"),
    ],
)
def test_by_name(choose: Choose, ref: str, name: str) -> None:
    assert choose(oci_archive(*NAMED), ref=ref).config.labels == {"name": name}


@pytest.mark.parametrize("ref", ["alpine:3", "me/app:1.0", "quay.io/me/app", "0"])
def test_no_such_name(choose: Choose, ref: str) -> None:
    assert choose.problem(oci_archive(*NAMED), ref=ref) == (
        f"SRC holds no image for linux/amd64 with the name '{ref}'; it holds"
        " 'docker.io/library/alpine:3.20' for linux/amd64;"
        " 'docker.io/library/alpine:latest', 'latest' for linux/amd64;"
        " 'quay.io/me/app:1.0' for linux/amd64; 'v2' for linux/amd64"
    )


def test_equals_are_ambiguous(choose: Choose) -> None:
    one, other = image("a", ref="app:1"), image("b")
    for asked in ({}, {"platform": "linux/amd64"}):
        options = "ref or digest" if asked else "ref, digest or platform"
        assert choose.problem(oci_archive(one, other), **asked) == (
            "SRC holds 2 images for linux/amd64:"
            f" 'app:1' for linux/amd64 with the digest {one.digest};"
            f" an image without a name for linux/amd64 with the digest {other.digest};"
            f" choose one by {options}"
        )
    assert choose(oci_archive(one, other), digest=other.digest).ref is None


def test_lists_are_capped(choose: Choose) -> None:
    images = [image(str(number), ref=f"app:{number}") for number in range(25)]
    said = choose.problem(oci_archive(*images))
    assert said.count("app:") == 20
    assert "; and 5 more; choose one by" in said
    said = choose.problem(oci_archive(*images), ref="nothing")
    assert said.count("app:") == 20
    assert said.endswith("; and 5 more")


def test_hostile_names_are_escaped(choose: Choose) -> None:
    said = choose.problem(oci_archive(image(ref="a\n\x1b[31m")), ref="b")
    assert said.endswith(r"it holds 'a\n\x1b[31m' for linux/amd64")


def test_the_same_manifest_counts_once(choose: Choose) -> None:
    one = image("a", ref="one")
    nested = Index(one.listed(ref="three"))
    data = oci_archive(one, one.listed(ref="two"), nested, nested.listed(ref="four"))
    for ref in ("one", "two", "three", "four"):
        assert choose(data, ref=ref).manifest_digest == one.manifest_digest
    assert choose(data).ref == "one"
    assert choose(data, digest=nested.digest).config_digest == one.config_digest


# -- by digest


def test_by_digest(choose: Choose) -> None:
    one, other = image("a"), image("b")
    data = oci_archive(Index(one), other)
    for digest in (one.manifest_digest, one.config_digest, Index(one).index_digest):
        chosen = choose(data, digest=digest)
        assert chosen.manifest_digest == one.manifest_digest


def test_no_such_digest(choose: Choose) -> None:
    digest = "sha256:" + "0" * 64
    one = image(ref="app")
    said = choose.problem(oci_archive(one), digest=digest)
    assert said == (
        f"SRC holds no image for linux/amd64 with the digest {digest}; it holds 'app' for linux/amd64 with the digest"
        f" {one.digest}"
    )
    said = choose.problem(oci_archive(image()), digest="md5:0")
    assert said.startswith("the option digest has a digest of the unsupported algorithm 'md5'")


def test_a_digest_is_no_way_around_the_platform(choose: Choose) -> None:
    arm = image(platform="linux/arm64")
    said = choose.problem(oci_archive(arm), digest=arm.digest)
    assert said.startswith("SRC holds no image for linux/amd64 with the digest")
    assert "it holds an image without a name for linux/arm64" in said
    chosen = choose(oci_archive(arm), digest=arm.digest, platform="linux/arm64")
    assert chosen.manifest_digest == arm.digest


# -- by platform


MANY = [
    image(platform, platform)
    for platform in (
        *("linux/amd64", "linux/amd64/v3", "linux/arm64", "linux/arm/v6"),
        *("linux/arm/v5", "linux/386", "windows/amd64", "linux/s390x"),
    )
]


@pytest.mark.parametrize(
    ("platform", "name"),
    [
        (None, "linux/amd64"),
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64/v2", "linux/amd64"),
        ("linux/amd64/v4", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm", "linux/arm/v6"),
        ("linux/arm/v5", "linux/arm/v5"),
        ("linux/i686", "linux/386"),
        ("windows/amd64", "windows/amd64"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_by_platform(choose: Choose, platform: str | None, name: str, nested: bool) -> None:
    data = oci_archive(Index(Index(*MANY), ref="app")) if nested else oci_archive(*MANY)
    chosen = choose(data, platform=platform)
    assert chosen.config.labels == {"name": name}
    assert str(chosen.platform) == str(parse_platform(name))
    assert chosen.ref == ("app" if nested else None)


def test_no_such_platform(choose: Choose) -> None:
    data = oci_archive(Index(*MANY[2:4], ref="app"))
    assert choose.problem(data) == (
        "SRC holds no image for linux/amd64; it holds 'app' for linux/arm64; 'app' for linux/arm/v6; set platform to one"
        " that it holds"
    )


def test_a_config_speaks_where_the_descriptor_does_not(choose: Choose) -> None:
    silent = {"platform": ABSENT}
    one = image("a", "linux/arm64", descriptor=silent)
    other = image("b", descriptor=silent)
    assert choose(oci_archive(one, other)).config.labels == {"name": "b"}
    assert str(choose(oci_archive(one), platform="linux/arm64").platform) == ("linux/arm64")


def test_the_descriptor_wins_with_a_warning(choose: Choose) -> None:
    one = image(platform="linux/arm64").listed(platform="linux/amd64")
    chosen = choose(oci_archive(one))
    assert str(chosen.platform) == "linux/amd64"
    assert chosen.warnings == ("the image's index says linux/amd64, but its config says linux/arm64; using the index",)


def test_a_config_without_platform_contradicts_nothing(choose: Choose) -> None:
    change = {"os": ABSENT, "architecture": ABSENT}
    chosen = choose(oci_archive(image(config_document=change)))
    assert chosen.warnings == ()


def test_documents_of_other_platforms_are_not_read(choose: Choose) -> None:
    broken = image("x", "linux/arm64", edit_stored=flip(0))
    chosen = choose(oci_archive(broken, image("a")))
    assert chosen.config.labels == {"name": "a"}
    assert broken.path not in choose.reads


# -- what is no candidate


def test_attestations_and_artifacts_are_never_chosen(choose: Choose) -> None:
    one = image("a", ref="app")
    data = oci_archive(
        Index(one, attestation(one)),
        attestation(one, platform=None),
        artifact(ref="app"),
        Blob(b"{}", "application/vnd.example.unknown+json"),
    )
    assert choose(data, ref="app").manifest_digest == one.manifest_digest
    alone = oci_archive(artifact(ref="thing"), attestation(one))
    assert choose.problem(alone) == (
        "SRC holds no image for linux/amd64; it holds 'thing', which is an artifact of the type"
        " 'application/vnd.example.thing'; an attestation"
    )


def test_a_partial_save(choose: Choose) -> None:
    here = image("a")
    gone = image("b", "linux/arm64", missing=True)
    data = oci_archive(Index(gone, here, ref="app"))
    assert choose(data).manifest_digest == here.manifest_digest
    assert choose.problem(data, platform="linux/arm64") == (
        "SRC holds no image for linux/arm64; it holds 'app' for linux/arm64 (not in"
        " this archive); 'app' for linux/amd64; set platform to one that it holds"
    )


def test_an_index_that_is_not_there(choose: Choose) -> None:
    missing = Index(image(), ref="app", missing=True)
    data = oci_archive(image("a", "linux/arm64"), missing)
    # what is known of it is its name
    assert choose.problem(oci_archive(missing)) == (
        "SRC holds no image for linux/amd64; it holds 'app' for an unknown platform (not in this archive)"
    )
    assert choose(data, platform="linux/arm64").config.labels == {"name": "a"}


def test_no_index_and_no_image(choose: Choose) -> None:
    assert choose.problem(oci_archive()) == "SRC holds no image for linux/amd64; its list of images is empty"
    nothing = oci_archive(files={"index.json": None, "oci-layout": None, "a": b""})
    assert choose.problem(nothing).startswith("src SRC is not an image archive: it is a tar archive of other files")


# -- missing and wrong blobs


def test_missing_blobs_are_errors_before_any_layer_is_read(choose: Choose) -> None:
    gone = Layer(file("gone"), missing=True)
    assert choose.problem(oci_archive(image(layers=[LAYER, gone]))) == (
        f"SRC does not hold the layer {gone.digest}; save the image as a whole"
    )
    assert not any(name == LAYER.path for name in choose.reads)
    one = image(config_options={"missing": True})
    assert choose.problem(oci_archive(one)) == (
        f"SRC does not hold the config {one.config_digest} of the manifest" f" {one.digest}; save the image as a whole"
    )


def test_the_size_of_a_layer_is_checked_before_it_is_read(choose: Choose) -> None:
    short = Layer(file("a"), edit_stored=cut(5))
    assert choose.problem(oci_archive(image(layers=[short]))) == (
        f"the layer {short.digest} has 5 bytes, but its descriptor says {short.size};"
        " fetch the image again or, if that does not help, build it again"
    )


@pytest.mark.parametrize("link", [symlink("", "/etc/passwd"), symlink("", "../../../../x")])
def test_a_layer_that_is_a_link_out_of_the_archive(choose: Choose, link: t.Any) -> None:
    data = oci_archive(image(), files={LAYER.path: link})
    assert "is a link out of the archive" in choose.problem(data)


@pytest.mark.parametrize("what", ["manifest", "config"])
def test_documents_are_verified(choose: Choose, what: str) -> None:
    edit: dict[str, t.Any] = {"edit_stored": flip(3)}
    one = image(**edit) if what == "manifest" else image(config_options=edit)
    digest = one.digest if what == "manifest" else one.config_digest
    said = choose.problem(oci_archive(one))
    assert said.startswith(f"the {what} {digest} has content with the digest sha256:")
    nested = Index(image(), edit_stored=flip(3))
    said = choose.problem(oci_archive(nested))
    assert said.startswith(f"the index {nested.digest} has content with the digest")


# -- documents that are wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": b"{"}, "index.json is not valid JSON: Expecting property name"),
        ({"index": b"[]"}, "index.json is not a JSON object"),
        ({"index": {"manifests": {}}}, "index.json: the field 'manifests' is not a"),
        ({"index": {"layers": []}}, "index.json has both manifests and layers"),
        (
            {"index": {"manifests": [{"mediaType": MANIFEST, "digest": "x"}]}},
            "a descriptor in index.json has an invalid digest: 'x'",
        ),
        (
            {"files": {"oci-layout": b'{"imageLayoutVersion":"2.0.0"}'}},
            "oci-layout has the unsupported version '2.0.0': expected 1.0.0",
        ),
        ({"files": {"oci-layout": b"{}"}}, "oci-layout has the unsupported version '': expected"),
        ({"files": {"oci-layout": b""}}, "oci-layout is not valid JSON"),
        (
            {"files": {"index.json": b"[" + b" " * (4 << 20) + b"]"}},
            "SRC: the document 'index.json' has 4194306 bytes, more than 4194304",
        ),
    ],
)
def test_wrong_documents_of_a_layout(choose: Choose, options: dict[str, t.Any], message: str) -> None:
    said = choose.problem(oci_archive(image(), **options))
    assert said.startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"manifest": b"x"}, "the manifest is not valid JSON"),
        ({"manifest": {"manifests": []}}, "has both manifests and layers; do not"),
        (
            {"manifest": {"mediaType": "application/vnd.oci.image.index.v1+json"}},
            "has the mediaType 'application/vnd.oci.image.index.v1+json', but its descriptor",
        ),
        ({"manifest": {"layers": "x"}}, "the field 'layers' is not a list of objects"),
        ({"manifest": {"layers": [{}, {}]}}, "has no digest"),
        ({"manifest": {"config": []}}, "the field 'config' is not an object"),
        ({"manifest": {"config": {"size": 1}}}, "has no digest"),
        ({"config_document": b"[]"}, "is not a JSON object"),
        ({"config_document": {"os": 1}}, "has a platform that is not a string"),
        (
            {"config_document": {"rootfs": {"type": "tree", "diff_ids": []}}},
            "has a rootfs of the unsupported type 'tree': expected layers",
        ),
        ({"config_document": {"rootfs": {"diff_ids": [LAYER.diff_id]}}}, "has 2 layers, but the config"),
        ({"config_document": {"rootfs": None}}, "has 2 layers, but the config"),
        (
            {"config_document": {"rootfs": {"diff_ids": ["sha256:x", "md5:y"]}}},
            "has an invalid digest: 'sha256:x', expected 64 lower-case",
        ),
        ({"manifest": {"layers": []}}, "has 0 layers, but the config"),
    ],
)
def test_wrong_documents_of_an_image(choose: Choose, options: dict[str, t.Any], message: str) -> None:
    one = image(**options)
    said = choose.problem(oci_archive(one))
    assert message in said
    assert one.digest in said or one.config_digest in said or said.startswith("the man")


@pytest.mark.parametrize(
    ("media_type", "message"),
    [
        (
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "is encrypted: 'application/vnd.oci.image.layer.v1.tar+gzip+encrypted'; use",
        ),
        ("application/vnd.example.squashfs", "is of an unknown type: 'application/vnd"),
        ("", "is of an unknown type: ''; use an image whose layers are tars, plain or compressed"),
    ],
)
def test_layers_that_cannot_be_applied(choose: Choose, media_type: str, message: str) -> None:
    layer = Layer(file("a"), media_type=media_type)
    said = choose.problem(oci_archive(image(layers=[layer])))
    assert said.startswith(f"the layer {layer.digest} {message}")


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
    ],
)
def test_all_types_of_layers(choose: Choose, media_type: str) -> None:
    layer = Layer(file("a"), media_type=media_type, descriptor={"urls": ["http://example.com/"]})
    (found,) = choose(oci_archive(image(layers=[layer]))).layers
    assert found.media_type == media_type


# -- fixed limits


def test_a_pin_of_a_config_whose_manifest_exceeds_a_limit(choose: Choose) -> None:
    """It must not be told that there is no such image. Its manifest's own digest says what is wrong with it."""
    large = image("large", manifest={"annotations": {"a": "x" * 2**22}})
    data = oci_archive(large, image("other"))
    reason = f"the manifest {large.digest} has {len(large.data)} bytes, more than 4194304, a fixed limit"
    assert choose.problem(data, digest=large.config_digest) == (
        f"SRC: no descriptor has the digest {large.config_digest}, and 1 of 2 images cannot be read that may have a config"
        f" with it: {reason}; if it is such an image, use the digest of its manifest"
    )
    assert choose.problem(data, digest=large.digest) == reason
    assert choose(data, digest=image("other").config_digest).config.labels == {"name": "other"}


def test_a_pin_of_a_config_behind_more_documents_than_are_read(choose: Choose) -> None:
    many = [image(str(number), manifest={"annotations": {"a": "x" * (2**22 - 9000)}}) for number in range(17)]
    data = oci_archive(*many, image("last"))
    said = choose.problem(data, digest=image("last").config_digest)
    assert (
        "images cannot be read that may have a config with it: SRC: its documents have more than 67108864 bytes" in said
    )
    assert choose(data, digest=image("last").digest).config.labels == {"name": "last"}


def test_at_most_1000_layers(choose: Choose) -> None:
    assert len(choose(oci_archive(image(layers=[LAYER] * 1000))).layers) == 1000
    said = choose.problem(oci_archive(image(layers=[LAYER] * 1001)))
    assert said.endswith(" has 1001 layers, more than 1000, a fixed limit; build the image with fewer")


def _nested(depth: int) -> Index:
    index = Index(image("a"))
    for _level in range(depth - 1):
        index = Index(index)
    return index


def test_at_most_32_nested_indexes(choose: Choose) -> None:
    assert choose(oci_archive(_nested(32))).config.labels == {"name": "a"}
    message = "the image has more than 32 nested indexes, a fixed limit; save fewer images"
    assert choose.problem(oci_archive(_nested(33))) == message
    wide = [Index(image(str(number))) for number in range(33)]
    assert choose.problem(oci_archive(*wide)) == message


def test_manifests_are_bounded(choose: Choose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_walk, "_MOST_MANIFESTS", 3)
    images = [image(str(number)) for number in range(4)]
    assert choose.problem(oci_archive(*images)) == (
        "the image has more than 3 manifests, a fixed limit; save fewer images"
    )
    with pytest.raises(ImageError, match="holds 3 images"):
        choose(oci_archive(*images[:3]))


# -- docker save


def test_an_old_docker_archive(choose: Choose) -> None:
    one, other = image("a"), image("b")
    tags: list[t.Any] = [["app:1", "app:latest"], ["other"]]
    data = docker_archive(one, other, style="old", repo_tags=tags)
    chosen = choose(data, ref="app")
    assert chosen.manifest_digest is None
    assert chosen.config_digest == one.config_digest
    assert chosen.ref == "app:latest"
    assert str(chosen.platform) == "linux/amd64"
    for found, made in zip(chosen.layers, (LAYER, OTHER)):
        assert found.digest == found.diff_id == made.diff_id
        assert found.digest_is_diff_id
        assert found.size == len(made.tar)
        assert found.name.endswith("/layer.tar")
    assert choose(data, ref="docker.io/library/other").config.labels == {"name": "b"}
    assert choose(data, digest=other.config_digest).ref == "other"
    assert choose.problem(data).startswith(
        f"SRC holds 2 images for linux/amd64: 'app:1', 'app:latest' for linux/amd64"
        f" with the digest {one.config_digest}; 'other' for linux/amd64 with the digest"
    )


@pytest.mark.parametrize("links", ["symlink", "hardlink"])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_layers_of_an_old_archive_may_be_links(choose: Choose, tmp_path: Path, links: t.Any, prefix: str) -> None:
    data = docker_archive(image("a"), style="old", links=links, prefix=prefix)
    chosen = choose(data)
    with contextlib.closing(open_source(str(tmp_path / "archive"))) as source:
        assert [open_layer(source, layer).read() for layer in chosen.layers] == [LAYER.tar, OTHER.tar]


def test_an_old_docker_archive_unpacked(tmp_path: Path, choose: Choose) -> None:
    one = image("a")
    names = [layer.diff_id.partition(":")[2] + ".tar" for layer in (LAYER, OTHER)]
    manifest = b'[{"Config": "c.json", "RepoTags": null, "Layers": ["%s", "%s"]}]' % (
        names[0].encode(),
        names[1].encode(),
    )
    files = {
        "index.json": None,
        "oci-layout": None,
        "manifest.json": manifest,
        "c.json": one.config.data,
        names[0]: LAYER.tar,
        names[1]: OTHER.tar,
    }
    path = write_layout(tmp_path / "directory", files=files)
    with contextlib.closing(open_source(path)) as source:
        chosen = select_image(source, None, None, None)
        assert open_layer(source, chosen.layers[1]).read() == OTHER.tar
    assert chosen.config_digest == one.config_digest


def test_a_new_docker_archive_counts_once(choose: Choose) -> None:
    """The union of both lists: the OCI form, with Docker's names as well."""
    one = image("a", ref="1")
    chosen = choose(docker_archive(one, repo_tags=[["me/app:1"]]))
    assert chosen.manifest_digest == one.manifest_digest
    assert chosen.ref == "me/app:1"
    assert [layer.digest for layer in chosen.layers] == [LAYER.digest, OTHER.digest]
    assert choose(docker_archive(one, repo_tags=[["a/b:2"]]), ref="2").ref == "a/b:2"
    # what the layout does not list is found by Docker's list
    other = docker_archive(one, repo_tags=[["x"]], index={"manifests": []})
    chosen = choose(other, ref="x")
    assert chosen.manifest_digest is None
    assert chosen.config_digest == one.config_digest


def test_the_same_config_twice_counts_once(choose: Choose) -> None:
    one = image("a")
    tags: list[t.Any] = [["a"], ["b"]]
    data = docker_archive(one, one, style="old", repo_tags=tags)
    assert choose(data).ref == "a"
    assert choose(data, ref="b").config_digest == one.config_digest


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (b"{}", "manifest.json is an object, not the list of images that docker save writes; save the"),
        (b"[1]", "manifest.json is JSON of another kind, not the list of images that docker save writes"),
        (b"[", "manifest.json is not valid JSON"),
        (b"[{}]", "manifest.json has an image without Config; it is not a list that docker save writes"),
        (b'[{"Config": 1}]', "manifest.json: the field 'Config' is not a string"),
        (
            b'[{"Config": "x"}]',
            "SRC holds no image for linux/amd64; it holds an image without a name for an unknown platform (not in this",
        ),
        (
            b'[{"Config": "../x"}]',
            "SRC holds no image for linux/amd64; it holds an image without a name for an unknown",
        ),
        (
            b'[{"Config": "oci-layout", "RepoTags": "x"}]',
            "manifest.json: the field 'RepoTags' is not a list of strings",
        ),
    ],
)
def test_wrong_lists_of_docker(choose: Choose, manifest: bytes, message: str) -> None:
    data = docker_archive(image("a"), manifest=manifest, style="old")
    assert choose.problem(data).startswith(message)
    # beside a right index.json it does not matter
    assert choose(docker_archive(image("a"), manifest=manifest)).config.labels == {"name": "a"}


def test_a_config_that_is_not_what_its_name_says(choose: Choose) -> None:
    one = image("a", config_options={"edit_stored": append(b" ")})
    said = choose.problem(docker_archive(one, style="old"))
    name = one.config_digest.partition(":")[2] + ".json"
    assert said.startswith(f"the config '{name}' has content with the digest sha256:")
    assert said.endswith("; save the image again")


def test_missing_layers_of_an_old_archive(choose: Choose) -> None:
    gone = Layer(file("gone"), missing=True)
    said = choose.problem(docker_archive(image(layers=[LAYER, gone]), style="old"))
    assert said.startswith("SRC does not hold the layer '")
    assert said.endswith("/layer.tar'; save the image as a whole")


def test_counts_of_an_old_archive(choose: Choose) -> None:
    one = image(config_document={"rootfs": {"diff_ids": [LAYER.diff_id]}})
    said = choose.problem(docker_archive(one, style="old"))
    assert said == (f"manifest.json has 2 layers, but the config {one.config_digest} has" " 1 diff_ids")
