# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole runs of the verb (docs/behaviour.md, sections 7 and 8)."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import provision, unpacking
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import LayerError, OciError, RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._interrupt import InterruptedRunError, interruptible
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs import apply
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import exchange as beside
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import in_use
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest import lock_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest_path import resolve_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._source import range_reader
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    append,
    block,
    cut,
    digest,
    directory,
    entry,
    file,
    flip,
    hardlink,
    symlink,
    whiteout,
    write_docker_archive,
    write_layout,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.tools.descriptors import open_descriptors
from ansible_collections.hypervisor.oci.tests.unit.support import (
    IS_ROOT,
    Watched,
    contents,
    mounted,
    names,
    needs_root,
    needs_user,
    run,
    set_xattr_or_skip,
    tree,
    watched,
    without_waiting,
)
from ansible_collections.hypervisor.oci.tests.tools.removal import remove_below

PASSWD = "root:x:0:0::/:\napp:x:1000:1000::/:\n"
GROUP = "staff:x:50:app\n"
ONE = Image(
    [
        Layer(
            directory(".", 0o755, mtime=1),
            directory("etc", 0o755, mtime=2),
            file("etc/passwd", PASSWD),
            file("etc/group", GROUP),
            file("bin/app", "one", 0o755, mtime=3),
        ),
        Layer(whiteout("etc/nothing"), file("data/one", "1", 0o600)),
    ],
    {"Entrypoint": ["/bin/app"], "User": "app", "Env": ["A=1"], "Labels": {"v": "1"}},
    ref="demo:1",
)
TWO = Image(
    [ONE.layers[0], Layer(file("bin/app", "two", 0o755), file("data/two", "2"))],
    {"Entrypoint": ["/bin/app"], "User": "app", "Env": ["A=2"], "Labels": {"v": "1"}},
    ref="demo:2",
)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)


@pytest.fixture(name="one")
def fixture_one(tmp_path: Path) -> str:
    """The archive of an image."""
    return write_oci_archive(tmp_path / "one.tar", ONE)


@pytest.fixture(name="two")
def fixture_two(tmp_path: Path) -> str:
    """The archive of the image that comes after it."""
    return write_oci_archive(tmp_path / "two.tar", TWO)


@pytest.fixture(name="dest")
def fixture_dest(tmp_path: Path) -> Path:
    """Where it goes; the folder above is there."""
    (tmp_path / "guests").mkdir(0o700)
    return tmp_path / "guests" / "web"


