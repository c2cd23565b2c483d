# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trees that share layers, on a real btrfs, and as overlays on a real ext4 (docs/behaviour.md, section 16)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError, RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._dest import exchange
from ansible_collections.hypervisor.oci.plugins.module_utils._fs import btrfs, overlay
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.descriptors import opened
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.stack import opened_tree
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import node_source
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.plugins.module_utils._store import references, store
from ansible_collections.hypervisor.oci.plugins.module_utils._store.driver import driver_of
from ansible_collections.hypervisor.oci.plugins.module_utils._store.store import Store, remove_tree
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    directory,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
    write_docker_archive,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import beside_of, refused
from ansible_collections.hypervisor.oci.tests.unit.support import (
    Watched,
    command,
    loop_mounted,
    mounted,
    needs_root,
    run,
    tree,
    watched,
    without_waiting,
)

pytestmark = needs_root

_BASE = (
    directory("etc", 0o755, mtime=5),
    file("etc/passwd", "app:x:1000:1000::/:\n"),
    file("bin/su", b"su", 0o4755),
    hardlink("bin/other", "bin/su"),
    directory("d/e", 0o2775, gid=50, mtime=7),
    file("d/e/f", b"f"),
    symlink("link", "d"),
)
_MIDDLE = (file("link/e/new", b"new"), whiteout("bin/other"), file("etc/more", b"m"))
_TOP = (opaque("d/e"), file("d/e/last", b"last"), file("app", b"1"))
BASE, MIDDLE, TOP = (Layer(*members) for members in (_BASE, _MIDDLE, _TOP))
OTHER_TOP = Layer(file("app", b"2"))
ONE = Image([BASE, MIDDLE, TOP], {"User": "app"})
TWO = Image([BASE, MIDDLE, OTHER_TOP], {"User": "app"})


FILE_SYSTEMS = {"btrfs": "btrfs", "overlay": "ext4"}


class Lab(t.NamedTuple):
    """A file system with a folder for trees and one for the store, its driver, and all sources that were opened."""

    folder: Path
    sources: list[Watched]
    driver: str

    def run(self, name: str, src: str, check_mode: bool = False, **options: t.Any) -> dict[str, t.Any]:
        """Run with the store."""
        self.sources.clear()
        return run(self.folder / "guests" / name, check_mode, src=src, store_dir=str(self.folder / "store"), **options)

    def layers_read(self, image: Image) -> list[int]:
        """The places of the layers that the last run read."""
        read = {name for source in self.sources for name in source.reads}
        return [place for place, layer in enumerate(image.layers) if layer.path in read]

    def dest(self, name: str) -> Path:
        """Where a tree is."""
        return self.folder / "guests" / name

    @contextlib.contextmanager
    def seen(self, name: str, writing: bool = False) -> t.Iterator[Path]:
        """A tree as its container sees it."""
        with contextlib.ExitStack() as stack:
            fd = stack.enter_context(opened(os.open(self.dest(name), os.O_RDONLY)))
            root = stack.enter_context(opened_tree(fd, name, writing))
            yield Path(f"/proc/self/fd/{root}")

    def tree(self, name: str) -> dict[str, t.Any]:
        """What a container sees in a tree."""
        with self.seen(name) as path:
            return dict(tree(f"{path}/."))

    def content(self, name: str, path: str) -> bytes:
        """The content of a file as the container sees it."""
        with self.seen(name) as top:
            return (top / path).read_bytes()

    def beside(self, name: str) -> list[str]:
        """What lies beside a tree, without the list of stacks."""
        return sorted(set(os.listdir(beside_of(self.dest(name)))) - {"stacks"})

    def stored(self) -> list[str]:
        """The names of snapshots."""
        return sorted(os.listdir(self.folder / "store/s"))

    def leaves_nothing(self) -> None:
        """Require that no draft is left, and that each snapshot has its record."""
        assert os.listdir(self.folder / "store/w") == []
        records = [name for name in os.listdir(self.folder / "store/r") if name.endswith(".json")]
        assert len(records) == len(self.stored())


