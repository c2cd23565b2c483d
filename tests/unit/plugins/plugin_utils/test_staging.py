# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What forks share of an image on the controller, and what is left of it (docs/behaviour.md, sections 1 and 7)."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._source.offer import read_offer
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sent import BUNDLE_HEAD, upload_name, find_sent
from ansible_collections.hypervisor.oci.plugins.plugin_utils import _staging
from ansible_collections.hypervisor.oci.plugins.plugin_utils._staging import LocalImage, Staging
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
from ansible_collections.hypervisor.oci.tests.images.compression import Compression

LAYERS = [Layer(file("a", "a" * 9)), Layer(file("b", "b" * 9), algorithm="sha512")]
IMAGE = Image(LAYERS)
NAMES = [layer.path for layer in LAYERS]


class Controller:
    """A controller's local tmp; ``opened`` counts how often sources were read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened = 0

    def staging(self, path: str, criteria: Criteria | None = None) -> Staging:
        """A staging as a fork has it."""

        def real_path() -> str:
            self.opened += 1
            return path

        return Staging(LocalImage(path, real_path), str(self.folder), criteria or Criteria())

    def left(self) -> list[str]:
        """The names of all files, an offer's without what tells it from others."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return sorted(re.sub("^offer-[0-9a-f]{32}$", "offer", path.name) for path in files)


@pytest.fixture(name="controller")
def fixture_controller(tmp_path: Path) -> Controller:
    """One whose folder is empty."""
    folder = tmp_path / "local"
    folder.mkdir()
    return Controller(folder)


def content(staging: Staging, names: t.Sequence[str]) -> list[bytes]:
    """What would be sent."""
    return [Path(bundle.path).read_bytes() for bundle in staging.bundles(names)]


