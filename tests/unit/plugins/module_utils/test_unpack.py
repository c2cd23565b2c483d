# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers in order, paired with diff_ids (docs/behaviour.md, sections 2 and 3)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import ImageError, LayerError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.platform import parse_platform
from ansible_collections.hypervisor.oci.plugins.module_utils._image.selection import select_image
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.plugins.module_utils._unpack import Unpacked, unpack
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Blob,
    Image,
    Layer,
    cut,
    digest,
    directory,
    fifo,
    file,
    opaque,
    symlink,
    whiteout,
    write_docker_archive,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors
from ansible_collections.hypervisor.oci.tests.unit.support import contents, needs_root, options, tree, watched

PLATFORM = parse_platform("linux/amd64")
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


class Run:
    """An image, unpacked into ``top``; ``opened`` are the names of the layers that were read, in order."""

    def __init__(self, tmp_path: Path, image: Image, **changes: t.Any) -> None:
        self.top = tmp_path / "top"
        self.image = image
        self.opened: list[str] = []
        write = changes.pop("write", write_oci_archive)
        self.path = write(tmp_path / "image.tar", image)
        self._options = options(self.top, **changes).unpack

    def unpack(self) -> Unpacked:
        """Do it; may raise."""
        self.top.mkdir(0o700, exist_ok=True)
        fd = os.open(self.top, os.O_RDONLY)
        source = watched(open_source(self.path))
        try:
            image = select_image(source, None, None, PLATFORM)
            before = len(source.reads)
            try:
                return unpack(source, image, fd, self._options)
            finally:
                self.opened = source.reads[before:]
        finally:
            source.close()
            os.close(fd)


def a_run(tmp_path: Path, *layers: Blob, **changes: t.Any) -> Run:
    """A run of an image of these layers; ``image`` are its other options."""
    return Run(tmp_path, Image(layers, **changes.pop("image", {})), **changes)


BASE = Layer(directory("d", 0o750, mtime=5), file("d/a", b"a"), file("d/b", b"b"))
MIDDLE = Layer(whiteout("d/a"), file("d/c", b"c"))
TOP = Layer(file("d/b", b"new"), symlink("l", "d"))
RESULT = {"d": None, "d/b": b"new", "d/c": b"c", "l": b"d"}


def test_layers_in_order(tmp_path: Path) -> None:
    """Section 3: each blob is read once."""
    run = a_run(tmp_path, BASE, MIDDLE, TOP)
    report = run.unpack().report
    assert contents(run.top) == RESULT
    assert run.opened == [layer.path for layer in (BASE, MIDDLE, TOP)]
    assert (report.entries, report.files, report.whiteouts) == (7, 4, 1)
    assert report.to_dict()["counts"] == {}


@pytest.mark.parametrize("layers", [(TOP, MIDDLE, BASE), (MIDDLE, BASE, TOP), (BASE, TOP, MIDDLE), (TOP, BASE, MIDDLE)])
def test_layers_in_another_order_than_the_diff_ids(tmp_path: Path, layers: tuple[Layer, ...]) -> None:
    """Section 2: the work starts over with the layers sorted by content; the order of diff_ids counts."""
    right = [layer.diff_id for layer in (BASE, MIDDLE, TOP)]
    run = a_run(tmp_path, *layers, image={"diff_ids": right})
    report = run.unpack().report
    assert contents(run.top) == RESULT
    assert tree(run.top)["d"].mtime == 5 * 10**9
    assert (report.entries, report.files, report.whiteouts) == (7, 4, 1)
    assert run.opened[-3:] == [layer.path for layer in (BASE, MIDDLE, TOP)]


def test_another_order_costs_no_budget(tmp_path: Path) -> None:
    """What was thrown away does not count for the limits."""
    size = sum(len(layer.tar) for layer in (BASE, TOP))
    right = [BASE.diff_id, TOP.diff_id]
    changes: dict[str, t.Any] = {"image": {"diff_ids": right}, "max_size": size, "max_entries": 5}
    run = a_run(tmp_path, TOP, BASE, **changes)
    run.unpack()
    assert "d/a" in contents(run.top)


def test_a_layer_may_stand_in_the_list_twice(tmp_path: Path) -> None:
    """Section 2."""
    again = Layer(file("d/a", b"a"), file("x", b"x"))
    run = a_run(tmp_path, again, Layer(whiteout("d/a"), whiteout("x")), again)
    run.unpack()
    assert contents(run.top) == {"d": None, "d/a": b"a", "x": b"x"}


def test_a_diff_id_that_no_layer_yields(tmp_path: Path) -> None:
    """Section 2: an error that names it."""
    run = a_run(tmp_path, TOP, TOP, image={"diff_ids": [BASE.diff_id, TOP.diff_id]})
    with pytest.raises(ImageError) as caught:
        run.unpack()
    assert caught.value.message == (
        f"no layer of the image yields the diff_id {BASE.diff_id} of its config; build the image again"
    )


def test_content_that_is_in_no_diff_id(tmp_path: Path) -> None:
    other = digest(b"other")
    run = a_run(tmp_path, BASE, TOP, image={"diff_ids": [BASE.diff_id, other]})
    with pytest.raises(LayerError) as caught:
        run.unpack()
    assert caught.value.message == (
        f"layer {TOP.digest}: its content has the diff_id {TOP.diff_id}, which is not in the image config;"
        " build the image again"
    )