@pytest.fixture(name="lab", params=["btrfs", "overlay"])
def fixture_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> t.Iterator[Lab]:
    without_waiting(monkeypatch)
    sources: list[Watched] = []

    def opened(path: str, *_how: t.Any) -> Watched:
        sources.append(watched(open_source(path)))
        return sources[-1]

    monkeypatch.setattr(node_source, "open_source", opened)
    point = tmp_path / "disk"
    point.mkdir(0o700)
    with loop_mounted(point, tmp_path / "image", FILE_SYSTEMS[request.param]):
        (point / "guests").mkdir(0o700)
        yield Lab(point, sources, request.param)
        # subvolumes keep nothing from being unmounted


@pytest.fixture(name="one")
def fixture_one(tmp_path: Path) -> str:
    return write_oci_archive(tmp_path / "one.tar", ONE)


@pytest.fixture(name="two")
def fixture_two(tmp_path: Path) -> str:
    return write_oci_archive(tmp_path / "two.tar", TWO)


def without_store(result: dict[str, t.Any]) -> dict[str, t.Any]:
    return {key: value for key, value in result.items() if key not in ("store", "mount", "dest", "changed", "diff")}


def test_warm_is_cold_is_ordinary(lab: Lab, one: str) -> None:
    ordinary = run(lab.dest("ordinary"), src=one)
    cold = lab.run("cold", one)
    assert lab.layers_read(ONE) == [0, 1, 2]
    warm = lab.run("warm", one)
    assert lab.layers_read(ONE) == []
    assert (ordinary["store"], cold["store"], warm["store"]) == (None, lab.driver, lab.driver)
    assert without_store(cold) == without_store(warm) == without_store(ordinary)
    assert lab.tree("cold") == lab.tree("warm") == lab.tree("ordinary")
    lab.leaves_nothing()
    for name in ("cold", "warm"):
        assert lab.run(name, one)["changed"] is False
        assert lab.run(name, one, True)["changed"] is False
    assert len(lab.stored()) == 3


def test_an_update_reads_what_changed(lab: Lab, one: str, two: str) -> None:
    lab.run("web", one)
    assert lab.run("web", two)["changed"] is True
    assert lab.layers_read(TWO) == [2]
    assert lab.content("web", "app") == b"2"
    assert lab.run("web", one, state="staged")["changed"] is True
    assert lab.run("web", one)["changed"] is True
    assert lab.content("web", "app") == b"1"
    assert run(lab.dest("web"), state="previous")["store"] == lab.driver
    assert lab.content("web", "app") == b"2"
    assert run(lab.dest("web"), state="absent")["changed"] is True
    assert os.listdir(lab.folder / "guests") == []


def test_trees_do_not_see_each_other_s_changes(lab: Lab, one: str) -> None:
    lab.run("a", one)
    with lab.seen("a", writing=True) as top:
        (top / "app").write_bytes(b"changed")
        (top / "etc/new").touch()
    lab.run("b", one)
    assert lab.content("a", "app") == b"changed"
    assert lab.content("b", "app") == b"1"
    with lab.seen("b") as top:
        assert not (top / "etc/new").exists()


def test_a_hit_needs_proof(lab: Lab, one: str, tmp_path: Path) -> None:
    """A manifest that names a harmless blob with another image's diff_id gets what a cold node gives."""
    lab.run("a", one)
    harmless = Layer(file("nothing"))
    stealing = Image([harmless], config_document={"rootfs": {"type": "layers", "diff_ids": [BASE.diff_id]}})
    message = refused(
        lab.dest("b"), src=write_oci_archive(tmp_path / "s.tar", stealing), store_dir=str(lab.folder / "store")
    )
    assert "has the diff_id" in message
    assert not lab.dest("b").exists()
    lab.leaves_nothing()


def test_another_blob_of_the_same_layer_is_verified_once(lab: Lab, one: str, tmp_path: Path) -> None:
    lab.run("a", one)
    before = lab.stored()
    zipped = Image([Layer(*members, compression="zstd") for members in (_BASE, _MIDDLE, _TOP)], {"User": "app"})
    src = write_oci_archive(tmp_path / "z.tar", zipped)
    ordinary = run(lab.dest("ordinary"), src=src)["report"]
    assert lab.run("b", src)["report"] == ordinary
    assert lab.layers_read(zipped) == [0, 1, 2]
    assert lab.stored() == before
    assert lab.run("c", src)["report"] == ordinary
    assert lab.layers_read(zipped) == []
    assert lab.run("d", one)["report"] == run(lab.dest("other"), src=one)["report"]
    assert lab.tree("a") == lab.tree("b") == lab.tree("c")


