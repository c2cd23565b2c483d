# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs that keep blobs, and use those that others kept (docs/behaviour.md, section 7)."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._cache import blobs as _cache
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import LayerError, OciError, RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sent import upload_name
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.plugins.plugin_utils._offer import make_offer, pack
from ansible_collections.hypervisor.oci.plugins.plugin_utils._criteria import Criteria
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    file,
    flip,
    write_docker_archive,
    write_layout,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.support import contents, mounted, needs_root, without_waiting
from ansible_collections.hypervisor.oci.tests.unit.support import run as run_alone

BASE = Layer(file("base", b"b" * 100_000))
PLAIN = Layer(file("plain", b"p" * 5_000), compression="none")
ONE = Image([BASE, PLAIN, Layer(file("one", "1"))])
TWO = Image([BASE, PLAIN, Layer(file("two", "2"))])
TREE = {"base": b"b" * 100_000, "plain": b"p" * 5_000}

# The bytes of another blob, of the same size, as damage on a disk looks to who reads it.
DAMAGES: dict[str, t.Callable[[bytes], bytes]] = {
    "first": lambda data: b"?" + data[1:],
    "last": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "middle": lambda data: data[:60] + b"\xff" * 8 + data[68:],
    "zeros": lambda data: bytes(len(data)),
    "zstd": lambda data: b"\x28\xb5\x2f\xfd" + data[4:],
    "short": lambda data: data[:-1],
    "nothing": lambda data: b"",
}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)


def run(dest: str | Path, check_mode: bool = False, **changes: t.Any) -> dict[str, t.Any]:
    """A run of images that may read each other."""
    return run_alone(dest, check_mode, **{"cache_scope": "ours", **changes})


def entries(cache: Path) -> set[str]:
    """The digests in a cache."""
    return {
        f"{algorithm}:{name}"
        for algorithm in ("sha256", "sha512")
        if (cache / algorithm).is_dir()
        for name in os.listdir(cache / algorithm)
    }


def digests(*images: Image) -> set[str]:
    """Those of the layers."""
    return {layer.digest for image in images for layer in image.layers}


def counts(result: dict[str, t.Any]) -> tuple[int, int]:
    """How many blobs came from the cache, and how many entries were damaged."""
    found = result["report"]["counts"]
    return found.get("blobs_from_cache", 0), found.get("cache_entries_damaged", 0)


