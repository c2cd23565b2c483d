# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's half of a transfer: what it asks for, where that goes, and what an unfinished one leaves.

docs/behaviour.md, sections 7 and 8.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import stat
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import (
    ImageError,
    LayerError,
    MissingLibraryError,
    RootfsError,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._interrupt import InterruptedRunError
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import provision, unpacking
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import uploads
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import dest_path
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sent import upload_name, bundle_head, bundle_name
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.plugins.plugin_utils._offer import make_offer, pack
from ansible_collections.hypervisor.oci.plugins.plugin_utils._criteria import Criteria
from ansible_collections.hypervisor.oci.plugins.module_utils._source import unzstd
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Index,
    Layer,
    char,
    file,
    flip,
    write_docker_archive,
    write_layout,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.support import (
    contents,
    loop_mounted,
    mounted,
    names,
    needs_root,
    run,
    without_waiting,
)

SHARED = Layer(file("shared", "s" * 5000))
ONE = Image([SHARED, Layer(file("one", "1" * 3000)), Layer(file("last", "l"))])
TWO = Image([SHARED, Layer(file("two", "2"))])
ARM = Image([Layer(file("arm", "a"))], platform="linux/arm64")
USER = 54321


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)
    # nothing that a test sends a moment ago passes for somebody else's
    monkeypatch.setattr(uploads, "QUIET", -1.0)


@pytest.fixture(name="dest")
def fixture_dest(tmp_path: Path) -> Path:
    """Where it goes; the folder above is there."""
    (tmp_path / "guests").mkdir(0o700)
    return tmp_path / "guests" / "web"


class Controller:
    """An archive on a controller, and the steps of the action plugin."""

    def __init__(self, folder: Path, path: str, criteria: Criteria | None = None) -> None:
        self.path = path
        with contextlib.closing(open_source(path)) as source:
            self.offer = folder / f"offer {os.urandom(4).hex()}"
            self.offer.write_bytes(pack(make_offer(source, criteria or Criteria())))

    def run(self, dest: Path, check_mode: bool = False, **options: t.Any) -> dict[str, t.Any]:
        """The module with the offer."""
        return run(dest, check_mode, src=self.path, _offer=str(self.offer), **options)

    def request(self, dest: Path, **options: t.Any) -> tuple[str, list[str]]:
        """The folder and the names that the module answers with."""
        request = self.run(dest, **options)["upload_request"]
        return request["folder"], [blob["name"] for blob in request["blobs"]]

    def send(self, upload_path: str, wanted: list[str]) -> None:
        """Each blob, into the folder."""
        with contextlib.closing(open_source(self.path)) as source:
            for name in wanted:
                with contextlib.closing(source.open(name)) as reader:
                    Path(upload_path, upload_name(name)).write_bytes(reader.read())

    def pack(self, upload_path: str, wanted: list[str]) -> Path:
        """All blobs as one bundle; returns its path."""
        blobs = {}
        with contextlib.closing(open_source(self.path)) as source:
            for name in wanted:
                with contextlib.closing(source.open(name)) as reader:
                    blobs[name] = reader.read()
        sizes = {name: len(data) for name, data in blobs.items()}
        path = Path(upload_path, bundle_name(wanted))
        path.write_bytes(bundle_head(sizes) + b"".join(blobs.values()))
        return path

    def provision(self, dest: Path, **options: t.Any) -> dict[str, t.Any]:
        """All steps."""
        upload_path, wanted = self.request(dest, **options)
        self.send(upload_path, wanted)
        return self.run(dest, _upload_folder=upload_path, **options)


@pytest.fixture(name="one")
def fixture_one(tmp_path: Path) -> Controller:
    """An archive of two platforms."""
    return Controller(tmp_path, write_oci_archive(tmp_path / "1.tar", Index(ONE, ARM)))


@pytest.fixture(name="two")
def fixture_two(tmp_path: Path) -> Controller:
    """Another image, which shares a layer with the first."""
    return Controller(tmp_path, write_oci_archive(tmp_path / "2.tar", TWO))


def paths(image: Image) -> list[str]:
    """The names of the image's layers."""
    return [layer.path for layer in image.layers]