@pytest.fixture(autouse=True)
def _no_blob_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that each is a file."""
    monkeypatch.setattr(_staging, "_SMALL", -1)


def write(folder: Path, form: str) -> str:
    """The image in a form."""
    if form == "layout":
        return write_layout(folder / "layout", IMAGE)
    compressions: dict[str, Compression] = {"gzip": "gzip", "zstd": "zstd"}
    compression = compressions.get(form, "none")
    return write_oci_archive(folder / "i.tar", IMAGE, compression=compression)


@pytest.mark.parametrize("form", ["archive", "gzip", "zstd", "layout"])
def test_blobs_are_files_in_every_form(tmp_path: Path, controller: Controller, form: str) -> None:
    path = write(tmp_path, form)
    with controller.staging(path) as staging:
        assert set(staging.sizes()) == set(NAMES)
        assert content(staging, NAMES) == [layer.data for layer in LAYERS]
        assert content(staging, NAMES[1:]) == [LAYERS[1].data]
        files = [path for path in controller.folder.rglob("*") if path.is_file()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert controller.left() == ["in-use", "offer", "writing"]


@pytest.mark.parametrize("form", ["archive", "gzip", "layout"])
def test_what_one_fork_made_the_others_find(tmp_path: Path, controller: Controller, form: str) -> None:
    path = write(tmp_path, form)
    with controller.staging(path) as first:
        assert len(content(first, NAMES)) == 2
        opened = controller.opened
        with controller.staging(path) as second:
            assert content(second, NAMES) == content(first, NAMES)
        assert controller.opened == opened
        # the other one is gone, and took nothing away
        assert content(first, NAMES) == [layer.data for layer in LAYERS]
    with controller.staging(path) as third:
        third.offer()
    assert controller.opened == opened


def test_blobs_are_staged_when_they_are_needed(tmp_path: Path, controller: Controller) -> None:
    """The first one travels while nobody has read the second."""
    with controller.staging(write(tmp_path, "archive")) as staging:
        bundles = staging.bundles(NAMES)
        next(bundles)
        assert upload_name(NAMES[1]) not in controller.left()
        assert [bundle.names for bundle in bundles] == [(NAMES[1],)]


def test_a_compressed_archive_is_spooled_once(tmp_path: Path, controller: Controller) -> None:
    with controller.staging(write(tmp_path, "gzip")) as staging:
        next(staging.bundles(NAMES))
        assert set(map(upload_name, NAMES)) < set(controller.left())
        # once for the offer, and not again for the spool
        assert controller.opened == 1


def test_an_image_that_was_made_anew_is_another_one(tmp_path: Path, controller: Controller) -> None:
    for name in ("archive", "layout"):
        path = write(tmp_path, name)
        with controller.staging(path) as staging:
            before = Path(staging.offer()).read_bytes()
        other = Image([Layer(file("other"))])
        if name == "archive":
            write_oci_archive(path, other)
        else:
            Path(path, "index.json").unlink()
            write_layout(tmp_path / "new", other)
            os.rename(tmp_path / "new" / "index.json", Path(path, "index.json"))
            for blob in (tmp_path / "new" / "blobs" / "sha256").iterdir():
                os.rename(blob, Path(path, "blobs", "sha256", blob.name))
        with controller.staging(path) as staging:
            assert Path(staging.offer()).read_bytes() != before


# -- small blobs travel together


def layers_of(*sizes: int) -> list[Layer]:
    """A layer for each number, with that many bytes at least, which cannot be compressed."""
    noise = random.Random(1)
    return [Layer(file("f", bytes(noise.choices(range(256), k=size)))) for size in sizes]


@pytest.mark.parametrize("form", ["archive", "gzip", "layout", "docker"])
def test_small_blobs_are_one_file(
    tmp_path: Path, controller: Controller, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """What a node finds in it are the blobs; large ones follow, each alone."""
    monkeypatch.setattr(_staging, "_SMALL", 20_000)
    layers = layers_of(30_000, 9, 5, 25_000, 7)
    image = Image(layers)
    if form == "docker":
        path = write_docker_archive(tmp_path / "d.tar", image, style="old")
    elif form == "layout":
        path = write_layout(tmp_path / "layout", image)
    else:
        path = write_oci_archive(tmp_path / "i.tar", image, compression="gzip" if form == "gzip" else "none")  # fmt: skip
    received = tmp_path / "received"
    received.mkdir()
    with controller.staging(path) as staging:
        sizes = read_offer(staging.offer())[0].layers
        bundles = list(staging.bundles(list(sizes)))
        assert sorted(len(bundle.names) for bundle in bundles) == [1, 1, 3]
        assert len(bundles[0].names) == 3
        for bundle in bundles:
            shutil.copy(bundle.path, received / bundle.file)
        # the same again is made no second time
        opened = controller.opened
        assert list(staging.bundles(list(sizes))) == bundles
        assert controller.opened == opened
    assert controller.left() == ["in-use", "offer", "writing"]
    fd = os.open(received, os.O_RDONLY)
    found = find_sent(fd, sizes)
    assert set(found) == set(sizes)
    contents = []
    for sent in found.values():
        reader = sent.open()
        assert reader is not None
        with contextlib.closing(reader):
            contents.append(reader.read())
    os.close(fd)
    assert sorted(contents) == sorted(layer.tar if form == "docker" else layer.data for layer in layers)


def test_a_bundle_does_not_grow_for_ever(
    tmp_path: Path, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost connection loses what is on its way."""
    path = write_oci_archive(tmp_path / "i.tar", Image(layers_of(1, 2, 3, 4, 5)))
    monkeypatch.setattr(_staging, "_SMALL", 20_000)
    monkeypatch.setattr(_staging, "_LARGEST_BUNDLE", 200)
    with controller.staging(path) as staging:
        names = list(read_offer(staging.offer())[0].layers)
        bundles = staging.bundles(names)
        assert len(next(bundles).names) == 2
        # the next one is staged when this one has been sent
        assert len([name for name in controller.left() if name[:6] == "bundle"]) == 1
        assert [len(bundle.names) for bundle in bundles] == [2, 1]