@pytest.fixture(name="sources")
def fixture_sources(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """All sources that runs opened; ``reads`` of each lists what was read of it."""
    seen: list[Watched] = []

    def opened(path: str, *_how: t.Any) -> Watched:
        seen.append(watched(open_source(path)))
        return seen[-1]

    monkeypatch.setattr(provision, "open_any", opened)
    return seen


def archive(tmp_path: Path, *layers: t.Any, **image: t.Any) -> str:
    """An archive of an image of these layers."""
    return write_oci_archive(tmp_path / "image.tar", Image(layers, **image))


def refused(dest: Path, **changes: t.Any) -> str:
    """The one sentence of a run that fails."""
    with pytest.raises(OciError) as caught:
        run(dest, **changes)
    message = caught.value.message
    assert "\n" not in message
    return message


def beside_of(dest: Path) -> Path:
    """The private folder."""
    return dest.parent / f".{dest.name}.oci_rootfs"


def everything(top: Path) -> dict[str, t.Any]:
    """All that is on disk, with inode numbers and times of change: any write shows."""
    found: dict[str, t.Any] = {}
    for folder, folders, files in os.walk(top):
        for name in [".", *folders, *files]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            found[path] = (status.st_ino, status.st_mode, status.st_ctime_ns)
    return found


# -- the first run, and one that changes nothing


def test_the_first_run(dest: Path, one: str) -> None:
    result = run(dest, src=one)
    assert result["changed"] is True
    assert contents(dest) == {
        "bin": None, "bin/app": b"one", "data": None, "data/one": b"1", "etc": None,
        "etc/group": GROUP.encode(), "etc/passwd": PASSWD.encode(),
    }  # fmt: skip
    assert tree(dest)["."].mtime == 10**9
    assert result["dest"] == str(dest)
    assert result["manifest_digest"] == ONE.manifest_digest
    assert result["config_digest"] == ONE.config_digest
    assert result["platform"] == "linux/amd64"
    assert result["ref"] == "demo:1"
    assert result["layers"] == [
        {"digest": layer.digest, "diff_id": layer.diff_id, "size": layer.size, "media_type": layer.media_type}
        for layer in ONE.layers
    ]
    image = result["image"]
    assert image["argv"] == ["/bin/app", "/bin/sh"]
    assert (image["user"], image["uid"], image["gid"], image["groups"]) == ("app", 1000, 1000, [50])  # fmt: skip
    assert image["home"] == "/"
    report = result["report"]
    assert (report["entries"], report["files"], report["whiteouts"]) == (7, 4, 1)
    assert report["counts"] == {"whiteouts_of_nothing": 1}
    assert result["warnings"] == []
    json.dumps(result)


def test_a_run_that_changes_nothing_opens_no_layer(dest: Path, one: str, sources: list[Watched]) -> None:
    """Section 7: it reads the documents and the record."""
    layers = {layer.path for layer in ONE.layers}
    first = run(dest, src=one)
    assert layers <= set(sources[0].reads)
    before = everything(dest.parent)
    for check_mode in (False, True, False):
        again = run(dest, src=one, check_mode=check_mode)
        assert again["changed"] is False
        # the same facts, from the record
        for result in (first, again):
            result.pop("changed", None)
            result.pop("diff", None)
        assert again == first
    for source in sources[1:]:
        assert source.reads
        assert not layers & set(source.reads)
    # nothing was written; the folder's own time shows only that it was looked for leftovers
    assert everything(dest).items() <= before.items()


@pytest.mark.parametrize("form", ["archive", "directory", "docker", "old docker"])
def test_a_run_that_changes_nothing_costs_the_same_whatever_the_image(
    tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Section 7: the bytes read do not grow with layers."""
    read: list[int] = []
    real = range_reader.FileAccess.read_at

    def read_at(self: t.Any, offset: int, count: int) -> bytes:
        data = real(self, offset, count)
        read.append(len(data))
        return data

    monkeypatch.setattr(range_reader.FileAccess, "read_at", read_at)
    costs = []
    for size in (1000, 4_000_000):
        noise = os.urandom(size)
        image = Image([Layer(file("noise", noise), compression="none")])
        src = str(tmp_path / str(size))
        if form == "directory":
            write_layout(src, image)
        elif form == "archive":
            write_oci_archive(src, image)
        else:
            write_docker_archive(src, image, style="old" if form == "old docker" else "new")  # fmt: skip
        run(dest, src=src)
        del read[:]
        assert run(dest, src=src)["changed"] is False
        costs.append(sum(read))
    assert 0 < costs[1] < costs[0] + 3000
    assert costs[1] < 100_000


def test_the_same_facts_for_every_form_of_source(tmp_path: Path, dest: Path) -> None:
    """Section 1; one image is one image, whatever holds it."""
    sources = {
        "archive": write_oci_archive(tmp_path / "a.tar", ONE),
        "compressed": write_oci_archive(tmp_path / "a.tar.gz", ONE, compression="gzip"),
        "layout": write_layout(tmp_path / "layout", ONE),
        "docker": write_docker_archive(tmp_path / "d.tar", ONE, repo_tags=[["demo:1"]]),
    }
    digests = set()
    for form, src in sources.items():
        result = run(dest, src=src)
        digests.add((result["manifest_digest"], result["config_digest"]))
        assert result["changed"] is (form == "archive")
    assert digests == {(ONE.manifest_digest, ONE.config_digest)}


def test_an_old_docker_archive_has_no_manifest(tmp_path: Path, dest: Path) -> None:
    """Section 1: the config's digest is its identity, and that of a layer its diff_id."""
    src = write_docker_archive(tmp_path / "d.tar", ONE, style="old")
    result = run(dest, src=src)
    assert result["manifest_digest"] is None
    assert result["config_digest"] == ONE.config_digest
    assert [layer["digest"] for layer in result["layers"]] == ONE.diff_ids
    again = run(dest, src=src)
    assert (again["changed"], again["layers"]) == (False, result["layers"])


@pytest.mark.parametrize("compression", ["gzip", "zstd-stored"])
def test_an_archive_compressed_as_a_whole(tmp_path: Path, dest: Path, compression: t.Any) -> None:
    """Section 1: unpacked through a nameless file; nothing of it stays."""
    src = write_oci_archive(tmp_path / "a", ONE, compression=compression)
    assert run(dest, src=src, check_mode=True)["changed"] is True
    assert os.listdir(dest.parent) == []
    assert run(dest, src=src)["changed"] is True
    assert contents(dest)["bin/app"] == b"one"
    assert sorted(os.listdir(dest)) == ["bin", "data", "etc"]
    assert os.listdir(beside_of(dest)) == ["record.json"]
    assert run(dest, src=src)["changed"] is False


def test_the_ref_is_todays(tmp_path: Path, dest: Path, one: str) -> None:
    """The same image may go by another name: nothing changes but what is said of it."""
    assert run(dest, src=one)["ref"] == "demo:1"
    renamed = write_oci_archive(tmp_path / "renamed.tar", ONE.listed(ref="other:9"))
    result = run(dest, src=renamed)
    assert (result["changed"], result["ref"]) == (False, "other:9")


# -- the fingerprint

CHANGES_THE_TREE: list[dict[str, t.Any]] = [
    {"devices": "fail"},
    {"xattrs": ["trusted.a"]},
    {"acl": "drop"},
    {"keep_dirlinks": True},
]
CHANGES_NOTHING: list[dict[str, t.Any]] = [
    {"keep": 5},
    {"lock_timeout": 9},
    {"force": True},
    {"in_use": "ignore"},
    {"max_size": 10**9},
    {"max_entries": 10**5},
    {"ref": "demo:1"},
    {"ref": "docker.io/library/demo:1"},
    {"digest": ONE.manifest_digest},
    {"digest": ONE.config_digest},
    {"platform": "linux/x86_64"},
    {"xattrs": []},
    {"state": "staged"},
]


@pytest.mark.parametrize("changes", CHANGES_THE_TREE)
def test_options_that_change_the_tree(dest: Path, one: str, changes: dict[str, t.Any]) -> None:
    """Section 7, fingerprint."""
    run(dest, src=one)
    for expected in (True, False):
        assert run(dest, src=one, check_mode=True, **changes)["changed"] is expected
        assert run(dest, src=one, **changes)["changed"] is expected
    assert run(dest, src=one)["changed"] is True


@needs_root
@pytest.mark.parametrize(
    "changes",
    [{"ownership": "ignore"}, {"devices": "create"}, {"uid_map": ["0:1000:2000"], "gid_map": ["0:1000:2000"]}],
)
def test_options_of_root_that_change_the_tree(dest: Path, one: str, changes: dict[str, t.Any]) -> None:
    run(dest, src=one)
    for expected in (True, False):
        assert run(dest, src=one, **changes)["changed"] is expected


@needs_root
def test_the_same_map_in_another_order_is_the_same(dest: Path, one: str) -> None:
    ranges = ["0:1000:1000", "1000:9000:1000"]
    maps: dict[str, t.Any] = {"uid_map": ranges, "gid_map": ranges}
    run(dest, src=one, xattrs=["trusted.a", "trusted.b"], **maps)
    turned: dict[str, t.Any] = {key: value[::-1] for key, value in maps.items()}
    result = run(dest, src=one, xattrs=["trusted.b", "trusted.a"], **turned)
    assert result["changed"] is False


@pytest.mark.parametrize("changes", CHANGES_NOTHING)
def test_options_that_change_nothing(dest: Path, one: str, changes: dict[str, t.Any]) -> None:
    """Section 7: ``force`` changes nothing where the fingerprint matches."""
    run(dest, src=one)
    before = everything(dest)
    assert run(dest, src=one, **changes)["changed"] is False
    assert everything(dest) == before


def test_recreate_always_makes_the_tree_anew(dest: Path, one: str) -> None:
    """Section 7; in check mode it says so."""
    run(dest, src=one)
    inode = dest.stat().st_ino
    assert run(dest, src=one, recreate=True, check_mode=True)["changed"] is True
    assert dest.stat().st_ino == inode
    assert run(dest, src=one, recreate=True)["changed"] is True
    assert dest.stat().st_ino != inode
    assert run(dest, src=one)["changed"] is False


def test_what_a_container_writes_changes_nothing(dest: Path, one: str) -> None:
    """Section 7: the record lies beside the tree, which belongs to the container."""
    run(dest, src=one)
    (dest / "written").write_bytes(b"x")
    (dest / "bin/app").unlink()
    os.chmod(dest, 0o700)
    result = run(dest, src=one)
    assert result["changed"] is False
    assert result["image"]["uid"] == 1000
    assert (dest / "written").exists()


# -- a tree that is not the one that was made


def _deleted(dest: Path) -> None:
    remove_below(dest.parent, dest)


def _emptied(dest: Path) -> None:
    remove_below(dest.parent, dest)
    dest.mkdir()


def test_a_tree_that_was_deleted(dest: Path, one: str) -> None:
    """Section 7, fingerprint: it does not pass, and needs no force."""
    for change in (_deleted, _emptied):
        run(dest, src=one)
        change(dest)
        assert run(dest, src=one, check_mode=True)["changed"] is True
        assert run(dest, src=one)["changed"] is True
        assert (dest / "bin/app").read_bytes() == b"one"
        assert run(dest, src=one)["changed"] is False


def _copied(dest: Path) -> None:
    shutil.copytree(dest, dest.parent / "copy", symlinks=True)
    remove_below(dest.parent, dest)
    os.rename(dest.parent / "copy", dest)


def _swapped(dest: Path) -> None:
    remove_below(dest.parent, dest)
    dest.mkdir()
    (dest / "f").touch()


def _rolled_back(dest: Path) -> None:
    """As a backup that keeps all xattrs gives it back."""
    _copied(dest)
    with contextlib.suppress(OSError):
        os.setxattr(dest, "trusted.hypervisor_oci", b"0" * 32)


@pytest.mark.parametrize("change", [_copied, _swapped, _rolled_back])
def test_a_tree_that_was_changed_as_a_whole(dest: Path, one: str, change: t.Callable[[Path], None]) -> None:
    """Section 7: never touched without force; what force replaces is kept."""
    run(dest, src=one)
    change(dest)
    before = contents(dest)
    for check_mode in (True, False):
        for state in ("present", "staged"):
            assert refused(dest, src=one, state=state, check_mode=check_mode) == (
                f"'{dest}' is not empty and was not made by this module (or was changed as a whole since);"
                " choose another dest, or set force: true to replace it"
            )
    for state in ("absent", "previous"):
        assert "is not empty and was not made by" in refused(dest, state=state)
    assert contents(dest) == before
    result = run(dest, src=one, force=True)
    assert result["changed"] is True
    (warning,) = result["warnings"]
    kept = warning.partition(" is kept in ")[2].partition(";")[0]
    assert contents(Path(kept)) == before
    assert run(dest, src=one)["changed"] is False


def test_an_empty_dest_is_nobodys(dest: Path, one: str) -> None:
    dest.mkdir(0o777)
    os.chmod(dest, 0o777)
    result = run(dest, src=one)
    assert (result["changed"], result["warnings"]) == (True, [])
    assert os.listdir(beside_of(dest)) == ["record.json"]
    assert tree(dest)["."].mode == 0o755


# -- replacing


def test_an_update(dest: Path, one: str, two: str) -> None:
    run(dest, src=one)
    (dest / "written").touch()
    inode = dest.stat().st_ino
    result = run(dest, src=two)
    assert result["changed"] is True
    assert contents(dest)["bin/app"] == b"two"
    assert not (dest / "written").exists()
    assert not (dest / "data/one").exists()
    assert dest.stat().st_ino != inode
    (old,) = [path for path in beside_of(dest).iterdir() if path.is_dir()]
    assert old.stat().st_ino == inode
    assert stat.S_IMODE(beside_of(dest).stat().st_mode) == 0o700


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_how_many_are_kept(dest: Path, one: str, two: str, keep: int) -> None:
    """Section 7, earlier trees."""
    for src in (one, two, one, two):
        run(dest, src=src, keep=keep)
    assert len([path for path in beside_of(dest).iterdir() if path.is_dir()]) == keep


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_fewer_are_kept_when_nothing_else_changes(dest: Path, one: str, two: str, keep: int) -> None:
    """Section 7, earlier trees: what is to be kept no longer goes at the next run, but not in check mode."""

    def kept() -> int:
        return len([path for path in beside_of(dest).iterdir() if path.is_dir()])

    for src in (one, two, one):
        run(dest, src=src, keep=2)
    assert run(dest, src=one, keep=keep, check_mode=True)["changed"] is False
    assert kept() == 2
    assert run(dest, src=one, keep=keep)["changed"] is False
    assert kept() == keep
    assert contents(dest)["bin/app"] == b"one"


def test_previous(dest: Path, one: str, two: str) -> None:
    """Section 7: ``state: previous`` exchanges back, and gives the facts of that tree."""
    first = run(dest, src=one)
    run(dest, src=two)
    assert run(dest, state="previous", check_mode=True)["changed"] is True
    assert contents(dest)["bin/app"] == b"two"
    result = run(dest, state="previous")
    assert (result["changed"], result["ref"]) == (True, "demo:1")
    for key in ("manifest_digest", "config_digest", "layers", "image", "report", "platform"):  # fmt: skip
        assert result[key] == first[key]
    assert contents(dest)["bin/app"] == b"one"
    assert run(dest, src=one)["changed"] is False
    assert run(dest, state="previous")["manifest_digest"] == TWO.manifest_digest
    assert contents(dest)["bin/app"] == b"two"


def test_no_previous(dest: Path, one: str) -> None:
    message = f"no earlier tree of '{dest}' is kept; set keep to more than 0 before the next update"
    assert refused(dest, state="previous") == message
    assert os.listdir(dest.parent) == []
    run(dest, src=one)
    assert refused(dest, state="previous") == message
    elsewhere = dest.parent / "not" / "there"
    assert "no earlier tree" in refused(elsewhere, state="previous")
    assert not elsewhere.parent.exists()


# -- staged


def test_staged_and_then_present(dest: Path, one: str, two: str, sources: list[Watched]) -> None:
    """Section 7: stops after the tree is whole; the next present only exchanges."""
    run(dest, src=one)
    before = everything(dest)
    staged = run(dest, src=two, state="staged")
    assert staged["changed"] is True
    assert staged["image"]["uid"] == 1000
    assert everything(dest) == before
    again = run(dest, src=two, state="staged")
    assert again["changed"] is False
    for key in ("manifest_digest", "image", "report", "layers"):
        assert again[key] == staged[key]
    # a check predicts, and sees what is staged
    check = run(dest, src=two, check_mode=True)
    assert (check["changed"], check["report"]) == (True, staged["report"])
    del sources[:]
    result = run(dest, src=two)
    assert (result["changed"], result["report"]) == (True, staged["report"])
    assert not {layer.path for layer in TWO.layers} & set(sources[0].reads)
    assert contents(dest)["bin/app"] == b"two"
    assert run(dest, src=two)["changed"] is False


@pytest.mark.parametrize("changes", [{}, {"keep_dirlinks": True}, {"recreate": True}], ids=str)
def test_a_staged_tree_for_something_else(dest: Path, one: str, two: str, changes: dict[str, t.Any]) -> None:
    """Section 7: it is removed."""
    run(dest, src=one, keep=0)
    run(dest, src=two, state="staged", keep=0)
    src = two if changes else one
    result = run(dest, src=src, keep=0, **changes)
    assert result["changed"] is bool(changes)
    assert os.listdir(beside_of(dest)) == ["record.json"]
    assert contents(dest)["bin/app"] == (b"two" if changes else b"one")


def test_staged_on_the_first_run(dest: Path, one: str) -> None:
    assert run(dest, src=one, state="staged")["changed"] is True
    assert not dest.exists()
    assert run(dest, src=one, state="staged")["changed"] is False
    assert run(dest, src=one)["changed"] is True
    assert contents(dest)["bin/app"] == b"one"


# -- absent


def test_absent(dest: Path, one: str, two: str) -> None:
    """Section 7: the tree, the record, and what is left beside it; and then nothing more."""
    run(dest, src=one)
    run(dest, src=two)
    run(dest, src=one, state="staged")
    before = everything(dest.parent)
    check = run(dest, state="absent", check_mode=True)
    assert (check["changed"], check["warnings"]) == (True, [])
    assert everything(dest.parent) == before
    result = run(dest, state="absent")
    assert result["changed"] is True
    assert (result["dest"], result["diff"]["after"]) == (str(dest), {})
    assert result["diff"]["before"]["manifest_digest"] == TWO.manifest_digest
    assert os.listdir(dest.parent) == []
    for check_mode in (True, False):
        assert run(dest, state="absent", check_mode=check_mode)["changed"] is False
    assert os.listdir(dest.parent) == []


def test_absent_where_nothing_is(tmp_path: Path) -> None:
    """Nothing is made above a dest that is to be absent."""
    for path in ("x", "a/b/c"):
        assert run(tmp_path / path, state="absent")["changed"] is False
    assert os.listdir(tmp_path) == []


def test_absent_and_foreign_trees(dest: Path, one: str) -> None:
    """Section 7: what force put aside stays, unless force is given again."""
    dest.mkdir()
    (dest / "foreign").touch()
    run(dest, src=one, force=True)
    result = run(dest, state="absent")
    (warning,) = result["warnings"]
    kept = warning.partition(" is kept in ")[2].partition(";")[0]
    assert os.listdir(kept) == ["foreign"]
    assert run(dest, state="absent")["changed"] is False
    assert run(dest, state="absent", force=True, check_mode=True)["changed"] is True
    assert run(dest, state="absent", force=True)["changed"] is True
    assert os.listdir(dest.parent) == []


def test_absent_of_a_foreign_tree(dest: Path) -> None:
    dest.mkdir()
    (dest / "foreign").touch()
    assert "set force: true" in refused(dest, state="absent")
    assert run(dest, state="absent", force=True)["changed"] is True
    assert os.listdir(dest.parent) == []


# -- errors: one sentence, and nothing left at or beside dest

GOOD = Layer(file("good", b"x"))
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
    "a capability that is none": (
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
            assert os.listdir(beside_of(dest)) == ["record.json"]
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
    assert os.listdir(beside_of(dest)) == ["record.json"]
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


def test_not_enough_room(dest: Path, one: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 7, free space: what is known to be needed, before anything is written."""
    needed = max(layer.size for layer in ONE.layers)

    def statvfs(free: int) -> t.Any:
        return os.statvfs_result((512, 1, 9, 9, free, 9, 9, 9, 0, 255))

    for free in (0, needed - 1):
        monkeypatch.setattr(os, "fstatvfs", lambda _fd, it=free: statvfs(it))
        for check_mode in (True, False):
            assert refused(dest, src=one, check_mode=check_mode) == (
                f"the image needs at least {needed} bytes, and the file system of '{dest}' has {free} free;"
                " make room there and run again"
            )
        assert os.listdir(dest.parent) == []
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: statvfs(needed))
    assert run(dest, src=one)["changed"] is True
    # a run that changes nothing needs none
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: statvfs(0))
    assert run(dest, src=one)["changed"] is False


def test_room_for_an_archive_that_must_be_spooled(tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 7: and the archive's decompressed size."""
    src = write_oci_archive(tmp_path / "a.gz", ONE, compression="gzip")
    plain = os.stat(write_oci_archive(tmp_path / "a", ONE)).st_size
    result = os.statvfs_result((512, 1, 9, 9, plain, 9, 9, 9, 0, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: result)
    needed = plain + max(layer.size for layer in ONE.layers)
    assert f"the image needs at least {needed} bytes" in refused(dest, src=src)


def test_a_dest_that_is_none(tmp_path: Path, one: str) -> None:
    """Section 7."""
    os.symlink("guests", tmp_path / "link")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        for changes in ({"src": one}, {"state": "absent", "force": True}):
            assert refused(tmp_path / name, **changes) == (
                f"'{name}' is a link or a file, not a directory; remove it or choose another dest"
            )


def test_another_run_at_work(dest: Path, one: str) -> None:
    """Section 7, two runs on one dest."""
    with lock_dest(resolve_dest(str(dest)), 5.0, 0o700, False):
        for changes in ({"src": one}, {"state": "absent"}, {"state": "previous"}):
            assert refused(dest, lock_timeout=0, **changes) == (
                f"another run works on '{dest}' and was not done after 0 seconds;" " wait for it or raise lock_timeout"
            )


def test_a_tree_in_use(dest: Path, one: str, two: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 7, in use: before anything is exchanged or removed, and in check mode too."""
    run(dest, src=one)

    def used(_fd: int, path: str) -> None:
        raise RootfsError(f"{path} in use")

    monkeypatch.setattr(in_use, "require_unused", used)
    for check_mode in (True, False):
        for changes in ({"src": two}, {"state": "absent"}):
            assert "in use" in refused(dest, check_mode=check_mode, **changes)
    assert contents(dest)["bin/app"] == b"one"
    # what changes nothing, or only stages, may go on
    assert run(dest, src=one)["changed"] is False
    assert run(dest, src=two, state="staged")["changed"] is True
    assert run(dest, src=two, in_use="ignore")["changed"] is True
    assert run(dest, state="absent", in_use="ignore")["changed"] is True
    assert os.listdir(dest.parent) == []


def test_a_process_in_the_tree(dest: Path, one: str, two: str) -> None:
    """Section 7, in use: an error that lists it; ``in_use: ignore`` goes on."""
    run(dest, src=one)
    script = "print('ready', flush=True); import sys; sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=dest / "data"
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for changes in ({"src": two}, {"state": "absent"}):
            message = refused(dest, **changes)
            assert message.startswith(f"'{dest}' is in use by process {process.pid} (")
            assert message.endswith(") with its working directory; stop what uses it, or set in_use: ignore")
        assert contents(dest)["bin/app"] == b"one"
        assert run(dest, src=two, in_use="ignore", keep=0)["changed"] is True
    finally:
        process.communicate("")
    assert contents(dest)["bin/app"] == b"two"
    assert os.listdir(beside_of(dest)) == ["record.json"]


@needs_root
def test_removal_stays_on_its_mount_whatever_is_ignored(dest: Path, one: str, two: str) -> None:
    """Section 7, in use."""
    run(dest, src=one)
    with mounted(dest / "data"):
        (dest / "data/precious").touch()
        for changes in ({"src": two}, {"state": "absent"}):
            message = refused(dest, **changes)
            assert f"is in use by a mount at '{dest}/data';" in message
        before = everything(dest.parent)
        message = refused(dest, state="absent", in_use="ignore")
        assert message == (
            f"'{dest}' cannot be replaced or removed with a mount at '{dest}/data' in it; unmount that and run again"
        )
        assert everything(dest.parent) == before
        assert (dest / "data/precious").exists()
    assert run(dest, state="absent")["changed"]


@needs_root
def test_what_cannot_be_removed_stops_nothing(dest: Path, one: str, two: str) -> None:
    """Section 7: a mount in the old tree is named by its full path, run for run, until it is gone."""
    run(dest, src=one)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "test", str(dest / "data")], check=False)
    if done.returncode:
        pytest.skip("nothing can be mounted here")
    (dest / "data/precious").touch()
    point = dest / "data"
    try:
        result = run(dest, src=two, in_use="ignore", keep=0)
        (name,) = set(os.listdir(beside_of(dest))) - {"record.json"}
        old = beside_of(dest) / name
        point = old / "data"
        expected = (
            f"'{old}' is no longer needed, but could not be removed completely: '{point}' (a mount point);"
            " unmount it; the next run tries again"
        )
        assert (result["changed"], result["warnings"]) == (True, [expected])
        assert contents(dest)["bin/app"] == b"two"
        assert names(old) == ["data", "data/precious"]
        # the mount is a use of the old tree, which is then left alone
        used = expected.replace(
            f"'{point}' (a mount point); unmount it;",
            f"'{old}' is in use by a mount at '{point}'; stop what uses it, or set in_use: ignore;",
        )
        for in_use_, warning in (("fail", used), ("ignore", expected)):
            result = run(dest, src=two, keep=0, in_use=in_use_)
            assert (result["changed"], result["warnings"]) == (False, [warning])
            result = run(dest, src=one, keep=0, in_use=in_use_)
            assert (result["changed"], result["warnings"]) == (True, [warning])
            run(dest, src=two, keep=0, in_use=in_use_)
        for changed in (True, False):
            result = run(dest, state="absent")
            assert (result["changed"], result["warnings"]) == (changed, [used])
            assert os.listdir(dest.parent) == [beside_of(dest).name]
        result = run(dest, src=one)
        assert (result["changed"], result["warnings"]) == (True, [used])
        assert (point / "precious").exists()
    finally:
        subprocess.run(["umount", str(point)], check=True)
    result = run(dest, src=one)
    assert (result["changed"], result["warnings"]) == (False, [])
    assert os.listdir(beside_of(dest)) == ["record.json"]


@needs_root
@pytest.mark.parametrize("attribute", ["+i", "+a"])
def test_a_container_cannot_keep_its_tree_by_attributes(dest: Path, one: str, two: str, attribute: str) -> None:
    """Section 7: neither an update nor a removal fails for them, of files, directories or the tree itself."""
    run(dest, src=one)
    try:
        for state in ({"src": two}, {"src": one, "keep": 0}, {"state": "absent"}):
            for name in ("bin/app", "bin", "."):
                done = subprocess.run(["chattr", attribute, str(dest / name)], check=False, capture_output=True)
                if done.returncode:
                    pytest.skip("this file system has no attributes")
            result = run(dest, **state)
            assert (result["changed"], result["warnings"]) == (True, [])
    finally:
        subprocess.run(["chattr", "-R", "-f", "-ia", str(dest.parent)], check=False)
    assert os.listdir(dest.parent) == []


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


# -- stopped on the way


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
        assert os.listdir(beside_of(dest)) == ["record.json"]
    assert tree(dest) == before
    assert run(dest, src=one)["changed"] is False


# -- check mode


def test_check_mode_writes_nothing(tmp_path: Path, dest: Path, one: str, two: str) -> None:
    """Section 8: nothing at all, and predicts ``changed``."""

    def check(expected: bool, **changes: t.Any) -> dict[str, t.Any]:
        before = everything(tmp_path)
        result = run(dest, check_mode=True, **changes)
        assert everything(tmp_path) == before
        assert result["changed"] is expected
        return result

    predicted = check(True, src=one)
    check(True, src=one, state="staged")
    check(False, state="absent")
    made = run(dest, src=one)
    for key in ("manifest_digest", "config_digest", "ref", "platform", "layers", "dest"):
        assert predicted[key] == made[key]
    assert predicted["report"] is None
    unknown = {"uid": None, "gid": None, "groups": None, "home": None}
    assert predicted["image"] == {**made["image"], **unknown}
    assert predicted["diff"]["before"] == {}
    check(False, src=one)
    check(True, src=two)
    check(True, state="absent")
    run(dest, src=two, state="staged")
    check(False, src=two, state="staged")
    check(True, src=one, state="staged", recreate=True)
    check(True, src=two)
    check(False, src=one)
    run(dest, src=two)
    check(True, state="previous")
    missing = tmp_path / "not" / "there"
    assert run(missing, check_mode=True, src=one)["changed"] is True
    assert not missing.parent.exists()


def test_check_mode_after_a_crash(
    tmp_path: Path, dest: Path, one: str, two: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run that was killed left is seen, and left alone."""
    run(dest, src=one)

    def killed(*_arguments: t.Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(beside.ExchangedDest, "_exchanged", killed)
        patched.setattr(beside.ExchangedDest, "abandon", killed)
        with pytest.raises(KeyboardInterrupt):
            run(dest, src=two)
    before = everything(tmp_path)
    assert run(dest, src=two, check_mode=True)["changed"] is False
    assert run(dest, src=one, check_mode=True)["changed"] is True
    assert everything(tmp_path) == before
    assert run(dest, src=two)["changed"] is False
    assert run(dest, state="previous")["manifest_digest"] == ONE.manifest_digest


# -- the result


def test_the_diff(dest: Path, one: str, two: str) -> None:
    """Section 8: digests, layers, and the config fields that differ."""
    run(dest, src=one)
    for check_mode in (True, False):
        diff = run(dest, src=two, check_mode=check_mode)["diff"]
        assert diff["before_header"] == f"{dest} (before)"
        assert diff["after_header"] == f"{dest} (after)"
        # a value may be a secret of the image: its name, and that it changed
        shown = {"before": "********", "after": "******** (changed)"}
        for side, image in (("before", ONE), ("after", TWO)):
            assert diff[side] == {
                "manifest_digest": image.manifest_digest,
                "config_digest": image.config_digest,
                "platform": "linux/amd64",
                "layers": [image.layers[1].digest],
                "image": {"env": {"A": shown[side]}},
            }
    diff = run(dest, src=two)["diff"]
    assert diff["before"] == diff["after"]
    assert (diff["after"]["layers"], diff["after"]["image"]) == ([], {})


def test_the_diff_of_a_first_run(dest: Path, one: str) -> None:
    diff = run(dest, src=one)["diff"]
    assert diff["before"] == {}
    assert diff["after"]["layers"] == [layer.digest for layer in ONE.layers]
    assert diff["after"]["image"]["user"] == "app"
    assert "uid" not in diff["after"]["image"]


def test_a_user_that_is_not_there(tmp_path: Path, dest: Path) -> None:
    """Section 8: null with a warning, on every run."""
    src = archive(tmp_path, GOOD, config={"User": "nobody"})
    for changed in (True, False):
        result = run(dest, src=src)
        assert result["changed"] is changed
        image = result["image"]
        assert (image["user"], image["uid"], image["gid"], image["groups"]) == ("nobody", None, None, None)  # fmt: skip
        assert result["warnings"] == [
            "the image's user 'nobody' is not in its /etc/passwd;" " choose another user before you start a container"
        ]


# -- who can reach it


@pytest.mark.parametrize(
    ("maps", "mode"),
    [({}, 0o700), pytest.param({"uid_map": ["0:1000:9"], "gid_map": ["0:1000:9"]}, 0o710, marks=needs_root)],
)
def test_the_folder_above_dest(tmp_path: Path, maps: dict[str, t.Any], mode: int) -> None:
    """Section 7: 0700 where the module makes it, or 0710 with an id map."""
    src = archive(tmp_path, GOOD)
    run(tmp_path / "a/b/c", src=src, **maps)
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755
    (tmp_path / "own").mkdir(0o755)
    os.chmod(tmp_path / "own", 0o751)
    run(tmp_path / "own/c", src=src, **maps)
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o751


# -- odds and ends


@needs_user
def test_an_ordinary_user(dest: Path, one: str) -> None:
    """Section 6: everything is his own, and all states work."""
    run(dest, src=one)
    assert {node.uid for node in tree(dest).values()} == {os.geteuid()}
    closed = Image([Layer(directory(".", 0o555), directory("d", 0o500), file("d/f", mode=0o400))])  # fmt: skip
    src = write_oci_archive(dest.parent / "closed.tar", closed)
    for _time in range(2):
        assert run(dest, src=src)["changed"] is True
        assert run(dest, src=src)["changed"] is False
        assert run(dest, src=one)["changed"] is True
        assert run(dest, state="previous")["changed"] is True
        assert tree(dest)["."].mode == 0o555
        run(dest, src=one)
    assert run(dest, state="absent")["changed"] is True
    assert os.listdir(dest.parent) == ["closed.tar"]


@needs_root
def test_owners_in_the_tree(dest: Path, one: str) -> None:
    """Section 6: id maps reach everything, also the root that no entry speaks of."""
    run(dest, src=one, uid_map=["0:100000:2000"], gid_map=["0:200000:2000"])
    owners = {(node.uid, node.gid) for node in tree(dest).values()}
    assert owners == {(100000, 200000)}
    assert IS_ROOT


def test_a_missing_source_touches_nothing(dest: Path, one: str) -> None:
    run(dest, src=one)
    before = everything(dest.parent)
    assert "missing.tar" in refused(dest, src=str(dest.parent / "missing.tar"))
    assert everything(dest.parent) == before


def test_a_source_that_changes_on_the_way(tmp_path: Path, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that is shortened while it is read is an error, not half a tree."""
    content = os.urandom(8 * 1024 * 1024)
    src = archive(tmp_path, Layer(file("f", content), compression="none"))
    real = os.write

    def write(fd: int, data: bytes) -> int:
        os.truncate(src, 20_000)
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    message = refused(dest, src=src)
    assert message == (f"'{src}' became shorter while it was read; run again when the file is complete")
    assert os.listdir(dest.parent) == []


def test_layer_errors_name_the_layer(tmp_path: Path, dest: Path) -> None:
    bad = Layer(file("a"), hardlink("h", "h"))
    with pytest.raises(LayerError) as caught:
        run(dest, src=archive(tmp_path, GOOD, bad))
    assert (caught.value.layer, caught.value.entry) == (bad.digest, b"h")
