# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a controller tells of an image: a node that reads it chooses as it would from the source itself.

docs/behaviour.md, sections 1, 2 and 7.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import ImageError, OciError, SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.platform import parse_platform
from ansible_collections.hypervisor.oci.plugins.module_utils._image.selection import select_image
from ansible_collections.hypervisor.oci.plugins.module_utils._source import offer
from ansible_collections.hypervisor.oci.plugins.module_utils._source.directory import LayoutDirectory
from ansible_collections.hypervisor.oci.plugins.module_utils._source.offer import Offer, OfferSource, unpack_offer
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.plugins.plugin_utils import _offer, _criteria
from ansible_collections.hypervisor.oci.plugins.plugin_utils._offer import make_offer, pack
from ansible_collections.hypervisor.oci.plugins.plugin_utils._criteria import Criteria, parse_criteria
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
from ansible_collections.hypervisor.oci.tests.unit.support import watched

AMD = Image([Layer(file("a", "a")), Layer(file("b", "b"))], platform="linux/amd64")
ARM = Image([Layer(file("c", "c"))], platform="linux/arm64")
GONE = Image([Layer(file("d", "d"))], platform="linux/s390x", missing=True)
SILENT = Image([Layer(file("e"))], platform="linux/riscv64", descriptor={"platform": ABSENT})
INDEX = Index(AMD, ARM, GONE, SILENT, attestation(AMD), artifact(), ref="demo:1")


def offered(path: str, criteria: Criteria | None = None) -> Offer:
    """What a node with this criteria is told."""
    with contextlib.closing(open_source(path)) as source:
        return unpack_offer(pack(make_offer(source, criteria or Criteria())), "x")


def sent(path: str, criteria: Criteria | None = None) -> OfferSource:
    """The source as a node has it."""
    return OfferSource(offered(path, criteria), 0, 0)


def chosen(source: t.Any, platform: str, ref: str | None = None, digest: str | None = None) -> t.Any:
    """Return the image, or the message that says why no image was selected."""
    try:
        return select_image(source, ref, digest, parse_platform(platform))
    except OciError as error:
        return error.message


def written(folder: Path) -> dict[str, str]:
    """The same images in every form."""
    return {
        "archive": write_oci_archive(folder / "i.tar", INDEX),
        "compressed": write_oci_archive(folder / "i.tgz", INDEX, compression="gzip"),
        "layout": write_layout(folder / "layout", INDEX),
        "docker": write_docker_archive(folder / "d.tar", AMD, repo_tags=[["demo:1"]]),
        "old docker": write_docker_archive(folder / "o.tar", AMD, repo_tags=[["demo:1"]], style="old", links="symlink"),
    }


@pytest.mark.parametrize("form", ["archive", "compressed", "layout", "docker", "old docker"])
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
    with contextlib.closing(watched(open_source(path))) as source:
        made = make_offer(source, Criteria())
        opened = source.reads
    layers = [layer.path for image in (AMD, ARM, SILENT) for layer in image.layers]
    assert sorted(made.layers) == sorted(layers)
    assert made.sizes == {}
    documents = {"index.json"}
    for image in (AMD, ARM, SILENT):
        documents |= {image.path, image.config.path}
    assert set(made.documents) == documents
    # nothing else was opened, and nothing twice: nodes need no documents of artifacts
    assert sorted(opened) == sorted([*documents, "oci-layout", INDEX.path, artifact().path])


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
def test_what_is_wrong_with_one_image_is_told_by_the_node_that_wants_it(tmp_path: Path, broken: Image) -> None:
    path = write_oci_archive(tmp_path / "i.tar", AMD, broken)
    assert chosen(sent(path), "linux/amd64").layers
    with contextlib.closing(open_source(path)) as source:
        expected = chosen(source, "linux/386")
    assert isinstance(expected, str)
    assert chosen(sent(path), "linux/386") == expected


def test_a_layer_that_is_a_link_out_is_told_as_such(tmp_path: Path) -> None:
    """Hostile: the same message as where the archive lies on the node (section 1)."""
    layer = AMD.layers[0]
    path = write_oci_archive(tmp_path / "i.tar", AMD, files={layer.path: symlink(layer.path, "/etc/shadow")})
    with contextlib.closing(open_source(path)) as source:
        expected = chosen(source, "linux/amd64")
    assert "is a link out of the archive" in expected
    assert chosen(sent(path), "linux/amd64") == expected


@pytest.mark.parametrize(
    "index", [b"[]", b"{", {"manifests": [{"mediaType": AMD.media_type, "digest": "../x"}]}, {"layers": []}]
)
def test_what_is_wrong_with_all_of_it_is_told_on_the_controller(tmp_path: Path, index: t.Any) -> None:
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
        assert len(pack(make_offer(source, Criteria()))) < 100_000


# -- a task that names its image (section 7)