def test_the_head_of_a_bundle_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many names as a node reads, of the longest kind."""
    monkeypatch.setattr(_staging, "_SMALL", 512 * 1024)
    names = [f"blobs/sha512/{number:0128x}" for number in range(1000)]
    sizes = dict.fromkeys(names, 4000)
    groups = _staging._group(sizes)
    assert [name for group in groups for name in group] == names
    for group in groups:
        head = _staging.bundle_head({name: 512 * 1024 for name in group})
        assert len(head) <= BUNDLE_HEAD
    assert len(groups) < 5


def test_a_damaged_blob_spoils_its_bundle(
    tmp_path: Path, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Image([LAYERS[0], Layer(file("c", "c"), edit_stored=flip(20))])
    path = write_oci_archive(tmp_path / "i.tar", broken)
    monkeypatch.setattr(_staging, "_SMALL", 20_000)
    with controller.staging(path) as staging:
        with pytest.raises(SourceError, match=f"{broken.layers[1].digest} .* another"):
            content(staging, [layer.path for layer in broken.layers])
        assert controller.left() == ["in-use", "offer", "writing"]


def test_a_link_out_of_an_old_docker_layout_is_in_no_bundle(
    tmp_path: Path, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_docker_archive(tmp_path / "d.tar", Image(layers_of(1, 2)), style="old")  # fmt: skip
    folder = tmp_path / "unpacked"
    folder.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", str(folder)], check=True)
    first, second = sorted(folder.glob("*/layer.tar"))
    os.rename(second, tmp_path / "secret")
    second.symlink_to(tmp_path / "secret")
    monkeypatch.setattr(_staging, "_SMALL", 20_000)
    names = [f"{path.parent.name}/layer.tar" for path in (first, second)]
    with controller.staging(str(folder)) as staging, pytest.raises(SourceError, match="is a link out of the directory"):  # fmt: skip
        content(staging, names)


# -- what is sent is a copy of ours


def link_blob(layout: str, name: str, target: Path) -> None:
    """A blob becomes a link to a file that holds it."""
    blob = Path(layout, name)
    os.rename(blob, target)
    blob.symlink_to(target)


@pytest.mark.parametrize("small", [-1, 20_000])
def test_no_name_of_an_image_is_part_of_a_path_that_is_sent(
    tmp_path: Path, controller: Controller, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    """A connection's programs parse it: this one is two commands of sftp (section 7)."""
    path = write(tmp_path, "layout")
    for number, name in enumerate(NAMES):
        link_blob(path, name, tmp_path / f"{number}\\'\"\n!touch attacked\n")
    monkeypatch.setattr(_staging, "_SMALL", small)
    with controller.staging(path) as staging:
        bundles = list(staging.bundles(NAMES))
        assert b"".join(Path(bundle.path).read_bytes() for bundle in bundles).endswith(LAYERS[1].data)  # fmt: skip
        for bundle in bundles:
            folder, file_name = os.path.split(bundle.path)
            assert os.path.realpath(bundle.path) == bundle.path
            assert Path(folder).parent == controller.folder
            assert file_name == bundle.file
            assert re.fullmatch("(sha256|sha512|member|bundle)-[0-9a-f]+", file_name)


def test_what_was_verified_is_sent_by_a_later_fork_too(tmp_path: Path, controller: Controller) -> None:
    """Whoever may write to a layout changes its blob after one fork has looked at it."""
    path = write(tmp_path, "layout")
    blob = Path(path, NAMES[0])
    with controller.staging(path) as first:
        assert content(first, NAMES[:1]) == [LAYERS[0].data]
        with open(blob, "r+b") as opened:
            opened.write(b"hostile")
        with controller.staging(path) as second:
            assert content(second, NAMES[:1]) == [LAYERS[0].data]
        (bundle,) = first.bundles(NAMES[:1])
        assert os.stat(bundle.path).st_nlink == 1
        assert not os.path.samefile(bundle.path, blob)
    # the room is given back, and what is there now is no blob
    assert controller.left() == ["in-use", "offer", "writing"]
    with controller.staging(path) as third, pytest.raises(SourceError, match="another digest"):  # fmt: skip
        content(third, NAMES[:1])


def test_a_blob_takes_no_more_room_than_was_offered(tmp_path: Path, controller: Controller) -> None:
    path = write(tmp_path, "layout")
    with controller.staging(path) as staging:
        staging.offer()
        with open(Path(path, NAMES[0]), "r+b") as opened:
            opened.truncate(1 << 40)
        with pytest.raises(SourceError, match="changed during the run"):
            content(staging, NAMES[:1])
    assert controller.left() == ["in-use", "offer", "writing"]