def around(dest: Path) -> list[str]:
    """What lies beside dest, without the tree itself and the journal of its making."""
    return [name for name in names(dest.parent) if not f"{name}/".startswith("web/") and not name.endswith(".journal")]


@needs_root
def test_contents_are_compared_with_what_is_sent(dest: Path, one: Controller) -> None:
    """Section 17: the controller sends what the cache lacks, but nothing in check mode, which is never clean."""
    one.provision(dest)
    result = one.run(dest, verify="metadata")
    assert result["drift"]["verdict"] == "clean"
    result = one.run(dest, True, verify="content")
    assert result["drift"]["verdict"] == "not verifiable"
    assert "sends nothing in check mode" in result["drift"]["reason"]
    assert around(dest) == [".web.oci_rootfs", ".web.oci_rootfs/record.json"]
    result = one.provision(dest, verify="content")
    assert (result["changed"], result["drift"]["verdict"]) == (False, "clean")
    assert around(dest) == [".web.oci_rootfs", ".web.oci_rootfs/record.json"]
    (dest / "one").unlink()
    predicted = one.run(dest, True, verify="metadata", repair="paths")
    assert (predicted["changed"], predicted["drift"]["reason"]) == (True, None)
    assert one.provision(dest, verify="metadata", repair="paths")["changed"] is True
    assert one.run(dest, verify="metadata")["drift"]["verdict"] == "clean"
    (dest / "one").unlink()
    assert one.provision(dest, verify="content", repair="recreate")["changed"] is True
    assert contents(dest) == {"shared": b"s" * 5000, "one": b"1" * 3000, "last": b"l"}


@needs_root
def test_contents_are_compared_from_the_cache(tmp_path: Path, dest: Path, one: Controller) -> None:
    """Also in check mode; a damaged blob is not believed."""
    cache = tmp_path / "cache"
    one.provision(dest, cache_dir=str(cache))
    for check_mode in (True, False):
        assert one.run(dest, check_mode, verify="content", cache_dir=str(cache))["drift"]["verdict"] == "clean"
    for blob in [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size > 100]:
        blob.write_bytes(b"x" * blob.stat().st_size)
    result = one.run(dest, True, verify="content", cache_dir=str(cache))
    assert result["drift"]["verdict"] == "not verifiable"
    assert one.provision(dest, verify="content", cache_dir=str(cache))["drift"]["verdict"] == "clean"


# -- offer, request, send