@pytest.fixture(name="cache")
def fixture_cache(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "cache"


Writer = t.Callable[[Path, Image], str]
FORMS: dict[str, Writer] = {"archive": write_oci_archive, "layout": write_layout, "new docker": write_docker_archive}


@pytest.mark.parametrize("form", FORMS)
def test_what_images_share_is_read_once(tmp_path: Path, cache: Path, form: str) -> None:
    write = FORMS[form]
    first = run(tmp_path / "1", src=write(tmp_path / "a", ONE), cache_dir=str(cache))
    assert counts(first) == (0, 0)
    assert entries(cache) == digests(ONE)
    # of the second archive, only what the first did not bring is there to be read
    missing = Image(
        [
            Layer(file("base", b"b" * 100_000), edit_stored=flip(9)),
            Layer(file("plain", b"p" * 5_000), compression="none", edit_stored=flip(9)),
            Layer(file("two", "2")),
        ]
    )
    second = run(tmp_path / "2", src=write(tmp_path / "b", missing), cache_dir=str(cache))
    assert counts(second) == (2, 0)
    assert contents(tmp_path / "2") == {**TREE, "two": b"2"}
    assert entries(cache) == digests(ONE, TWO)


@pytest.mark.parametrize("compressed", [False, True])
def test_old_docker_archives(tmp_path: Path, cache: Path, compressed: bool) -> None:
    """They have no digest but the content's: what is plain there is kept by that, what is compressed is not."""
    path = write_docker_archive(tmp_path / "a", Image([BASE, PLAIN]), style="old", compressed=compressed)
    run(tmp_path / "1", src=path, cache_dir=str(cache))
    kept = {PLAIN.digest} if compressed else {BASE.diff_id, PLAIN.diff_id}
    assert entries(cache) == kept
    again = run(tmp_path / "2", src=path, cache_dir=str(cache))
    assert counts(again) == (len(kept), 0)
    assert contents(tmp_path / "2") == TREE
    # a plain layer of an OCI archive is the same blob
    other = write_oci_archive(tmp_path / "b", Image([PLAIN]))
    assert counts(run(tmp_path / "3", src=other, cache_dir=str(cache))) == (1, 0)


def test_compressed_as_a_whole(tmp_path: Path, cache: Path) -> None:
    path = write_oci_archive(tmp_path / "a", ONE, compression="gzip")
    run(tmp_path / "1", src=path, cache_dir=str(cache))
    again = run(tmp_path / "2", src=path, cache_dir=str(cache))
    assert counts(again) == (3, 0)
    # from the spool, which is only made now
    (cache / "sha256" / BASE.digest[7:]).unlink()
    assert counts(run(tmp_path / "3", src=path, cache_dir=str(cache))) == (2, 0)
    assert contents(tmp_path / "3") == {**TREE, "one": b"1"}


def test_inline_data_and_layers_that_come_twice(tmp_path: Path, cache: Path) -> None:
    inline = Layer(file("inline", "i"), inline=True)
    image = Image([BASE, inline, BASE])
    path = write_oci_archive(tmp_path / "a", image)
    first = run(tmp_path / "1", src=path, cache_dir=str(cache))
    assert counts(first) == (1, 0)
    assert entries(cache) == {BASE.digest}


def test_layers_in_another_order(tmp_path: Path, cache: Path) -> None:
    """Section 2: the work starts over, and is served by the cache."""
    image = Image([BASE, PLAIN], diff_ids=[PLAIN.diff_id, BASE.diff_id])
    path = write_oci_archive(tmp_path / "a", image)
    run(tmp_path / "1", src=path, cache_dir=str(cache))
    assert contents(tmp_path / "1") == TREE
    assert entries(cache) == digests(image)


def test_the_fingerprint_does_not_know_of_it(tmp_path: Path, cache: Path) -> None:
    path = write_oci_archive(tmp_path / "a", ONE)
    assert run(tmp_path / "1", src=path)["changed"]
    again = run(tmp_path / "1", src=path, cache_dir=str(cache), cache_max_size=5)
    assert not again["changed"]
    assert not cache.exists()


def test_check_mode_makes_no_cache(tmp_path: Path, cache: Path) -> None:
    path = write_oci_archive(tmp_path / "a", ONE)
    assert run(tmp_path / "1", True, src=path, cache_dir=str(cache))["changed"]
    assert os.listdir(tmp_path) == ["a"]


# -- what is damaged


@pytest.mark.parametrize("layer", [BASE, PLAIN])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_replaced_from_the_source(tmp_path: Path, cache: Path, damage: str, layer: Layer) -> None:
    """Found while it is used, counted, and not a trace of it in the tree."""
    path = write_oci_archive(tmp_path / "a", ONE)
    run(tmp_path / "1", src=path, cache_dir=str(cache))
    entry = cache / "sha256" / layer.digest[7:]
    entry.write_bytes(DAMAGES[damage](layer.data))
    again = run(tmp_path / "2", src=path, cache_dir=str(cache))
    assert counts(again) == (2, 1)
    assert again["warnings"] == []
    assert contents(tmp_path / "2") == {**TREE, "one": b"1"}
    assert entry.read_bytes() == layer.data
    assert counts(run(tmp_path / "3", src=path, cache_dir=str(cache))) == (3, 0)


def test_a_wrong_tar_in_the_cache_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    """A whole, valid layer under another one's name: its files are applied before that is known, and go again."""
    wrong = Layer(file("wrong", b"w" * 5_000), compression="none")
    assert wrong.size == PLAIN.size
    path = write_oci_archive(tmp_path / "a", ONE)
    run(tmp_path / "1", src=path, cache_dir=str(cache))
    (cache / "sha256" / PLAIN.digest[7:]).write_bytes(wrong.data)
    assert counts(run(tmp_path / "2", src=path, cache_dir=str(cache))) == (2, 1)
    assert contents(tmp_path / "2") == {**TREE, "one": b"1"}


def test_all_entries_damaged(tmp_path: Path, cache: Path) -> None:
    path = write_oci_archive(tmp_path / "a", ONE)
    run(tmp_path / "1", src=path, cache_dir=str(cache))
    for entry in (cache / "sha256").iterdir():
        entry.write_bytes(bytes(entry.stat().st_size))
    assert counts(run(tmp_path / "2", src=path, cache_dir=str(cache))) == (0, 3)
    assert entries(cache) == digests(ONE)


def test_a_damaged_entry_that_cannot_be_removed(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_oci_archive(tmp_path / "a", ONE)
    run(tmp_path / "1", src=path, cache_dir=str(cache))
    entry = cache / "sha256" / BASE.digest[7:]
    entry.write_bytes(bytes(BASE.size))
    unlink = os.unlink

    def fail(name: t.Any, **options: t.Any) -> None:
        if name == BASE.digest[7:]:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        unlink(name, **options)

    monkeypatch.setattr(os, "unlink", fail)
    assert counts(run(tmp_path / "2", src=path, cache_dir=str(cache))) == (2, 1)
    assert contents(tmp_path / "2") == {**TREE, "one": b"1"}


def test_a_damaged_source_puts_nothing_into_the_cache(tmp_path: Path, cache: Path) -> None:
    bad = Layer(file("bad", b"x" * 9_000), compression="none", edit_stored=flip(2_000))
    path = write_oci_archive(tmp_path / "a", Image([BASE, bad]))
    with pytest.raises(LayerError, match=bad.digest):
        run(tmp_path / "1", src=path, cache_dir=str(cache))
    assert entries(cache) == {BASE.digest}
    assert os.listdir(cache / "partial") == []
    # and where the cache is not at fault, the error is the image's
    wrong = Image([PLAIN], diff_ids=[BASE.diff_id])
    path = write_oci_archive(tmp_path / "b", wrong)
    for _again in range(2):
        with pytest.raises(OciError, match="diff_id"):
            run(tmp_path / "1", src=path, cache_dir=str(cache))


# -- the folder


def test_an_unsafe_folder_is_refused_before_anything(tmp_path: Path, cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o777)
    path = write_oci_archive(tmp_path / "a", ONE)
    for check in (True, False):
        with pytest.raises(RootfsError, match="cache_dir is refused"):
            run(tmp_path / "1", check, src=path, cache_dir=str(cache))
    assert sorted(os.listdir(tmp_path)) == ["a", "cache"]


@pytest.mark.parametrize("where", ["guests/1", "guests/1/cache", "guests", "guests/./2/../1"])
def test_cache_and_dest_are_not_in_each_other(tmp_path: Path, where: str) -> None:
    path = write_oci_archive(tmp_path / "a", ONE)
    (tmp_path / "guests" / "2").mkdir(parents=True)
    with pytest.raises(RootfsError, match="lie in each other"):
        run(tmp_path / "guests" / "1", src=path, cache_dir=str(tmp_path / where))
    assert os.listdir(tmp_path / "guests") == ["2"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cache_dir": "cache"}, "cache_dir is 'cache'; give the absolute path"),
        ({"cache_dir": "/../"}, "cache_dir is '/../'; give"),
        ({"cache_dir": "/x", "cache_max_size": 0}, "cache_max_size is 0"),
        ({"cache_dir": "/x", "cache_max_age": -1}, "cache_max_age is -1"),
    ],
)
def test_options_that_make_no_cache(tmp_path: Path, options: dict[str, t.Any], words: str) -> None:
    with pytest.raises(OciError, match=words):
        run(tmp_path / "1", src="/x", **options)


def test_pruned_after_a_run_that_unpacked(tmp_path: Path, cache: Path) -> None:
    path = write_oci_archive(tmp_path / "a", ONE)
    run(tmp_path / "1", src=path, cache_dir=str(cache))
    for entry in (cache / "sha256").iterdir():
        os.utime(entry, (1, 1))
    (cache / "sha256" / ("0" * 64)).write_bytes(b"old")
    os.utime(cache / "sha256" / ("0" * 64), (2, 2))
    # what was used now stays
    run(tmp_path / "2", src=path, cache_dir=str(cache))
    assert entries(cache) == digests(ONE)
    run(tmp_path / "3", src=path, cache_dir=str(cache), cache_max_size=PLAIN.size)
    assert sum(entry.stat().st_size for entry in (cache / "sha256").iterdir()) <= PLAIN.size


# -- full disks


@needs_root
def test_a_full_cache_is_a_warning(tmp_path: Path) -> None:
    """On a disk of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    noise = os.urandom(5_000_000)
    image = Image([PLAIN, Layer(file("noise", noise), compression="none")])
    path = write_oci_archive(tmp_path / "a", image)
    with mounted(disk):
        result = run(tmp_path / "1", src=path, cache_dir=str(disk / "cache"))
        assert "does not take blobs any more and was left alone" in result["warnings"][0]
        assert contents(tmp_path / "1")["noise"] == noise
        assert entries(disk / "cache") == {PLAIN.digest}
        assert os.listdir(disk / "cache" / "partial") == []


@needs_root
def test_a_disk_that_cache_and_dest_share(tmp_path: Path) -> None:
    """Where there is room for the tree or for the cache, it is the tree's: the cache is emptied."""
    disk = tmp_path / "disk"
    disk.mkdir()
    noise = [os.urandom(1_300_000) for _number in range(2)]
    layers = [Layer(file(f"noise{number}", data), compression="none") for number, data in enumerate(noise)]
    path = write_oci_archive(tmp_path / "a", Image(layers))
    with mounted(disk, "-t", "tmpfs", "-o", "size=3500k", "test"):
        result = run(disk / "guests" / "1", src=path, cache_dir=str(disk / "cache"))
        words = " ".join(result["warnings"])
        assert "was emptied, because the file system that it shares with dest was full" in words
        assert contents(disk / "guests" / "1") == {"noise0": noise[0], "noise1": noise[1]}
        assert entries(disk / "cache") == set()
        # what does not fit even so is an error, as ever
        with pytest.raises(OciError, match="room|free"):
            run(disk / "guests" / "2", src=path, cache_dir=str(disk / "cache"))
        assert contents(disk / "guests" / "1") == {"noise0": noise[0], "noise1": noise[1]}


@needs_root
@pytest.mark.parametrize("check", [True, False])
def test_what_earlier_images_left_makes_room(tmp_path: Path, check: bool) -> None:
    """Free space is compared as if the cache were empty, in check mode too; then it is emptied for the tree."""
    disk = tmp_path / "disk"
    disk.mkdir()
    noise = [os.urandom(1_800_000) for _number in range(2)]
    paths = [
        write_oci_archive(tmp_path / str(number), Image([Layer(file("noise", data), compression="none")]))
        for number, data in enumerate(noise)
    ]
    with mounted(disk, "-t", "tmpfs", "-o", "size=4600k", "test"):
        arguments: dict[str, t.Any] = {"cache_dir": str(disk / "cache")}
        run(disk / "guests" / "1", src=paths[0], **arguments)
        assert len(entries(disk / "cache")) == 1
        result = run(disk / "guests" / "2", check, src=paths[1], **arguments)
        assert result["changed"]
        assert len(entries(disk / "cache")) == (1 if check else 0)
        assert ("was emptied" in str(result["warnings"])) is not check
        if not check:
            assert contents(disk / "guests" / "2") == {"noise": noise[1]}


# -- two at once


def _provision(number: int, folder: str, rounds: int, results: t.Any) -> None:
    """Provision one image or the other again and again, beside another that does the same."""
    try:
        for turn in range(rounds):
            path = os.path.join(folder, "ab"[(number + turn) % 2])
            result = run(
                os.path.join(folder, "guests", str(number)),
                src=path,
                cache_dir=os.path.join(folder, "cache"),
                cache_max_size=BASE.size + 2_000,
                recreate=True,
            )
            if result["warnings"] or counts(result)[1]:
                raise OciError(str(result))
        results.put("")
    except OciError as error:
        results.put(error.message)


def test_two_runs_at_once(tmp_path: Path, cache: Path) -> None:
    """They share what each brings and prunes; neither fails, nor finds half a blob."""
    write_oci_archive(tmp_path / "a", ONE)
    write_oci_archive(tmp_path / "b", TWO)
    context = multiprocessing.get_context("fork")
    results: t.Any = context.Queue()
    runs = [context.Process(target=_provision, args=(number, str(tmp_path), 12, results)) for number in range(2)]
    for process in runs:
        process.start()
    found = [results.get(timeout=90) for _process in runs]
    for process in runs:
        process.join(90)
    assert found == ["", ""]
    for digest in entries(cache):
        data = (cache / "sha256" / digest[7:]).read_bytes()
        assert data in [layer.data for image in (ONE, TWO) for layer in image.layers]


# -- images that are sent


def test_what_the_cache_has_is_not_sent(tmp_path: Path, cache: Path) -> None:
    """Offered by a controller: only the rest is asked for, and a damaged blob with it."""
    run(tmp_path / "1", src=write_oci_archive(tmp_path / "a", ONE), cache_dir=str(cache))
    path = write_oci_archive(tmp_path / "b", TWO)
    with contextlib.closing(open_source(path)) as source:
        (tmp_path / "offer").write_bytes(pack(make_offer(source, Criteria())))
    arguments: dict[str, t.Any] = {"src": path, "_offer": str(tmp_path / "offer"), "cache_dir": str(cache)}
    entry = cache / "sha256" / BASE.digest[7:]
    entry.write_bytes(bytes(BASE.size))
    request = run(tmp_path / "2", **arguments)["upload_request"]
    sent = [BASE, TWO.layers[2]]
    assert [blob["name"] for blob in request["blobs"]] == [layer.path for layer in sent]
    for layer in sent:
        Path(request["folder"], upload_name(layer.path)).write_bytes(layer.data)
    result = run(tmp_path / "2", _upload_folder=request["folder"], **arguments)
    assert result["changed"]
    assert counts(result) == (1, 1)
    assert contents(tmp_path / "2") == {**TREE, "two": b"2"}
    assert entries(cache) == digests(ONE, TWO)
    # and then nothing is sent at all
    result = run(tmp_path / "3", **arguments)
    assert "upload_request" not in result
    assert counts(result) == (3, 0)


def test_a_cache_that_is_lost_between_offer_and_use(tmp_path: Path, cache: Path) -> None:
    """Another run may prune it: then the rest is asked for after all."""
    run(tmp_path / "1", src=write_oci_archive(tmp_path / "a", ONE), cache_dir=str(cache))
    path = write_oci_archive(tmp_path / "b", TWO)
    with contextlib.closing(open_source(path)) as source:
        (tmp_path / "offer").write_bytes(pack(make_offer(source, Criteria())))
    arguments: dict[str, t.Any] = {"src": path, "_offer": str(tmp_path / "offer"), "cache_dir": str(cache)}
    request = run(tmp_path / "2", **arguments)["upload_request"]
    last = TWO.layers[2]
    assert [blob["name"] for blob in request["blobs"]] == [last.path]
    Path(request["folder"], upload_name(last.path)).write_bytes(last.data)
    (cache / "sha256" / BASE.digest[7:]).unlink()
    request = run(tmp_path / "2", _upload_folder=request["folder"], **arguments)["upload_request"]
    assert [blob["name"] for blob in request["blobs"]] == [BASE.path]
    Path(request["folder"], upload_name(BASE.path)).write_bytes(BASE.data)
    assert run(tmp_path / "2", _upload_folder=request["folder"], **arguments)["changed"]
    assert contents(tmp_path / "2") == {**TREE, "two": b"2"}


def test_blobs_are_kept_as_soon_as_they_are_verified(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run that is cut off had already is not fetched again."""
    path = write_oci_archive(tmp_path / "a", ONE)
    commit = _cache.BlobWriter.commit
    seen: list[int] = []

    def cut(writer: _cache.BlobWriter) -> bool:
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return commit(writer)

    monkeypatch.setattr(_cache.BlobWriter, "commit", cut)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "1", src=path, cache_dir=str(cache))
    assert entries(cache) == {BASE.digest, PLAIN.digest}
    assert os.listdir(cache / "partial") == []


# -- who may have what


SECRET = Layer(file("key", b"-----BEGIN PRIVATE KEY-----" * 400), compression="none")
THEIRS = Image([SECRET])


def _only_named(path: Path) -> str:
    """An archive that names another's layer by its digest, and has zeros for it."""
    zeros = Layer(
        file("key", b"-----BEGIN PRIVATE KEY-----" * 400), compression="none", edit_stored=lambda data: bytes(len(data))
    )
    assert zeros.digest == SECRET.digest
    return write_oci_archive(path, Image([zeros]))


def _offered(path: str, offer: Path) -> dict[str, t.Any]:
    with contextlib.closing(open_source(path)) as source:
        offer.write_bytes(pack(make_offer(source, Criteria())))
    return {"src": path, "_offer": str(offer)}


@pytest.mark.parametrize("scope", ["", "mine"])
def test_a_digest_gives_nobody_anothers_layer(tmp_path: Path, cache: Path, scope: str) -> None:
    """Section 7: a blob of the cache is only for a source that has brought it once."""
    theirs = write_oci_archive(tmp_path / "theirs", THEIRS)
    run_alone(tmp_path / "1", src=theirs, cache_dir=str(cache))
    mine = _only_named(tmp_path / "mine")
    options: dict[str, t.Any] = {"cache_dir": str(cache), "cache_scope": scope}
    for _again in range(2):
        with pytest.raises(LayerError, match=SECRET.digest):
            run_alone(tmp_path / "2", src=mine, **options)
        assert not (tmp_path / "2").exists()
    # and who has it gets it, without a second copy
    again = run_alone(tmp_path / "3", src=theirs, cache_dir=str(cache))
    assert counts(again) == (1, 0)
    assert entries(cache) == {SECRET.digest}


def test_nor_does_it_where_the_controller_offers(tmp_path: Path, cache: Path) -> None:
    """The node asks for the blob: its digest in an offer is no proof."""
    theirs = write_oci_archive(tmp_path / "theirs", THEIRS)
    run_alone(tmp_path / "1", src=theirs, cache_dir=str(cache))
    mine = _offered(_only_named(tmp_path / "mine"), tmp_path / "offer")
    for check in (True, False):
        result = run_alone(tmp_path / "2", check, cache_dir=str(cache), **mine)
        if not check:
            assert [blob["name"] for blob in result["upload_request"]["blobs"]] == [SECRET.path]
    assert not (tmp_path / "2").exists()


def test_what_two_sources_have_is_kept_once(tmp_path: Path, cache: Path) -> None:
    """Each shows that it has it; then both are served, and the blob is not written again."""
    one = write_oci_archive(tmp_path / "a", ONE)
    two = write_oci_archive(tmp_path / "b", TWO)
    run_alone(tmp_path / "1", src=one, cache_dir=str(cache))
    before = (cache / "sha256" / BASE.digest[7:]).stat()
    result = run_alone(tmp_path / "2", src=two, cache_dir=str(cache))
    assert counts(result) == (0, 0)
    assert entries(cache) == digests(ONE, TWO)
    for number, src in enumerate((one, two), 3):
        result = run_alone(tmp_path / str(number), src=src, cache_dir=str(cache))
        assert counts(result) == (3, 0)
    assert (cache / "sha256" / BASE.digest[7:]).stat().st_ino == before.st_ino


def test_a_damaged_source_proves_nothing(tmp_path: Path, cache: Path) -> None:
    """A run that fails in the blob has not brought it, whatever it has read."""
    theirs = write_oci_archive(tmp_path / "theirs", THEIRS)
    run_alone(tmp_path / "1", src=theirs, cache_dir=str(cache))
    proofs = os.listdir(cache / "proofs")
    with pytest.raises(LayerError):
        src = _only_named(tmp_path / "mine")
        run_alone(tmp_path / "2", src=src, cache_dir=str(cache))
    assert os.listdir(cache / "proofs") == proofs