# -- tasks that name their images


def test_tasks_share_blobs_and_no_offer(tmp_path: Path, controller: Controller) -> None:
    """Nor what can be asked for: the layer that both have is staged once."""
    one = Image([LAYERS[0], Layer(file("one", "1"))], ref="one")
    two = Image([LAYERS[0], Layer(file("two", "2"))], ref="two")
    path = write_oci_archive(tmp_path / "i.tar", one, two)
    with controller.staging(path, Criteria(ref="one")) as first:
        with controller.staging(path, Criteria(ref="two")) as second:
            assert first.offer() != second.offer()
            assert set(first.sizes()) == {layer.path for layer in one.layers}
            assert set(second.sizes()) == {layer.path for layer in two.layers}
            for name in (one.layers[1].path, one.config.path, one.path, "index.json"):
                with pytest.raises(SourceError, match="holds no"):
                    content(second, [name])
            assert controller.left() == ["in-use", "offer", "offer", "writing"]
            (ours,) = first.bundles(NAMES[:1])
            before = os.stat(ours.path)
            (theirs,) = second.bundles(NAMES[:1])
            assert os.path.samestat(os.stat(theirs.path), before)
        assert os.path.exists(ours.path)
    assert controller.left() == ["in-use", "offer", "offer", "writing"]


def test_documents_are_nothing_to_ask_for(tmp_path: Path, controller: Controller) -> None:
    """A node has them, or is not to have them."""
    path = write(tmp_path, "archive")
    with controller.staging(path) as staging:
        documents = read_offer(staging.offer())[0].documents
        assert len(documents) == 3
        for name in documents:
            with pytest.raises(SourceError, match="holds no"):
                content(staging, [name])


# -- hostile and damaged images


@pytest.mark.parametrize("form", ["archive", "gzip", "layout"])
def test_a_damaged_blob_is_never_sent(tmp_path: Path, controller: Controller, form: str) -> None:
    broken = Image([LAYERS[0], Layer(file("c", "c"), edit_stored=flip(20))])
    name = broken.layers[1].path
    if form == "layout":
        path = write_layout(tmp_path / "layout", broken)
    else:
        path = write_oci_archive(tmp_path / "i.tar", broken, compression="gzip" if form == "gzip" else "none")
    with controller.staging(path) as staging:
        staging.offer()
        for _again in range(2):
            with pytest.raises(SourceError, match=f"{broken.layers[1].digest} .* another digest"):
                content(staging, [name])
    assert controller.left() == ["in-use", "offer", "writing"]


def test_a_link_in_a_layout_sends_no_secret_of_the_controller(tmp_path: Path, controller: Controller) -> None:
    """Of the right size, but what it leads to is no blob."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * len(LAYERS[0].data))
    path = write(tmp_path, "layout")
    blob = Path(path, NAMES[0])
    blob.unlink()
    blob.symlink_to(secret)
    with controller.staging(path) as staging:
        with pytest.raises(SourceError, match="another digest"):
            content(staging, NAMES[:1])
        assert controller.left() == ["in-use", "offer", "writing"]


def test_old_docker_layouts_send_no_link_out(tmp_path: Path, controller: Controller) -> None:
    """There no digest says what a layer's file must hold."""
    image = Image([Layer(file("a")), Layer(file("b"))])
    archive = write_docker_archive(tmp_path / "d.tar", image, style="old")
    folder = tmp_path / "unpacked"
    folder.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", str(folder)], check=True)
    first, second = sorted(folder.glob("*/layer.tar"))
    names = [f"{path.parent.name}/layer.tar" for path in (first, second)]
    secret = tmp_path / "secret"
    os.rename(second, secret)
    second.symlink_to(secret)
    with controller.staging(str(folder)) as staging:
        assert content(staging, names[:1]) == [first.read_bytes()]
        with pytest.raises(SourceError, match="is a link out of the directory"):
            content(staging, names[1:])
        second.unlink()
        second.symlink_to(os.path.join("..", names[0]))
        assert content(staging, names[1:]) == [first.read_bytes()]