@needs_root
def test_layers_that_are_shared_are_not_sent(
    tmp_path: Path, one: Controller, two: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Section 16: what the store has, no controller sends."""
    point = tmp_path / "btrfs"
    point.mkdir(0o700)
    with loop_mounted(point, tmp_path / "disk", "btrfs"):
        (point / "guests").mkdir(0o700)
        store: dict[str, t.Any] = {"store_dir": str(point / "store")}
        one.provision(point / "guests/a", **store)
        folder, wanted = two.request(point / "guests/b", **store)
        assert wanted == paths(TWO)[1:]
        two.send(folder, wanted)
        assert two.run(point / "guests/b", _upload_folder=folder, **store)["changed"] is True
        assert contents(point / "guests/b") == {"shared": b"s" * 5000, "two": b"2"}
        # all of it is there: nothing is asked for at all
        assert "upload_request" not in one.run(point / "guests/c", **store)
        assert contents(point / "guests/c") == contents(point / "guests/a")
    del monkeypatch


def test_a_node_asks_for_its_own_platforms_blobs(dest: Path, one: Controller) -> None:
    """A mixed fleet is served from one archive, each node its part."""
    request = one.run(dest)
    assert request["changed"] is False
    assert request["upload_request"]["blobs"] == [{"name": layer.path, "size": len(layer.data)} for layer in ONE.layers]  # fmt: skip
    assert one.request(dest, platform="linux/arm64")[1] == paths(ARM)
    assert not dest.exists()


def test_the_folder_is_the_senders_alone(dest: Path, one: Controller) -> None:
    path, _names = one.request(dest)
    status = os.stat(path)
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert status.st_uid == os.geteuid()
    assert os.path.dirname(path) == str(dest.parent / ".web.oci_rootfs")
    assert os.listdir(path) == []


def test_what_was_sent_becomes_the_tree_and_goes(dest: Path, one: Controller) -> None:
    result = one.provision(dest)
    assert result["changed"] is True
    assert contents(dest) == {"shared": b"s" * 5000, "one": b"1" * 3000, "last": b"l"}
    assert around(dest) == [".web.oci_rootfs", ".web.oci_rootfs/record.json"]
    local = run(dest.parent / "other", src=one.path)
    for key in ("manifest_digest", "layers", "image", "report", "platform", "ref"):
        assert result[key] == local[key]


@pytest.mark.parametrize("which", ["index", "manifest", "config"])
def test_a_pin_holds_whatever_was_offered(tmp_path: Path, dest: Path, which: str) -> None:
    """An index is held against its digest by the controller, and is not offered; a node looks at what it has."""
    index = Index(ONE, ARM)
    digests = {"index": index.digest, "manifest": ONE.digest, "config": ONE.config.digest}  # fmt: skip
    path = write_oci_archive(tmp_path / "i.tar", index, TWO)
    pinned = Controller(tmp_path, path, Criteria(digest=digests[which]))
    result = pinned.provision(dest, digest=digests[which])
    local = run(dest.parent / "other", src=path, digest=digests[which])
    for key in ("manifest_digest", "layers", "image", "report", "platform", "ref"):
        assert result[key] == local[key]
    # nothing changed, nothing asked for, with the other offer either
    assert not pinned.run(dest, digest=digests[which])["changed"]
    for digest in (TWO.digest, "sha256:" + "0" * 64):
        with pytest.raises(ImageError, match=f"with the digest {digest}"):
            pinned.run(dest, digest=digest)


def test_an_up_to_date_node_asks_for_nothing(dest: Path, one: Controller) -> None:
    first = one.provision(dest)
    again = one.run(dest)
    assert again["changed"] is False
    assert {**again, "changed": True, "diff": None} == {**first, "diff": None}


def test_check_mode_asks_for_nothing_and_predicts(dest: Path, one: Controller) -> None:
    before = names(dest.parent)
    predicted = run(dest, True, src=one.path, _offer=str(one.offer))
    assert predicted["changed"] is True
    assert predicted["report"] is None
    assert names(dest.parent) == before
    one.provision(dest)
    assert not run(dest, True, src=one.path, _offer=str(one.offer))["changed"]


@pytest.mark.parametrize("state", ["present", "staged"])
def test_what_is_staged_is_not_sent_again(dest: Path, one: Controller, state: str) -> None:
    assert one.provision(dest, state="staged")["changed"] is True
    assert not dest.exists()
    assert one.run(dest, state=state)["changed"] is (state == "present")


def test_a_tree_that_is_made_anew_needs_its_blobs(dest: Path, one: Controller) -> None:
    one.provision(dest)
    assert one.provision(dest, recreate=True)["changed"] is True


@pytest.mark.parametrize("form", ["compressed", "layout", "docker", "old docker"])
def test_every_form_of_source(tmp_path: Path, dest: Path, form: str) -> None:
    if form == "compressed":
        path = write_oci_archive(tmp_path / "i.tgz", ONE, compression="gzip")
    elif form == "layout":
        path = write_layout(tmp_path / "layout", ONE)
    else:
        style: t.Literal["old", "new"] = "old" if form == "old docker" else "new"
        path = write_docker_archive(tmp_path / "d.tar", ONE, style=style, links="symlink")  # fmt: skip
    controller = Controller(tmp_path, path)
    upload_path, wanted = controller.request(dest)
    assert len(wanted) == 3
    if form == "compressed":
        controller.path = write_oci_archive(tmp_path / "i.tar", ONE)
    controller.send(upload_path, wanted)
    assert controller.run(dest, _upload_folder=upload_path)["changed"] is True
    assert sorted(contents(dest)) == ["last", "one", "shared"]
    assert controller.run(dest)["changed"] is False


def test_inline_layers_and_equal_ones_are_not_sent_twice(tmp_path: Path, dest: Path) -> None:
    inline = Layer(file("inline"), inline=True)
    image = Image([SHARED, inline, SHARED])
    controller = Controller(tmp_path, write_oci_archive(tmp_path / "i.tar", image))
    upload_path, wanted = controller.request(dest)
    assert wanted == [SHARED.path]
    controller.send(upload_path, wanted)
    assert controller.run(dest, _upload_folder=upload_path)["changed"] is True


def test_a_users_mistake_is_told_before_anything_is_sent(dest: Path, one: Controller) -> None:
    dest.mkdir()
    (dest / "foreign").write_text("")
    with pytest.raises(RootfsError, match="set force: true"):
        one.run(dest)
    with pytest.raises(ImageError, match="holds no image"):
        one.run(dest, ref="other")
    assert around(dest) == []


def test_no_room_is_told_before_anything_is_sent(dest: Path, one: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent and the tree lie there at once."""
    size = sum(len(layer.data) for layer in ONE.layers)
    free = os.statvfs_result([1, 1, 9, size, size, 1, 1, 1, 0, 255])
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: free)
    with pytest.raises(RootfsError, match=f"at least .* bytes, .* has {size} free"):
        one.run(dest)
    assert names(dest.parent) == []