def test_an_image_without_layers(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    found = run.unpack()
    assert contents(run.top) == {}
    assert stat.S_IMODE(run.top.stat().st_mode) == 0o755
    assert found.report.entries == 0


@pytest.mark.parametrize(
    ("layer", "wrong"),
    [
        (Layer(file("f"), compression="gzip"), 0),
        (Layer(file("f"), compression="none", media_type=GZIP), 1),
        (Layer(file("f"), compression="zstd-stored", media_type=GZIP), 1),
        (Layer(file("f"), inline=True, missing=True), 0),
        (Layer(file("f"), algorithm="sha512", diff_id_algorithm="sha512"), 0),
    ],
)
def test_media_types_that_are_wrong_are_counted(tmp_path: Path, layer: Layer, wrong: int) -> None:
    """Section 3; and the bytes decide. Inline data and sha512 are layers like others."""
    run = a_run(tmp_path, layer)
    found = run.unpack()
    assert contents(run.top) == {"f": b""}
    expected = {"media_types_wrong": wrong} if wrong else {}
    assert found.report.to_dict()["counts"] == expected


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd-stored"])
def test_an_old_archive(tmp_path: Path, compression: t.Any) -> None:
    """Section 1: layers are checked by their diff_id alone, and the bytes tell the compression."""

    def write(path: Path, image: Image) -> str:
        return write_docker_archive(path, image, style="old", compressed=True)

    run = a_run(tmp_path, Layer(file("f", b"x"), compression=compression), write=write)
    found = run.unpack()
    assert contents(run.top) == {"f": b"x"}
    assert found.report.to_dict()["counts"] == {}


def test_a_layer_with_something_behind_it_in_the_archive(tmp_path: Path) -> None:
    """The diff_id is computed to the very end, also where the tar ended before."""
    layer = Layer(file("f"), edit_tar=lambda data: data + file("never").render())
    run = a_run(tmp_path, layer)
    run.unpack()
    assert contents(run.top) == {"f": b""}


# -- the process


def test_the_umask_is_as_before(tmp_path: Path) -> None:
    """Section 4: it plays no part, and is given back, after errors too."""
    before = os.umask(0o077)
    try:
        for layer in (
            Layer(file("f", mode=0o666), fifo("p", 0o666), directory("d", 0o777)),
            Layer(file("f"), edit_blob=cut(-1)),
        ):
            run = a_run(tmp_path, layer)
            try:
                run.unpack()
                modes = {name: node.mode for name, node in tree(run.top).items()}
                assert modes == {".": 0o755, "f": 0o666, "p": 0o666, "d": 0o777}
            except LayerError as error:
                assert "ends too early" in error.message
            now = os.umask(0o077)
            assert now == 0o077
    finally:
        os.umask(before)


def test_nothing_is_left_open(tmp_path: Path) -> None:
    """Descriptors and threads, after errors too."""
    for layer in (BASE, Layer(file("a"), file("..")), Layer(file("f"), edit_blob=cut(-1))):
        run = a_run(tmp_path, layer)
        before = open_descriptors()
        with contextlib.suppress(LayerError):
            run.unpack()
        assert open_descriptors() == before
        assert not [x for x in threading.enumerate() if x.name == "read-ahead"]


# -- the user


def test_the_user_is_resolved_in_the_finished_tree(tmp_path: Path) -> None:
    """Section 8: with the layers above, and before directories are closed."""
    run = a_run(
        tmp_path,
        Layer(directory("etc", 0o000), file("etc/passwd", "app:x:1:1::/:\n")),
        Layer(file("etc/passwd", "app:x:7:8::/:\n"), file("etc/group", "g:x:9:app\n")),
        image={"config": {"User": "app"}},
    )
    user = run.unpack().user
    assert (user.uid, user.gid, user.groups) == (7, 8, (9,))


@needs_root
def test_the_user_is_the_containers_whatever_the_map(tmp_path: Path) -> None:
    run = a_run(
        tmp_path,
        Layer(file("etc/passwd", "app:x:7:8::/:\n")),
        image={"config": {"User": "app"}},
        uid_map=["0:100000:1000"],
        gid_map=["0:100000:1000"],
    )
    user = run.unpack().user
    assert (user.uid, user.gid) == (7, 8)


# -- a warning


def test_lost_xattrs_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 6: a file system without xattrs."""

    def refuse(*_arguments: t.Any, **_keywords: t.Any) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    layer = Layer(file("f", xattrs={"user.a": "1"}), directory("d", xattrs={"user.b": "1"}))
    run = a_run(tmp_path, layer)
    monkeypatch.setattr(os, "setxattr", refuse)
    assert run.unpack().report.warnings == [
        "the file system of dest cannot hold 2 extended attributes of the image, which were left out"
    ]


def test_an_opaque_root_over_everything(tmp_path: Path) -> None:
    run = a_run(tmp_path, BASE, Layer(opaque(), file("only", b"x")))
    run.unpack()
    assert contents(run.top) == {"only": b"x"}