def test_old_docker_archives_are_staged_by_their_own_names(tmp_path: Path, controller: Controller) -> None:
    layers = [Layer(file("a")), Layer(file("b"))]
    image = Image(layers)
    path = write_docker_archive(tmp_path / "d.tar", image, style="old", links="symlink")
    with controller.staging(path) as staging:
        offer, _status = read_offer(staging.offer())
        found = content(staging, list(offer.layers))
        assert sorted(found) == sorted(layer.tar for layer in layers)
        with pytest.raises(SourceError, match="holds no"):
            content(staging, ["../../etc/passwd"])


def test_no_room_for_a_spool(tmp_path: Path, controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before anything is written."""
    path = write(tmp_path, "gzip")
    with controller.staging(path) as staging:
        staging.offer()
        real = os.statvfs(tmp_path)
        monkeypatch.setattr(
            os, "statvfs", lambda _path: os.statvfs_result([4096, 4096, 9, 1, 1, *list(real)[5:]])
        )  # fmt: skip
        with pytest.raises(SourceError, match=r"needs \d+ bytes .* has 4096 free; make room there, set local_tmp"):  # fmt: skip
            content(staging, NAMES)


def test_max_size_bounds_the_controller_too(tmp_path: Path, controller: Controller) -> None:
    """A bomb is told by the offer, before a byte of it is on the disk."""
    path = write(tmp_path, "gzip")
    staging = Staging(LocalImage(path, lambda: path, 2000), str(controller.folder), Criteria())
    with staging, pytest.raises(SourceError, match="more than the 2000 bytes of max_size; raise max_size"):
        staging.offer()
    assert controller.left() == ["in-use", "writing"]


def test_a_disk_that_fails(tmp_path: Path, controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "archive")
    with controller.staging(path) as staging:
        staging.offer()

        def full(*_arguments: t.Any) -> t.NoReturn:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", full)
            with pytest.raises(SourceError, match="cannot stage .* no room left"):  # fmt: skip
                content(staging, NAMES)
        assert controller.left() == ["in-use", "offer", "writing"]
    with pytest.raises(SourceError, match="cannot stage"):
        Staging(LocalImage(path, lambda: path), "/proc/nowhere", Criteria()).__enter__()


# -- forks


_FORK = """
import os, sys
from ansible_collections.hypervisor.oci.plugins.plugin_utils import _staging
from ansible_collections.hypervisor.oci.plugins.plugin_utils._staging import LocalImage, Staging
from ansible_collections.hypervisor.oci.plugins.plugin_utils._criteria import Criteria
_staging._SMALL = -1
path, local, names = sys.argv[1], sys.argv[2], sys.argv[3:]
with Staging(LocalImage(path, lambda: path), local, Criteria()) as staging:
    for bundle in staging.bundles(names):
        print(os.path.getsize(bundle.path), flush=True)
    sys.stdin.read()
"""


def test_forks_work_at_once_and_a_killed_one_leaves_no_lock(tmp_path: Path, controller: Controller) -> None:
    path = write(tmp_path, "gzip")
    command = [sys.executable, "-c", _FORK, path, str(controller.folder), *NAMES]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with contextlib.ExitStack() as stack:
        forks = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            )
            for _number in range(4)
        ]  # fmt: skip
        for fork in forks:
            assert fork.stdout is not None
            for layer in LAYERS:
                assert int(fork.stdout.readline()) == len(layer.data)
        assert set(map(upload_name, NAMES)) < set(controller.left())
        forks[0].kill()
        forks[0].wait()
        for fork in forks[1:-1]:
            fork.communicate("")
            assert set(map(upload_name, NAMES)) < set(controller.left())
        forks[-1].communicate("")
    assert controller.left() == ["in-use", "offer", "writing"]


def test_who_waits_for_another_fork_makes_nothing(
    tmp_path: Path, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "archive")
    made = []
    real = _staging.make_offer

    def slowly(source: t.Any, criteria: Criteria) -> t.Any:
        made.append(source)
        time.sleep(0.2)
        return real(source, criteria)

    monkeypatch.setattr(_staging, "make_offer", slowly)

    def fork() -> None:
        with controller.staging(path) as staging:
            staging.offer()

    threads = [threading.Thread(target=fork) for _number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