SECRET = {"token": "secret-of-two"}
ONE = Image([Layer(file("1", "one"))], {"Env": ["PASSWORD=of-one"]}, ref="one")
ONE_ARM = Image(
    [Layer(file("1", "one-arm"))], {"Env": ["PASSWORD=of-one-arm"]}, platform="linux/arm64"
)  # fmt: skip
TWO = Image([Layer(file("2", "two"))], {"Env": ["PASSWORD=of-two"]}, ref="reg.example.org/two:2", annotations=SECRET)  # fmt: skip
BOTH = Index(ONE, ONE_ARM, ref="registry.example.org/app:1")
INNER = Index(BOTH, Image([Layer(file("3"))], platform="linux/386", annotations=SECRET))


def told(offer_made: Offer) -> bytes:
    """All that a node reads of it."""
    head = repr((offer_made.layers, offer_made.sizes, offer_made.problems))
    return b"".join(offer_made.documents.values()) + head.encode()


def everything(folder: Path) -> dict[str, str]:
    """Several images, in every form."""
    images = (BOTH, TWO, INNER)
    return {
        "archive": write_oci_archive(folder / "i.tar", *images),
        "compressed": write_oci_archive(folder / "i.tgz", *images, compression="gzip"),
        "layout": write_layout(folder / "layout", *images),
    }


CRITERIA: t.Sequence[tuple[dict[str, str], t.Sequence[Image]]] = [
    ({"ref": "one"}, [ONE]),
    ({"ref": "registry.example.org/app:1"}, [ONE, ONE_ARM]),
    # a bare tag
    ({"ref": "1"}, [ONE, ONE_ARM]),
    ({"ref": "1", "platform": "linux/arm64"}, [ONE_ARM]),
    ({"digest": ONE_ARM.digest}, [ONE_ARM]),
    ({"digest": ONE_ARM.config.digest}, [ONE_ARM]),
    ({"digest": BOTH.digest}, [ONE, ONE_ARM]),
    ({"digest": BOTH.digest, "platform": "linux/amd64"}, [ONE]),
    ({"digest": BOTH.digest, "ref": "one"}, [ONE]),
    ({"platform": "linux/arm64/v8"}, [ONE_ARM]),
    ({"ref": "reg.example.org/two:2"}, [TWO]),
]

CRITERIA_IDS = [f"{number}-{'-'.join(options)}" for number, (options, _meant) in enumerate(CRITERIA)]


def criteria_for(options: dict[str, str]) -> Criteria:
    """As the action plugin makes it of a task."""
    return parse_criteria({"src": "/x", "dest": "/y", **options})


@pytest.mark.parametrize("form", ["archive", "compressed", "layout"])
@pytest.mark.parametrize(("options", "meant"), CRITERIA, ids=CRITERIA_IDS)
def test_a_node_is_told_of_nothing_but_what_its_task_names(
    tmp_path: Path, form: str, options: dict[str, str], meant: t.Sequence[Image]
) -> None:
    path = everything(tmp_path)[form]
    made = offered(path, criteria_for(options))
    text = told(made)
    for image in (ONE, ONE_ARM, TWO):
        (words,) = re.findall(rb"PASSWORD=[a-z-]+", image.config.data)
        assert (words + b'"' in text) == (image in meant)
        for layer in image.layers:
            assert (layer.path in made.layers) == (image in meant)
        # not even by name
        for digest in (image.digest, image.config.digest):
            assert (digest[7:].encode() in text) == (image in meant)
    assert b"secret-of-two" not in text
    assert set(made.layers) == {one.path for image in meant for one in image.layers}


@pytest.mark.parametrize("form", ["archive", "compressed", "layout"])
@pytest.mark.parametrize(("options", "meant"), CRITERIA, ids=CRITERIA_IDS)
def test_a_node_chooses_the_same_from_what_is_left(
    tmp_path: Path, form: str, options: dict[str, str], meant: t.Sequence[Image]
) -> None:
    path = everything(tmp_path)[form]
    source = sent(path, criteria_for(options))
    ref, digest = options.get("ref"), options.get("digest")
    for platform in [options["platform"]] if "platform" in options else ["linux/amd64", "linux/arm64"]:  # fmt: skip
        with contextlib.closing(open_source(path)) as whole:
            expected = chosen(whole, platform, ref, digest)
        # a pin of an index was held against it by the controller
        found = chosen(source, platform, ref, None if source.pinned == digest else digest)  # fmt: skip
        if isinstance(expected, str):
            assert expected.partition("; it holds")[0].startswith(found.partition("; it holds")[0])  # fmt: skip
        else:
            assert found == expected
            assert found.manifest_digest in {image.digest for image in meant}