@pytest.mark.parametrize("compression", ["zstd", "xz"])
def test_a_missing_library_is_told_before_anything_is_sent(
    tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch, compression: t.Any
) -> None:
    """Nor does check mode predict what cannot be (section 8)."""
    image = Image([Layer(file("a", "a"), compression="gzip"), Layer(file("b", "b"), compression=compression)])
    controller = Controller(tmp_path, str(write_oci_archive(tmp_path / "image.tar", image)))
    real = importlib.import_module

    def hide(name: str, *more: t.Any) -> t.Any:
        if name in ("compression.zstd", "zstandard", "lzma"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *more)

    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", hide)
        patch.setattr(unzstd, "zstd_program", lambda: None)
        for check_mode in (True, False):
            with pytest.raises(MissingLibraryError, match="lzma|zstandard"):
                controller.run(dest, check_mode=check_mode)
            assert around(dest) == []
    assert controller.run(dest, check_mode=True)["changed"]
    assert controller.request(dest)[1] == paths(image)


# -- what is sent is not believed


@pytest.mark.parametrize("how", ["short", "missing", "link", "fifo", "second name"])
def test_what_did_not_arrive_is_asked_for_again(tmp_path: Path, dest: Path, one: Controller, how: str) -> None:
    """In the same folder."""
    upload_path, wanted = one.request(dest)
    one.send(upload_path, wanted)
    path = Path(upload_path, upload_name(wanted[1]))
    content = path.read_bytes()
    path.unlink()
    if how == "short":
        path.write_bytes(content[:-1])
    elif how == "fifo":
        os.mkfifo(path)
    elif how != "missing":
        (tmp_path / "secret").write_bytes(content)
        make = os.symlink if how == "link" else os.link
        make(tmp_path / "secret", path)
    assert one.request(dest, _upload_folder=upload_path) == (upload_path, [wanted[1]])
    if how != "missing":
        path.unlink()
    one.send(upload_path, [wanted[1]])
    assert one.run(dest, _upload_folder=upload_path)["changed"] is True


def test_other_bytes_are_an_error_and_nothing_stays(dest: Path, one: Controller) -> None:
    upload_path, wanted = one.request(dest)
    one.send(upload_path, wanted)
    path = Path(upload_path, upload_name(wanted[1]))
    path.write_bytes(flip(40)(path.read_bytes()))
    with pytest.raises(LayerError, match=ONE.layers[1].digest):
        one.run(dest, _upload_folder=upload_path)
    assert names(dest.parent) == []


