# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs that fail or are stopped leave nothing behind (docs/behaviour.md, section 7)."""

from __future__ import annotations

import errno
import os
import signal
import stat
import struct
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import unpacking
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import LayerError
from ansible_collections.hypervisor.oci.plugins.module_utils._interrupt import InterruptedRunError, interruptible
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs import apply
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import exchange as beside
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Layer,
    append,
    block,
    cut,
    digest,
    entry,
    file,
    flip,
    hardlink,
    symlink,
)
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors
from ansible_collections.hypervisor.oci.tests.unit.support import (
    IS_ROOT,
    contents,
    needs_root,
    needs_user,
    run,
    set_xattr_or_skip,
    tree,
)
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import GOOD, archive, refused, beside_of, names_beside

FAULTS: dict[str, tuple[t.Any, dict[str, t.Any], str]] = {
    "a truncated gzip stream": (
        Layer(file("f", b"x"), edit_blob=cut(-3)), {},
        "layer {digest}: its gzip stream ends too early; fetch or build the image again",
    ),
    "a truncated zstd frame": (
        Layer(file("f", b"x"), compression="zstd-stored", edit_blob=cut(-1)), {},
        "layer {digest}: its zstd stream ends too early; fetch or build the image again",
    ),
    "a truncated tar": (
        Layer(file("f", b"x" * 600), edit_tar=cut(1000)), {},
        "layer {digest}, entry 'f': the tar ends in the middle of an entry;"
        " build the image again with a sound tar writer",
    ),
    "a corrupt blob": (
        Layer(file("f", b"x"), compression="none", edit_stored=flip(512)), {},
        "layer {digest}: the blob's content has the digest ",
    ),
    "another content": (
        Layer(file("f", b"x"), diff_id=digest(b"other")), {},
        "layer {digest}: its content has the diff_id ",
    ),
    "no layer at all": (
        Layer(edit_tar=append(b"hello"), end_blocks=0, compression="none"), {},
        "layer {digest}: the blob is not a tar, plain or compressed by gzip, zstd, xz or bzip2: it is text;",
    ),
    "a name that leads out": (
        Layer(file("ok"), file("../f")), {},
        "layer {digest}, entry '../f': its name has a '..' component; ",
    ),
    "the root as a link": (
        Layer(symlink(".", "/etc")), {},
        "layer {digest}, entry '.': the root itself must be a directory; ",
    ),
    "a loop of links": (
        Layer(symlink("a", "b"), symlink("b", "a"), file("a/f")), {},
        "layer {digest}, entry 'a/f': its path leads through a loop of symbolic links; ",
    ),
    "a hard link to nothing": (
        Layer(hardlink("h", "nothing")), {},
        "layer {digest}, entry 'h': it is a hard link to 'nothing', which does not exist; ",
    ),
    "a whiteout of nothing": (
        Layer(entry(".wh.", "0")), {},
        "layer {digest}, entry '.wh.': the whiteout names nothing; ",
    ),
    "an unknown type": (
        Layer(entry("s", "s")), {},
        "layer {digest}, entry 's': entries of type 's' are not supported; ",
    ),
    "a device": (
        Layer(block("sda", 8, 0)), {"devices": "fail"},
        "layer {digest}, entry 'sda': it is a device, and devices are set to fail; ",
    ),
    "a wrong checksum": (
        Layer(file("f", fields={"checksum": 1})), {},
        "layer {digest}, entry 'f': the checksum of a tar header is wrong; ",
    ),
    "too many bytes": (
        Layer(file("f", bytes(50_000))), {"max_size": 40_000},
        "layer {digest}: the image's layers hold more than 40000 bytes when decompressed;"
        " raise max_size if you trust this image",
    ),
    "too many entries": (
        Layer(*[file(f"f{number}") for number in range(9)]), {"max_entries": 9},
        "layer {digest}, entry 'f8': the image's layers hold more than 9 entries;"
        " raise max_entries if you trust this image",
    ),
    "an invalid capability": (
        Layer(file("f", xattrs={"security.capability": "x"})), {},
        "layer {digest}, entry 'f': its security.capability has neither ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("had", [False, True], ids=["first run", "update"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_layer(tmp_path: Path, dest: Path, one: str, fault: str, had: bool) -> None:
    """Section 8: one sentence that names layer and entry; section 7: the old tree stays as it was."""
    layer, changes, expected = FAULTS[fault]
    src = archive(tmp_path, GOOD, layer)
    if had:
        run(dest, src=one)
    before = tree(dest) if had else None
    descriptors = open_descriptors()
    for state in ("present", "staged"):
        message = refused(dest, src=src, state=state, **changes)
        assert message.startswith(expected.format(digest=layer.digest))
        if had:
            assert tree(dest) == before
            assert names_beside(dest) == ["record.json"]
        else:
            assert os.listdir(dest.parent) == []
    assert open_descriptors() == descriptors
    if had:
        assert run(dest, src=one)["changed"] is False


def test_a_wrong_layer_below_folders_that_were_made(tmp_path: Path) -> None:
    src = archive(tmp_path, Layer(file("..")))
    refused(tmp_path / "a/b/c", src=src)
    assert os.listdir(tmp_path) == ["image.tar"]


def test_an_error_where_a_staged_tree_was(tmp_path: Path, dest: Path, one: str) -> None:
    run(dest, src=one, state="staged")
    refused(dest, src=archive(tmp_path, Layer(file(".."))))
    assert os.listdir(dest.parent) == []


@pytest.mark.parametrize("step", ["mkdir", "syncfs", "exchange"])
def test_what_the_disk_answers(dest: Path, one: str, two: str, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Section 8: a disk causes no traceback, and the old tree stays."""
    run(dest, src=one)
    before = tree(dest)

    def fails(*_arguments: t.Any, **_keywords: t.Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    module: t.Any = {"mkdir": os, "syncfs": unpacking, "exchange": beside}[step]
    with monkeypatch.context() as patched:
        patched.setattr(module, step, fails)
        message = refused(dest, src=two)
    assert message == (
        f"'{dest}' could not be worked on: input/output error;"
        " the disk or its connection fails: look at the kernel's log"
    )
    assert tree(dest) == before
    assert names_beside(dest) == ["record.json"]
    assert run(dest, src=one)["changed"] is False


def test_a_record_that_cannot_be_written(dest: Path, one: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, before anything was made."""

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        message = refused(dest, src=one)
    assert message == (
        f"'{dest}' could not be worked on: the file system has no room left (blocks or inodes);"
        " make room there and run again"
    )
    assert os.listdir(dest.parent) == []


@needs_user
def test_a_folder_that_may_not_be_written_to(dest: Path, one: str) -> None:
    os.chmod(dest.parent, 0o500)
    try:
        message = refused(dest, src=one)
    finally:
        os.chmod(dest.parent, 0o700)
    assert message.startswith(f"'{dest}' could not be worked on: permission denied")
    assert message.endswith("; run as a user who may do this")


def test_nothing_is_inherited_from_the_folder_above(dest: Path, one: str) -> None:
    """Section 6: neither its default ACL nor its setgid bit."""
    none = 0xFFFFFFFF
    entries = ((1, 7, none), (2, 7, 1), (4, 7, none), (16, 7, none), (32, 7, none))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)
    set_xattr_or_skip(dest.parent, "system.posix_acl_default", acl)
    os.chmod(dest.parent, 0o2770)
    run(dest, src=one)
    for name, node in tree(dest).items():
        assert node.xattrs == {}, name
        assert not node.mode & stat.S_ISGID, name
    assert tree(dest)["data/one"].mode == 0o600
    state = beside_of(dest)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert os.listxattr(state) == []


def _stops(what: type[BaseException] | int) -> None:
    if isinstance(what, int):
        os.kill(os.getpid(), what)
        # a signal's handler runs between two steps of Python
        for _step in range(1000):
            pass
        raise AssertionError("the signal did not come")
    raise what


@pytest.mark.parametrize(
    "stop",
    [KeyboardInterrupt, SystemExit, signal.SIGTERM, signal.SIGHUP, signal.SIGINT],
    ids=["KeyboardInterrupt", "SystemExit", "SIGTERM", "SIGHUP", "SIGINT"],
)
@pytest.mark.parametrize("where", ["a layer", "the exchange", "putting away"])
def test_a_run_that_is_stopped(
    dest: Path, one: str, two: str, monkeypatch: pytest.MonkeyPatch, stop: t.Any, where: str
) -> None:
    """Whoever stops a run finds the old tree or the new one, and nothing half done."""
    run(dest, src=one)
    before = tree(dest)

    def stops(*_arguments: t.Any) -> None:
        _stops(stop)

    expected = InterruptedRunError if isinstance(stop, int) else stop
    with monkeypatch.context() as patched:
        if where == "a layer":
            patched.setattr(apply.Applier, "finish", stops)
        elif where == "the exchange":
            patched.setattr(beside, "exchange", stops)
        else:
            patched.setattr(beside.ExchangedDest, "_exchanged", stops)
        with pytest.raises(expected), interruptible():
            run(dest, src=two)
    if where == "putting away":
        assert contents(dest)["bin/app"] == b"two"
        assert run(dest, src=two)["changed"] is False
        assert run(dest, state="previous")["changed"] is True
    else:
        assert names_beside(dest) == ["record.json"]
    assert tree(dest) == before
    assert run(dest, src=one)["changed"] is False


@needs_root
def test_owners_in_the_tree(dest: Path, one: str) -> None:
    """Section 6: id maps reach everything, also the root that no entry speaks of."""
    run(dest, src=one, uid_map=["0:100000:2000"], gid_map=["0:200000:2000"])
    owners = {(node.uid, node.gid) for node in tree(dest).values()}
    assert owners == {(100000, 200000)}
    assert IS_ROOT


def test_layer_errors_name_the_layer(tmp_path: Path, dest: Path) -> None:
    bad = Layer(file("a"), hardlink("h", "h"))
    with pytest.raises(LayerError) as caught:
        run(dest, src=archive(tmp_path, GOOD, bad))
    assert (caught.value.layer, caught.value.entry) == (bad.digest, b"h")