def test_old_archives_prove_nothing_by_a_digest(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "old.tar"
    write_docker_archive(path, ONE, style="old", repo_tags=[["web:1"]])
    for name in ("a", "b"):
        assert lab.run(name, str(path))["changed"] is True
    assert len(lab.stored()) == 3
    assert lab.tree("a") == lab.tree("b")


def test_id_maps_have_snapshots_of_their_own(lab: Lab, one: str) -> None:
    lab.run("a", one)
    maps: dict[str, t.Any] = {"uid_map": ["0:100000:65536"], "gid_map": ["0:100000:65536"]}
    lab.run("b", one, **maps)
    assert lab.layers_read(ONE) == [0, 1, 2]
    with lab.seen("b") as top:
        assert (top / "app").stat().st_uid == 100000
    assert len(lab.stored()) == 6


def test_limits_are_judged_as_for_a_cold_node(lab: Lab, one: str) -> None:
    lab.run("a", one)
    options: dict[str, t.Any] = {"src": one, "store_dir": str(lab.folder / "store"), "max_entries": 9}
    assert refused(lab.dest("b"), **options) == refused(lab.dest("b"), src=one, max_entries=9)
    lab.leaves_nothing()


def test_another_form_is_a_change(lab: Lab, one: str) -> None:
    run(lab.dest("a"), src=one)
    for check_mode in (True, False):
        assert lab.run("a", one, check_mode)["changed"] is True
    assert lab.run("a", one)["changed"] is False
    for check_mode in (True, False):
        assert run(lab.dest("a"), check_mode, src=one)["changed"] is True
    assert run(lab.dest("a"), src=one)["store"] is None


def test_a_snapshot_in_the_place_of_dest_does_not_pass_for_it(lab: Lab, one: str) -> None:
    lab.run("a", one)
    dest = lab.dest("a")
    if lab.driver == "btrfs":
        command("btrfs", "subvolume", "snapshot", str(dest), str(lab.folder / "copy"))
    else:
        command("cp", "-a", str(dest), str(lab.folder / "copy"))
    os.rename(dest, lab.folder / "original")
    os.rename(lab.folder / "copy", dest)
    assert "is not empty and was not made by this module" in refused(dest, src=one, store_dir=str(lab.folder / "store"))


def test_what_an_administrator_has_set_is_carried_over(lab: Lab, one: str, two: str) -> None:
    """Limits and groups, properties and attributes of a subvolume."""
    if lab.driver != "btrfs":
        pytest.skip("speaks of subvolumes")
    lab.run("a", one)
    dest = str(lab.dest("a"))
    command("btrfs", "quota", "enable", str(lab.folder))
    command("btrfs", "qgroup", "create", "1/7", str(lab.folder))
    number = subvolume_number_at(dest)
    command("btrfs", "qgroup", "assign", "--no-rescan", f"0/{number}", "1/7", str(lab.folder))
    command("btrfs", "qgroup", "limit", "16M", dest)
    command("btrfs", "property", "set", dest, "compression", "zlib")
    command("chattr", "+A", dest)
    lab.run("a", two)
    assert subvolume_number_at(dest) != number
    told = subprocess.run(["btrfs", "qgroup", "show", "-rpf", dest], check=True, capture_output=True, text=True).stdout
    assert "16.00MiB" in told
    assert "1/7" in told
    assert os.getxattr(dest, "btrfs.compression") == b"zlib"
    assert "A" in subprocess.run(["lsattr", "-d", dest], check=True, capture_output=True, text=True).stdout.split()[0]
    (lab.dest("a") / "large").write_bytes(b"x")
    with pytest.raises(OSError, match="quota"), open(lab.dest("a") / "large", "wb") as large:
        for _part in range(24):
            large.write(os.urandom(1 << 20))
            large.flush()
            os.fdatasync(large.fileno())


def subvolume_number_at(path: str) -> int:
    with opened(os.open(path, os.O_RDONLY)) as fd:
        return btrfs.subvolume_number(fd)


def test_a_damaged_record_is_made_anew(lab: Lab, one: str) -> None:
    lab.run("a", one)
    for path in (lab.folder / "store/r").glob("*.json"):
        path.write_bytes(b"{")
    lab.run("b", one)
    assert lab.layers_read(ONE) == [0, 1, 2]
    assert lab.tree("a") == lab.tree("b")


def test_a_snapshot_that_is_gone_is_made_anew(lab: Lab, one: str) -> None:
    lab.run("a", one)
    with opened(os.open(lab.folder / "store/s", os.O_RDONLY)) as folder:
        for name in lab.stored():
            remove_tree(folder, name)
    lab.run("b", one)
    assert lab.layers_read(ONE) == [0, 1, 2]
    if lab.driver == "overlay":
        # it needs them, and says so
        with pytest.raises(
            RootfsError, match="no longer in its store .* provision its image again with recreate: true"
        ):
            lab.tree("a")
        lab.run("a", one, recreate=True)
    assert lab.tree("a") == lab.tree("b")


def test_a_layer_that_is_damaged_leaves_the_others(lab: Lab, one: str, tmp_path: Path) -> None:
    lab.run("a", one)
    bad = Image([BASE, MIDDLE, Layer(file("x"), edit_blob=lambda blob: blob[:-700])])
    before = lab.tree("a")
    with pytest.raises(OciError):
        lab.run("a", write_oci_archive(tmp_path / "bad.tar", bad))
    assert lab.tree("a") == before
    assert lab.beside("a") == ["record.json"]
    lab.leaves_nothing()


class TestCollection:
    """What no dest refers to goes after its time."""

    def test_what_is_needed_stays(self, lab: Lab, one: str, two: str) -> None:
        lab.run("a", one, store_max_age=0)
        lab.run("a", two, store_max_age=0, keep=1)
        assert len(lab.stored()) == 4
        lab.run("a", one, store_max_age=0, keep=0)
        lab.run("a", two, store_max_age=0, keep=0, recreate=True)
        assert len(lab.stored()) == 3
        lab.leaves_nothing()

    def test_what_is_young_stays(self, lab: Lab, one: str, two: str) -> None:
        lab.run("a", one)
        lab.run("a", two, keep=0)
        assert len(lab.stored()) == 4

    def test_a_dest_that_is_gone(self, lab: Lab, one: str, two: str) -> None:
        lab.run("a", one, store_max_age=0)
        lab.run("b", two, store_max_age=0)
        assert len(lab.stored()) == 4
        run(lab.dest("a"), state="absent")
        lab.run("b", two, store_max_age=0, recreate=True)
        assert len(lab.stored()) == 3

    def test_a_dest_whose_disk_is_not_there(self, lab: Lab, one: str, two: str) -> None:
        lab.run("a", one, store_max_age=0)
        os.rename(lab.folder / "guests", lab.folder / "elsewhere")
        (lab.folder / "guests").mkdir(0o700)
        with loop_mounted(lab.folder / "guests", lab.folder / "disk2", "btrfs"):
            (lab.folder / "more").mkdir(0o700)
            run(lab.folder / "more/b", src=two, store_dir=str(lab.folder / "store"), store_max_age=0)
            assert len(lab.stored()) == 4

    def test_leftovers_of_interrupted_runs(self, lab: Lab, one: str, two: str) -> None:
        lab.run("a", one, store_max_age=0)
        for folder in ("s", "w"):
            left = str(lab.folder / "store" / folder / "left")
            command(*(["btrfs", "subvolume", "create"] if lab.driver == "btrfs" else ["mkdir"]), left)
        (lab.folder / "store/r/x.json.new").touch()
        lab.run("a", two, store_max_age=0)
        lab.leaves_nothing()

    def test_nothing_while_another_run_uses_the_store(self, lab: Lab, one: str, two: str) -> None:
        lab.run("a", one, store_max_age=0)
        other = Store(str(lab.folder / "store"), driver_of(lab.driver))
        lab.run("a", two, store_max_age=0, keep=0)
        assert len(lab.stored()) == 4
        other.close()
        lab.run("a", two, store_max_age=0, keep=0, recreate=True)
        assert len(lab.stored()) == 3


def test_elsewhere_it_is_an_ordinary_tree(tmp_path: Path, one: str) -> None:
    (tmp_path / "guests").mkdir(0o700)
    (tmp_path / "other").mkdir(0o700)
    with mounted(tmp_path / "other", "-t", "tmpfs", "none"):
        result = run(tmp_path / "guests/a", src=one, store_dir=str(tmp_path / "other/store"))
        assert os.listdir(tmp_path / "other") == []
    assert result["store"] is None
    assert [text for text in result["warnings"] if "they do not lie on one file system" in text]


def test_a_store_that_others_can_change(lab: Lab, one: str) -> None:
    (lab.folder / "store").mkdir()
    os.chmod(lab.folder / "store", 0o777)
    assert "is refused: other users can change" in refused(lab.dest("a"), src=one, store_dir=str(lab.folder / "store"))


def test_a_store_in_dest(lab: Lab, one: str) -> None:
    assert "lie in each other" in refused(lab.dest("a"), src=one, store_dir=str(lab.dest("a") / "store"))


_STEPS = (
    (os, "rename"),
    (os, "unlink"),
    (btrfs.fcntl, "ioctl"),
    (exchange, "exchange"),
    (overlay, "_mount"),
    (os, "mkdir"),
    (references, "write_file"),
    (store, "write_file"),
)


def killed_at(step: int, act: t.Callable[[], object]) -> bool:
    """Kill a process before it takes this step that changes something; return false if it has no so many."""
    child = os.fork()
    if not child:
        taken = 0

        def counting(real: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
            def call(*arguments: t.Any, **named: t.Any) -> t.Any:
                nonlocal taken
                taken += 1
                if taken == step:
                    os._exit(3)
                return real(*arguments, **named)

            return call

        for place, name in _STEPS:
            setattr(place, name, counting(getattr(place, name)))
        try:
            act()
        finally:
            os._exit(0)
    status = os.WEXITSTATUS(os.waitpid(child, 0)[1])
    assert status in (0, 3)
    return status == 3


def test_killed_at_every_step(lab: Lab, one: str, two: str) -> None:
    """The tree is the old or the new one, whole; a rerun converges, and nothing is left once it has collected."""
    options: dict[str, t.Any] = {"store_max_age": 0, "keep": 0}
    run(lab.dest("ordinary"), src=two)
    expected = lab.tree("ordinary")
    step = 0
    while True:
        step += 1
        lab.run("web", one, **options)
        old = lab.tree("web")
        was_killed = killed_at(step, lambda: lab.run("web", two, **options))
        assert lab.tree("web") in (old, expected), step
        lab.run("web", two, **options)
        assert lab.tree("web") == expected, step
        lab.run("web", two, recreate=True, **options)
        lab.leaves_nothing()
        assert lab.beside("web") == ["record.json"], step
        if not was_killed:
            break
    assert step > 20


def test_drift(lab: Lab, one: str, two: str) -> None:
    """Section 17: each layer has its journal once, for all trees that share it; it goes with the snapshot."""
    for name, image in (("a", one), ("b", one), ("c", two)):
        lab.run(name, image)

    def journals() -> list[str]:
        return [name for name in os.listdir(lab.folder / "store/r") if name.endswith(".journal")]

    assert {name.partition(".")[0] for name in journals()} == set(lab.stored())
    assert not any(name.endswith(".journal") for name in os.listdir(beside_of(lab.dest("a"))))
    fresh = lab.tree("a")
    for name, image in (("a", one), ("b", one), ("c", two)):
        for level in ("metadata", "content"):
            drift = lab.run(name, image, verify=level)["drift"]
            assert (drift["verdict"], drift["suspects"]["count"]) == ("clean", 0), (name, level)
    with lab.seen("a", writing=True) as top:
        (top / "d/e/last").unlink()
        (top / "etc/passwd").write_bytes(b"APP:x:1000:1000::/:\n")
        (top / "app").chmod(0o4755)
    drift = lab.run("a", one, verify="content")["drift"]
    assert [item["path"] for item in drift["missing"]["files"]] == ["/d/e/last"]
    assert [item["path"] for item in drift["changed"]["files"]] == ["/app", "/etc/passwd"]
    assert lab.run("a", one, verify="content", repair="paths")["changed"] is True
    assert lab.tree("a") == fresh
    with lab.seen("a", writing=True) as top:
        (top / "app").unlink()
    assert lab.run("a", one, verify="metadata", repair="recreate")["changed"] is True
    assert lab.tree("a") == fresh
    lab.run("c", two, state="absent")
    run(lab.dest("b"), state="absent")
    lab.run("a", one, recreate=True, store_max_age=0)
    assert {name.partition(".")[0] for name in journals()} == set(lab.stored())
    # a store that has lost one
    os.unlink(lab.folder / "store/r" / journals()[0])
    assert lab.run("a", one, verify="metadata")["drift"]["verdict"] == "not verifiable"