def test_docker_archives_are_narrowed_too(tmp_path: Path) -> None:
    for style in ("old", "new"):
        path = write_docker_archive(
            tmp_path / f"{style}.tar", ONE, TWO, repo_tags=[["one:1", "uno:1"], ["two:1"]], style=style
        )  # fmt: skip
        made = offered(path, Criteria(ref="one:1"))
        assert b"PASSWORD=of-one" in told(made)
        assert b"of-two" not in told(made)
        assert b"two:1" not in told(made)
        assert len(made.layers) == 1
        with contextlib.closing(open_source(path)) as whole:
            expected = chosen(whole, "linux/amd64", "one:1")
        assert chosen(sent(path, Criteria(ref="one:1")), "linux/amd64", "one:1") == expected
        assert expected.ref == "one:1"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ref": "three"}, "holds no image with the name 'three'; it holds "),
        ({"digest": "sha256:" + "0" * 64}, "holds no image with the digest sha256:0"),
        ({"ref": "one", "digest": TWO.digest}, "with the name 'one' with the digest"),
        ({"ref": "three", "platform": "linux/arm64"}, "holds no image for linux/arm64 with the name 'three'; it holds"),
        ({"platform": "linux/s390x"}, "holds no image for linux/s390x; it holds"),
        ({"platform": "linux/amd64"}, "holds 2 images for linux/amd64: "),
    ],
    ids=str,
)  # fmt: skip
def test_what_no_node_could_choose_is_told_on_the_controller_with_all_there_is(
    tmp_path: Path, options: dict[str, str], said: str
) -> None:
    path = write_oci_archive(tmp_path / "i.tar", BOTH, TWO)
    with pytest.raises(ImageError) as caught:
        offered(path, criteria_for(options))
    assert said in caught.value.message
    assert "'one', 'registry.example.org/app:1'" in caught.value.message or "'registry.example.org/app:1', 'one'" in caught.value.message  # fmt: skip
    assert "'reg.example.org/two:2'" in caught.value.message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"platform": "nonsense"}, "invalid platform 'nonsense'"),
        ({"digest": "md5:0123"}, "of the unsupported algorithm 'md5'"),
        ({"digest": "x", "platform": "linux/amd64"}, "the option digest has an invalid digest: 'x'"),
    ],
    ids=str,
)  # fmt: skip
def test_options_that_are_wrong(tmp_path: Path, options: dict[str, str], said: str) -> None:
    path = write_oci_archive(tmp_path / "i.tar", ONE)
    with pytest.raises(ImageError, match=said):
        offered(path, criteria_for(options))


def test_what_a_task_does_not_say_is_no_wish() -> None:
    assert parse_criteria({}) == parse_criteria({"ref": None, "digest": "", "platform": ""}) == Criteria()
    # YAML's numbers are names
    assert parse_criteria({"ref": 2.1}).ref == "2.1"
    keys = {parse_criteria({name: "a/b"}).key for name in ("ref", "platform")}
    assert len(keys | {Criteria().key, Criteria(digest="a/b").key}) == 4


def test_more_names_than_a_list_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_oci_archive(tmp_path / "i.tar", BOTH, TWO)
    monkeypatch.setattr(_criteria, "DOCUMENT_LIMIT", 600)
    with pytest.raises(SourceError, match="too many images and names .* choose fewer by ref, digest or platform"):  # fmt: skip
        offered(path)
    offered(path, Criteria(ref="reg.example.org/two:2"))


# -- links of a layout are its author's (section 7)


@pytest.mark.parametrize("which", ["manifest", "config"])
def test_a_document_that_is_a_link_tells_no_node_what_it_leads_to(tmp_path: Path, which: str) -> None:
    """Whatever says its size: a key, a list of passwords."""
    secret = tmp_path / "id_ed25519"
    image = Image([Layer(file("x"))])
    blob = image if which == "manifest" else image.config
    secret.write_bytes(b"the controller's own key".ljust(blob.size))
    layout = Path(write_layout(tmp_path / "layout", image, ONE_ARM))
    (layout / blob.path).unlink()
    (layout / blob.path).symlink_to(secret)
    made = offered(str(layout))
    text = told(made)
    assert b"controller's own key" not in text
    # nor what would tell a guess from a wrong one
    assert hashlib.sha256(secret.read_bytes()).hexdigest().encode() not in text
    assert set(made.layers) == {layer.path for layer in ONE_ARM.layers}
    said = chosen(OfferSource(made, 0, 0), "linux/amd64")
    assert f"'{blob.path}' of '{layout}' does not match its digest" in said


def test_documents_without_a_digest_stay_inside_of_a_layout(tmp_path: Path) -> None:
    """An old config may have any name, and any JSON is one."""
    secret = tmp_path / "config.json"
    secret.write_text('{"auths": {"registry": "secret"}, "rootfs": {"type": "layers"}}')
    layout = tmp_path / "layout"
    layout.mkdir()
    (layout / "c.json").symlink_to(secret)
    (layout / "manifest.json").write_text('[{"Config": "c.json", "Layers": []}]')
    source = LayoutDirectory(str(layout))
    source.confined = True
    made = make_offer(source, Criteria())
    assert "'c.json' of " in made.problems["c.json"] and "is a link out of the directory" in made.problems["c.json"]
    assert "secret" not in str(made)
    # what a source is entered by may be a link, but nobody is told what it holds
    (layout / "oci-layout").symlink_to(secret)
    (layout / "manifest.json").write_text('[{"Config": "oci-layout", "Layers": []}]')
    made = make_offer(source, Criteria())
    assert "oci-layout" not in made.documents
    assert "secret" not in str(made)