def test_a_blob_that_changes_behind_the_check_is_an_error(
    dest: Path, one: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends may write there at any time; what is read is what is hashed."""
    upload_path, wanted = one.request(dest)
    one.send(upload_path, wanted)
    real = unpacking.unpack

    def unpack(*arguments: t.Any) -> t.Any:
        path = Path(upload_path, upload_name(wanted[2]))
        path.unlink()
        path.symlink_to("/etc/passwd")
        return real(*arguments)

    monkeypatch.setattr(unpacking, "unpack", unpack)
    with pytest.raises(Exception, match="did not arrive completely on the node"):
        one.run(dest, _upload_folder=upload_path)
    assert names(dest.parent) == []


def test_a_full_disk_is_freed_of_what_was_sent(dest: Path, one: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    upload_path, wanted = one.request(dest)
    one.send(upload_path, wanted)

    def full(*_arguments: t.Any) -> t.NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(unpacking, "unpack", full)
    with pytest.raises(RootfsError, match="no room left"):
        one.run(dest, _upload_folder=upload_path)
    assert names(dest.parent) == []


def test_a_bundle_is_as_good_as_its_blobs(tmp_path: Path, dest: Path, one: Controller) -> None:
    upload_path, wanted = one.request(dest)
    one.pack(upload_path, wanted)
    assert one.run(dest, _upload_folder=upload_path)["changed"] is True
    assert around(dest) == [".web.oci_rootfs", ".web.oci_rootfs/record.json"]
    other = tmp_path / "guests" / "other"
    one.provision(other)
    assert contents(other) == contents(dest)


def test_a_damaged_bundle_is_an_error(dest: Path, one: Controller) -> None:
    upload_path, wanted = one.request(dest)
    path = one.pack(upload_path, wanted)
    path.write_bytes(flip(-40)(path.read_bytes()))
    with pytest.raises(LayerError, match=ONE.layers[2].digest):
        one.run(dest, _upload_folder=upload_path)
    assert names(dest.parent) == []


# -- unfinished transfers


def test_a_bundle_that_is_cut_off_gives_what_is_whole(dest: Path, one: Controller) -> None:
    """It moves as it is, and the rest is asked for; a blob of its own goes before what is cut off."""
    upload_path, wanted = one.request(dest)
    path = one.pack(upload_path, wanted)
    path.write_bytes(path.read_bytes()[:-1])
    again, missing = one.request(dest)
    assert missing == wanted[2:]
    assert os.listdir(again) == [path.name]
    one.send(again, missing)
    assert one.run(dest, _upload_folder=again)["changed"] is True
    assert around(dest) == [".web.oci_rootfs", ".web.oci_rootfs/record.json"]


@pytest.mark.parametrize("alone", [True, False])
def test_a_bundle_with_a_damaged_blob_stays_behind(dest: Path, one: Controller, alone: bool) -> None:
    """Else it would be read again instead of the one that is sent for it."""
    upload_path, wanted = one.request(dest)
    path = one.pack(upload_path, wanted)
    path.write_bytes(flip(-40)(path.read_bytes()))
    again, missing = one.request(dest)
    assert missing == wanted
    assert os.listdir(again) == []
    if alone:
        one.send(again, missing)
    else:
        one.pack(again, missing)
    assert one.run(dest, _upload_folder=again)["changed"] is True


def test_the_next_run_asks_for_what_did_not_come(dest: Path, one: Controller) -> None:
    """Interrupted runs resume at the blob; the folder is another one, so that no late writer can disturb."""
    upload_path, wanted = one.request(dest)
    one.send(upload_path, wanted[:2])
    partial = Path(upload_path, upload_name(wanted[2]))
    partial.write_bytes(ONE.layers[2].data[:9])
    again, missing = one.request(dest)
    assert missing == wanted[2:]
    assert again != upload_path
    assert not os.path.exists(upload_path)
    assert sorted(os.listdir(again)) == sorted(map(upload_name, wanted[:2]))
    one.send(again, missing)
    assert one.run(dest, _upload_folder=again)["changed"] is True
    assert around(dest) == [".web.oci_rootfs", ".web.oci_rootfs/record.json"]


def test_blobs_that_stay_are_verified_before_they_count(dest: Path, one: Controller) -> None:
    upload_path, wanted = one.request(dest)
    one.send(upload_path, wanted)
    path = Path(upload_path, upload_name(wanted[0]))
    path.write_bytes(flip(40)(path.read_bytes()))
    assert one.request(dest)[1] == wanted[:1]


def test_a_transfer_that_was_complete_is_used_at_once(dest: Path, one: Controller) -> None:
    one.send(*one.request(dest))
    assert one.run(dest)["changed"] is True
    assert around(dest) == [".web.oci_rootfs", ".web.oci_rootfs/record.json"]


def test_a_run_that_is_ended_keeps_what_was_sent(dest: Path, one: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    upload_path, wanted = one.request(dest)
    one.send(upload_path, wanted)

    def ended(*_arguments: t.Any) -> t.NoReturn:
        raise InterruptedRunError("SIGTERM")

    with monkeypatch.context() as patch:
        patch.setattr(unpacking, "unpack", ended)
        with pytest.raises(InterruptedRunError):
            one.run(dest, _upload_folder=upload_path)
    assert one.run(dest)["changed"] is True


def test_old_docker_layers_are_verified_by_what_they_hold(tmp_path: Path, dest: Path) -> None:
    """The name says nothing there. A blob that is compressed has no digest, and is sent again."""
    for compressed in (False, True):
        path = write_docker_archive(tmp_path / "d.tar", ONE, style="old", compressed=compressed)  # fmt: skip
        controller = Controller(tmp_path, path)
        upload_path, wanted = controller.request(dest)
        controller.send(upload_path, wanted)
        bad = Path(upload_path, upload_name(wanted[1]))
        bad.write_bytes(flip(40)(bad.read_bytes()))
        again, missing = controller.request(dest)
        assert missing == (wanted if compressed else wanted[1:2])
        controller.send(again, missing)
        assert controller.run(dest, _upload_folder=again)["changed"] is True
        run(dest, state="absent")


def test_another_image_removes_what_was_sent(dest: Path, one: Controller, two: Controller) -> None:
    upload_path, wanted = one.request(dest)
    one.send(upload_path, wanted)
    other, missing = two.request(dest)
    assert missing == paths(TWO)
    assert not os.path.exists(upload_path)
    assert os.listdir(other) == []


def test_a_digest_resumes_nobody_elses_transfer(tmp_path: Path, dest: Path, one: Controller) -> None:
    """Another source with the same documents has to bring each blob itself; sources of one scope share them."""
    other = Controller(tmp_path, write_oci_archive(tmp_path / "other.tar", Index(ONE, ARM)))
    upload_path, wanted = one.request(dest)
    one.send(upload_path, wanted)
    again, missing = other.request(dest)
    assert missing == wanted
    assert os.listdir(again) == []
    other.send(*other.request(dest, cache_scope="web"))
    assert one.run(dest, cache_scope="web")["changed"] is True


def test_a_run_with_a_source_of_its_own_removes_what_was_sent(dest: Path, one: Controller, two: Controller) -> None:
    for source in (one, two):
        upload_path, wanted = source.request(dest)
        source.send(upload_path, wanted[:1])
        assert run(dest, src=one.path)["changed"] is (source is one)
        assert around(dest) == [".web.oci_rootfs", ".web.oci_rootfs/record.json"]


def test_absent_removes_what_was_sent(dest: Path, one: Controller) -> None:
    upload_path, wanted = one.request(dest)
    one.send(upload_path, wanted[:1])
    assert run(dest, True, state="absent")["changed"] is True
    assert os.path.exists(upload_path)
    assert run(dest, state="absent")["changed"] is True
    assert names(dest.parent) == []
    assert run(dest, state="absent")["changed"] is False


def test_previous_leaves_what_was_sent(tmp_path: Path, dest: Path, one: Controller, two: Controller) -> None:
    one.provision(dest)
    two.provision(dest)
    three = Controller(tmp_path, write_oci_archive(tmp_path / "3.tar", Image([Layer(file("3"))])))  # fmt: skip
    three.send(*three.request(dest))
    assert run(dest, state="previous")["changed"] is True
    assert three.run(dest)["changed"] is True


@pytest.mark.parametrize("how", ["absent", "bad blob", "in a second try"])
def test_directories_above_go_where_nothing_comes_of_it(tmp_path: Path, one: Controller, how: str) -> None:
    """The run that asks makes them, and another one has to remove them."""
    dest = tmp_path / "a" / "b" / "web"
    upload_path, wanted = one.request(dest)
    if how == "in a second try":
        upload_path, wanted = one.request(dest)
    one.send(upload_path, wanted)
    if how == "absent":
        run(dest, state="absent")
    else:
        path = Path(upload_path, upload_name(wanted[1]))
        path.write_bytes(flip(40)(path.read_bytes()))
        with pytest.raises(LayerError):
            one.run(dest, _upload_folder=upload_path)
    assert not (tmp_path / "a").exists()
    one.provision(dest)
    assert sorted(os.listdir(tmp_path / "a" / "b")) == [".web.oci_rootfs", "web"]


# -- two runs at once


def test_a_second_run_waits_while_another_sends(
    dest: Path, one: Controller, two: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the image: as where another run holds the lock."""
    monkeypatch.setattr(provision, "_POLL_SECONDS", 0.01)
    upload_path, wanted = one.request(dest)
    monkeypatch.setattr(uploads, "QUIET", 15.0)
    one.send(upload_path, wanted[:1])
    for second in (one, two):
        with pytest.raises(RootfsError, match="another run sends an image .* after 0 seconds"):  # fmt: skip
            second.run(dest, lock_timeout=0)
    one.send(upload_path, wanted[1:])
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            assert one.run(dest, _upload_folder=upload_path)["changed"] is True

    monkeypatch.setattr(time, "sleep", sleep)
    assert one.run(dest)["changed"] is False
    assert len(slept) == 3


def test_a_run_that_changes_nothing_does_not_wait_nor_disturb(
    dest: Path, one: Controller, two: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.provision(dest)
    upload_path, wanted = one.request(dest)
    monkeypatch.setattr(uploads, "QUIET", 15.0)
    assert two.run(dest, lock_timeout=0)["changed"] is False
    one.send(upload_path, wanted)
    assert one.run(dest, _upload_folder=upload_path)["changed"] is True


def test_a_run_whose_folder_was_taken_over_begins_again(dest: Path, one: Controller) -> None:
    upload_path, wanted = one.request(dest)
    one.send(upload_path, wanted[:1])
    other, missing = one.request(dest)
    again, rest = one.request(dest, _upload_folder=upload_path)
    assert rest == missing == wanted[1:]
    assert again not in (other, upload_path)
    assert not os.path.exists(other)


# -- whose folder, and where


@needs_root
class TestOtherUser:
    """Ansible transfers as the user who logs in, and the module runs as root."""

    @pytest.fixture(name="offered")
    def fixture_offered(self, one: Controller) -> Controller:
        """An offer that a user has sent."""
        os.chown(one.offer, USER, USER + 1)
        return one

    def test_he_can_write_to_it_and_nobody_else(self, tmp_path: Path, offered: Controller) -> None:
        """The private folder is closed to him, and so is what lies above: the nearest that is not."""
        with passable(tmp_path) as top:
            (top / "closed").mkdir(0o700)
            dest = top / "closed" / "deep" / "web"
            upload_path, wanted = offered.request(dest)
            assert os.path.dirname(upload_path) == str(top)
            status = os.stat(upload_path)
            assert (status.st_uid, status.st_gid) == (USER, USER + 1)
            assert stat.S_IMODE(status.st_mode) == 0o700
            as_user(lambda: offered.send(upload_path, wanted))
            assert offered.run(dest, _upload_folder=upload_path)["changed"] is True
            assert sorted(os.listdir(top)) == ["closed"]
            assert sorted(os.listdir(top / "closed" / "deep")) == [".web.oci_rootfs", "web"]  # fmt: skip

    def test_he_puts_another_folder_in_its_place(self, tmp_path: Path, offered: Controller) -> None:
        """In a directory of his own, where he may rename what is root's: nothing of it is touched."""
        with passable(tmp_path) as top:
            home = top / "home"
            home.mkdir()
            os.chown(home, USER, USER)
            dest = home / "guests" / "web"
            (home / "guests").mkdir(0o700)
            upload_path, _wanted = offered.request(dest)
            assert os.path.dirname(upload_path) == str(home)
            roots = home / "roots"
            roots.mkdir(0o755)
            (roots / "precious").write_text("")
            os.rename(upload_path, home / "away")
            os.rename(roots, upload_path)
            assert run(dest, state="absent")["changed"] is True
            assert (Path(upload_path) / "precious").exists()
            assert list(home.glob(".oci_rootfs-*")) == [Path(upload_path)]

    def test_no_folder_can_be_had_for_him(self, tmp_path: Path, offered: Controller) -> None:
        """His own temporary folder must do; what is there is not the module's to remove."""
        with passable(tmp_path) as top, mounted(top):
            os.chmod(top, 0o700)
            dest = top / "guests" / "web"
            request = offered.run(dest)["upload_request"]
            assert request["folder"] is None
            assert os.listdir(top) == []
            remote_tmp = tmp_path / "remote"
            remote_tmp.mkdir()
            wanted = [blob["name"] for blob in request["blobs"]]
            offered.send(str(remote_tmp), wanted[:2])
            again = offered.run(dest, _upload_folder=str(remote_tmp))["upload_request"]
            assert (again["folder"], len(again["blobs"])) == (None, 3)
            offered.send(str(remote_tmp), wanted)
            assert offered.run(dest, _upload_folder=str(remote_tmp))["changed"] is True
            assert len(os.listdir(remote_tmp)) == 3
            assert sorted(os.listdir(top / "guests")) == [".web.oci_rootfs", "web"]


@needs_root
class TestMountPoint:
    """dest is a mount point: the folder lies in it, since nothing else is on its file system."""

    @pytest.fixture(name="dest")
    def fixture_mounted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Path]:
        """A dest with a file system of its own."""
        states = tmp_path / "states"

        def state_parent(self: dest_path.DestPath) -> str:
            return os.fspath(states) if self.is_mount else self.parent

        monkeypatch.setattr(dest_path.DestPath, "state_parent", property(state_parent))
        dest = tmp_path / "mount"
        dest.mkdir()
        with mounted(dest):
            yield dest

    def test_blobs_travel_on_the_mount(self, dest: Path, one: Controller) -> None:
        before = os.stat(dest).st_mtime_ns
        upload_path, wanted = one.request(dest)
        assert os.path.dirname(upload_path) == str(dest)
        assert os.stat(dest).st_mtime_ns == before
        one.send(upload_path, wanted)
        assert one.run(dest, _upload_folder=upload_path)["changed"] is True
        assert sorted(contents(dest)) == ["last", "one", "shared"]
        assert one.run(dest)["changed"] is False

    def test_an_unfinished_transfer_is_no_content(self, dest: Path, one: Controller, two: Controller) -> None:
        """Neither foreign, nor part of a tree that moves in or out."""
        upload_path, wanted = one.request(dest)
        one.send(upload_path, wanted[:1])
        assert one.request(dest)[1] == wanted[1:]
        two.provision(dest)
        assert sorted(contents(dest)) == ["shared", "two"]
        upload_path, wanted = one.request(dest)
        one.send(upload_path, wanted[:1])
        assert two.run(dest)["changed"] is False
        assert sorted(contents(dest)) == ["shared", "two"]
        one.request(dest)
        assert run(dest, state="absent")["changed"] is True
        assert os.listdir(dest) == []


@contextlib.contextmanager
def passable(tmp_path: Path) -> t.Iterator[Path]:
    """A directory that every user can reach; pytest closes its own to others."""
    opened = []
    for path in (tmp_path, *tmp_path.parents):
        mode = stat.S_IMODE(os.stat(path).st_mode)
        if not mode & 0o001:
            opened.append((path, mode))
            os.chmod(path, mode | 0o011)
    try:
        top = tmp_path / "top"
        top.mkdir(0o755)
        os.chmod(top, 0o755)
        yield top
    finally:
        for path, mode in opened:
            os.chmod(path, mode)


def as_user(act: t.Callable[[], None]) -> None:
    """Do something as the user, without root's rights."""
    os.setegid(USER + 1)
    os.seteuid(USER)
    try:
        act()
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_devices_fail_before_anything_stays(tmp_path: Path, dest: Path) -> None:
    """An image that cannot be unpacked leaves nothing, and is asked for anew."""
    image = Image([Layer(char("dev/sda", 8, 0))])
    controller = Controller(tmp_path, write_oci_archive(tmp_path / "i.tar", image))
    for _run in range(2):
        with pytest.raises(LayerError):
            controller.provision(dest, devices="fail")
        assert names(dest.parent) == []
