# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is told of a store, what is wrong with it, and what is removed (docs/behaviour.md, section 16), without a disk of its own.

The store's folders are written by hand: no file system has to share anything for that.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.budget import COUNTS
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.told import Told
from ansible_collections.hypervisor.oci.plugins.module_utils._store import contents, verify
from ansible_collections.hypervisor.oci.plugins.module_utils._store.chain import chain_ids, key_of
from ansible_collections.hypervisor.oci.plugins.module_utils._store.inspect import Inspected, Inspection, inspect_store
from ansible_collections.hypervisor.oci.plugins.module_utils._store.references import Reference
from ansible_collections.hypervisor.oci.plugins.module_utils._store.snapshot import Snapshot

OPTIONS = {"driver": "btrfs", "devices": "safe"}
DIFF_IDS = [f"sha256:{letter * 64}" for letter in "abc"]
DAY = 86_400


class Shop:
    """A store with three snapshots on each other, ``s0`` to ``s2``, and a reference to the two lower ones."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "store"
        self.guests = folder / "guests"
        self.guests.mkdir(0o700)
        self.path.mkdir(0o700)
        for name in contents.FOLDERS:
            (self.path / name).mkdir(0o700)
        (self.path / "d/lock").touch()
        for number in range(3):
            self.add(number)
        self.refer("web", ["s0", "s1"])

    def add(self, number: int, **changes: t.Any) -> Snapshot:
        """Write a snapshot, which was used ten days ago."""
        diff_id = DIFF_IDS[number]
        key = key_of(chain_ids(DIFF_IDS[: number + 1])[-1], OPTIONS)
        told = Told({}, dict.fromkeys(COUNTS, 10 * (number + 1)), {})
        parent = f"s{number - 1}" if number else ""
        made = replace(Snapshot(key, f"s{number}", parent, diff_id, (diff_id,), told, OPTIONS), **changes)
        (self.path / "s" / made.name).mkdir(exist_ok=True)
        self.record_of(number).write_bytes(made.to_json())
        self.age(number, 10)
        return made

    def record_of(self, number: int) -> Path:
        """The record of a snapshot."""
        return self.path / "r" / f"{key_of(chain_ids(DIFF_IDS[: number + 1])[-1], OPTIONS)}.json"

    def age(self, number: int, days: float) -> None:
        """Make a snapshot so old."""
        os.utime(self.record_of(number), (time.time() - days * DAY,) * 2)

    def refer(self, dest: str, names: t.Sequence[t.Any], is_there: bool = True) -> Path:
        """Write a reference of a dest; return its file."""
        state = self.guests / f".{dest}.oci_rootfs"
        if is_there:
            state.mkdir(0o700)
            (state / "record.json").write_text("{}")
            (self.guests / dest).mkdir()
        return self.write_reference(os.fspath(state / "record.json"), names=names)

    def write_reference(self, record: str, file: str = "", **values: t.Any) -> Path:
        """Write a reference; return its file."""
        path = self.path / "d" / (file or hashlib.sha256(os.fsencode(record)).hexdigest() + ".json")
        value = {"record": record, "snapshots": values.pop("names", []), **values}
        path.write_text(json.dumps(value))
        return path

    def inspect(self, check_mode: bool = False, **asked: t.Any) -> Inspected:
        """Inspect the store."""
        return inspect_store(Inspection(os.fspath(self.path), **asked), check_mode)

    def prune(self, check_mode: bool = False, **asked: t.Any) -> Inspected:
        """Remove what nobody needs."""
        return self.inspect(check_mode, prune=True, **asked)

    def names(self) -> list[str]:
        """The names of snapshots that are there."""
        return sorted(os.listdir(self.path / "s"))


@pytest.fixture(name="shop")
def fixture_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """See ``Shop``; its snapshots pass for read-only subvolumes."""
    monkeypatch.setattr(verify, "is_subvolume", lambda fd: True)
    monkeypatch.setattr(verify, "is_read_only_subvolume", lambda fd: True)
    return Shop(tmp_path)


def test_what_is_told(shop: Shop) -> None:
    found = shop.inspect()
    assert (found.changed, found.warnings) == (False, ())
    facts = found.facts
    assert (facts["exists"], facts["busy"], facts["store_dir"]) == (True, False, os.fspath(shop.path))
    assert [each["name"] for each in facts["snapshots"]] == ["s0", "s1", "s2"]
    assert [each["chain_id"] for each in facts["snapshots"]] == chain_ids(DIFF_IDS)
    assert [each["parent"] for each in facts["snapshots"]] == [None, "s0", "s1"]
    assert [each["tree_size"] for each in facts["snapshots"]] == [20, 40, 60]
    assert [each["layer_size"] for each in facts["snapshots"]] == [20, 20, 20]
    web = os.fspath(shop.guests / "web")
    assert [each["dests"] for each in facts["snapshots"]] == [[web], [web], []]
    assert facts["references"] == [
        {
            "dest": web,
            "record": os.fspath(shop.guests / ".web.oci_rootfs/record.json"),
            "state": "present",
            "exists": True,
            "snapshots": ["s0", "s1"],
        }
    ]
    assert (facts["size"], facts["needed_size"], facts["unshared_size"]) == (60, 40, 40)


def test_what_trees_share(shop: Shop) -> None:
    shop.refer("other", ["s0", "s1", "s2"])
    facts = shop.inspect().facts
    assert (facts["size"], facts["needed_size"], facts["unshared_size"]) == (60, 60, 100)


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    asked = Inspection(os.fspath(tmp_path / "store"), prune=True, verify=True, sizes=True)
    for check_mode in (True, False):
        found = inspect_store(asked, check_mode)
        assert not found.changed
        assert found.facts["exists"] is False
        assert found.facts["problems"] == found.facts["snapshots"] == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["store", "/", "/tmp/.."])
def test_a_path_that_no_store_can_have(path: str) -> None:
    with pytest.raises(OciError, match="give the absolute path of a folder"):
        inspect_store(Inspection(path), False)


@pytest.mark.parametrize("asked", [{"max_age": -1}, {"max_age": float("nan")}, {"lock_timeout": -1}])
def test_numbers_that_mean_nothing(shop: Shop, asked: dict[str, t.Any]) -> None:
    with pytest.raises(OciError, match="give 0 or more"):
        shop.prune(**asked)


def test_a_folder_that_others_can_change(shop: Shop) -> None:
    shop.path.chmod(0o777)
    with pytest.raises(OciError, match="store_dir is refused: other users can change"):
        shop.inspect()


class TestProblems:
    """Each fault is told, once, and nothing is told of a sound store."""

    def one(self, shop: Shop) -> str:
        (problem,) = shop.inspect(verify=True).facts["problems"]
        return str(problem)

    def test_none(self, shop: Shop) -> None:
        assert shop.inspect(verify=True).facts["problems"] == []
        assert "problems" not in shop.inspect().facts

    def test_a_snapshot_that_is_gone(self, shop: Shop) -> None:
        (shop.path / "s/s2").rmdir()
        assert self.one(shop) == "the snapshot 's2' is not there"

    def test_a_snapshot_that_is_referred_to_and_gone(self, shop: Shop) -> None:
        (shop.path / "s/s1").rmdir()
        first, second = shop.inspect(verify=True).facts["problems"]
        assert first == "the snapshot 's1' is not there"
        assert "refers to snapshots that are not there: 's1'" in second

    def test_a_snapshot_that_is_no_subvolume(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            verify, "is_subvolume", lambda fd: os.fstat(fd).st_ino != (shop.path / "s/s2").stat().st_ino
        )
        assert self.one(shop) == "the snapshot 's2' is not a subvolume"

    def test_a_snapshot_that_can_be_written_to(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            verify, "is_read_only_subvolume", lambda fd: os.fstat(fd).st_ino != (shop.path / "s/s2").stat().st_ino
        )
        assert self.one(shop) == "the snapshot 's2' can be written to"

    def test_a_link_in_the_place_of_a_snapshot(self, shop: Shop) -> None:
        (shop.path / "s/s2").rmdir()
        (shop.path / "s/s2").symlink_to("s1")
        assert "the snapshot 's2' cannot be opened" in self.one(shop)

    def test_a_snapshot_without_a_record(self, shop: Shop) -> None:
        (shop.path / "s/left").mkdir()
        assert self.one(shop) == "the snapshot 'left' has no record"

    def test_a_record_of_another_layer(self, shop: Shop) -> None:
        shop.add(2, diff_id=DIFF_IDS[0])
        assert self.one(shop) == "the snapshot 's2' is recorded under the key of another layer"

    def test_a_record_without_a_parent(self, shop: Shop) -> None:
        shop.add(2, parent="nothing")
        assert self.one(shop) == "the snapshot 's2' lies on 'nothing', which has no record, or not one of its own"

    def test_parents_in_a_circle(self, shop: Shop) -> None:
        shop.add(0, parent="s2")
        problems = shop.inspect(verify=True).facts["problems"]
        assert len([problem for problem in problems if "which has no record, or not one of its own" in problem]) == 3
        assert shop.prune(max_age=0).facts["pruned"]["snapshots"] == []

    def test_a_snapshot_that_nothing_proves(self, shop: Shop) -> None:
        shop.add(2, digests=())
        assert self.one(shop) == "the snapshot 's2' has no verified blob"

    def test_two_records_of_one_name(self, shop: Shop) -> None:
        shop.add(2, name="s1")
        (shop.path / "s/s2").rmdir()
        # the first one that is read counts
        problems = shop.inspect(verify=True).facts["problems"]
        assert [text for text in problems if "is damaged, or of another version" in text]

    @pytest.mark.parametrize("place", ["w/draft", "r/x.json.new", "d/x.json.new"])
    def test_what_interrupted_runs_left(self, shop: Shop, place: str) -> None:
        (shop.path / place).touch()
        folder, name = place.split("/")
        assert self.one(shop) == f"'{name}' in the folder {folder} was left by an interrupted run"

    def test_locks_are_no_leftovers(self, shop: Shop) -> None:
        (shop.path / f"r/{'a' * 64}.lock").touch()
        assert shop.inspect(verify=True).facts["problems"] == []

    def test_what_a_run_is_making(self, shop: Shop) -> None:
        for place in ("w/draft", "s/new", "r/x.json.new"):
            (shop.path / place).mkdir()
        with open(shop.path / "d/lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            found = shop.inspect(verify=True).facts
        assert found["busy"] is True
        assert found["problems"] == []

    def test_a_reference_that_cannot_be_read(self, shop: Shop) -> None:
        shop.write_reference("/x/record.json", names="s1x/").write_text("{")
        assert "cannot be read" in self.one(shop)

    def test_at_most_a_thousand(self, shop: Shop) -> None:
        for number in range(1100):
            (shop.path / f"w/{number}").touch()
        assert len(shop.inspect(verify=True).facts["problems"]) == 1000


class TestPruning:
    """What nobody needs goes, in check mode by word alone, and what is unsure stays."""

    def test_what_is_old_and_needed_by_nobody(self, shop: Shop) -> None:
        for check_mode in (True, False):
            found = shop.prune(check_mode)
            assert found.changed is True
            assert found.facts["pruned"] == {"snapshots": ["s2"], "references": [], "leftovers": []}
            assert shop.names() == (["s0", "s1", "s2"] if check_mode else ["s0", "s1"])
        assert not shop.record_of(2).exists()
        assert shop.prune().changed is False
        assert shop.prune(True).changed is False

    def test_what_is_young(self, shop: Shop) -> None:
        shop.age(2, 6)
        assert shop.prune().changed is False
        assert shop.prune(max_age=5).facts["pruned"]["snapshots"] == ["s2"]

    def test_what_lies_below_something_young(self, shop: Shop) -> None:
        """Although nobody refers to it."""
        (shop.path / "d").joinpath(os.path.basename(shop.refer("web", ["s0"], False))).unlink()
        shop.age(1, 1)
        assert shop.prune().facts["pruned"]["snapshots"] == ["s2"]

    def test_a_dest_that_is_gone(self, shop: Shop) -> None:
        (shop.guests / ".web.oci_rootfs/record.json").unlink()
        assert shop.inspect().facts["references"][0]["state"] == "gone"
        record = os.fspath(shop.guests / ".web.oci_rootfs/record.json")
        for check_mode in (True, False):
            found = shop.prune(check_mode)
            assert found.facts["pruned"] == {"snapshots": ["s2", "s1", "s0"], "references": [record], "leftovers": []}
        assert shop.names() == []
        assert os.listdir(shop.path / "d") == ["lock"]

    def test_a_dest_that_is_gone_with_all_above(self, shop: Shop) -> None:
        shop.refer("far/away", ["s2"], False)
        assert shop.prune().facts["pruned"]["references"] == [
            os.fspath(shop.guests / ".far/away.oci_rootfs/record.json")
        ]

    @pytest.mark.parametrize("what", ["device", "not_a_folder"])
    def test_a_dest_that_cannot_be_judged(self, shop: Shop, what: str) -> None:
        record = os.fspath(shop.guests / ".x.oci_rootfs/record.json")
        if what == "device":
            record = "/proc/self/.x.oci_rootfs/record.json"
            shop.write_reference(record, names=["s2"])
        else:
            (shop.guests / ".x.oci_rootfs").touch()
            shop.write_reference(record, names=["s2"])
        found = {each["record"]: each for each in shop.inspect().facts["references"]}
        assert (found[record]["state"], found[record]["exists"]) == ("unknown", None)
        assert shop.prune(max_age=0).changed is False

    def test_a_damaged_reference(self, shop: Shop) -> None:
        shop.write_reference("/x/record.json").write_text("{")
        (shop.path / "w/draft").touch()
        for check_mode in (True, False):
            found = shop.prune(check_mode, max_age=0)
            assert found.changed is False
            assert "cannot be read, so nothing was removed" in found.warnings[0]

    def test_leftovers(self, shop: Shop) -> None:
        (shop.path / "w/draft").mkdir()
        (shop.path / "s/left").mkdir()
        (shop.path / "r/x.json.new").touch()
        (shop.path / f"r/{'f' * 64}.json").write_text("{")
        expected = ["r/x.json.new", f"r/{'f' * 64}.json", "s/left", "w/draft"]
        for check_mode in (True, False):
            assert sorted(shop.prune(check_mode).facts["pruned"]["leftovers"]) == sorted(expected)
        assert shop.inspect(verify=True).facts["problems"] == []

    def test_a_snapshot_without_a_record_that_is_referred_to(self, shop: Shop) -> None:
        shop.record_of(1).write_text("{")
        assert shop.prune().facts["pruned"]["snapshots"] == ["s2"]
        assert shop.names() == ["s0", "s1"]

    def test_another_run_uses_the_store(self, shop: Shop) -> None:
        (shop.path / "w/draft").touch()
        with open(shop.path / "d/lock", "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            assert shop.prune(True).facts["pruned"] == {"snapshots": ["s2"], "references": [], "leftovers": []}
            with pytest.raises(OciError, match="another run uses the store and was not done after 0.2 seconds"):
                shop.prune(lock_timeout=0.2)
        assert shop.prune().changed is True

    def test_what_cannot_be_removed(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        from ansible_collections.hypervisor.oci.plugins.module_utils._store import collection

        monkeypatch.setattr(collection, "remove_tree", lambda folder, name: False)
        found = shop.prune()
        assert found.changed is False
        assert "not all of store_dir could be removed: 's2'" in found.warnings[0]


class TestWhatIsRead:
    """All of it is parsed into checked types; what is something else is damaged."""

    @pytest.mark.parametrize(
        "changes",
        [
            {"record": "relative"},
            {"record": 5},
            {"record": "/a\0b"},
            {"record": None},
            {"snapshots": ["../s"]},
            {"snapshots": ["s" * 17]},
            {"snapshots": [["s0"]]},
            {"snapshots": 5},
        ],
    )
    def test_a_reference(self, shop: Shop, changes: dict[str, t.Any]) -> None:
        record = "/x/.y.oci_rootfs/record.json"
        file = shop.write_reference(record, names=["s0"])
        folder = os.open(file.parent, os.O_RDONLY)
        assert contents.read_reference(folder, file.name) == Reference(record, ("s0",))
        value = {**json.loads(file.read_text()), **changes}
        # also where the file's name would fit
        file = shop.write_reference(str(value["record"]))
        file.write_text(json.dumps(value))
        assert contents.read_reference(folder, file.name) is None
        os.close(folder)

    def test_a_reference_in_the_file_of_another(self, shop: Shop) -> None:
        file = shop.write_reference("/x/.y.oci_rootfs/record.json", f"{'0' * 64}.json")
        assert shop.inspect(verify=True).facts["problems"] == [f"the reference '{file.name}' cannot be read"]

    @pytest.mark.parametrize("text", ["", "[]", "null", "{}", "[" * 100_000, '{"record": 1e999}'])
    def test_text(self, shop: Shop, text: str) -> None:
        file = shop.write_reference("/x/record.json")
        file.write_text(text)
        shop.record_of(2).write_text(text)
        problems = shop.inspect(verify=True).facts["problems"]
        assert len(problems) == 3

    def test_what_is_no_file(self, shop: Shop) -> None:
        for path in (shop.record_of(2), shop.write_reference("/x/record.json")):
            path.unlink()
            os.mkfifo(path)
        assert len(shop.inspect(verify=True).facts["problems"]) == 3
        for path in (shop.record_of(2), shop.write_reference("/y/record.json")):
            path.unlink()
            path.symlink_to("/dev/zero")
        assert len(shop.inspect(verify=True).facts["problems"]) == 4

    def test_names_that_are_no_text(self, shop: Shop) -> None:
        os.mkdir(os.fsencode(shop.path) + b"/s/\xff\x1b[2J")
        (problem,) = shop.inspect(verify=True).facts["problems"]
        assert problem == "the snapshot '\\xff\\x1b[2J' has no record"

    def test_too_many_files(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(contents, "_MOST_NAMES", 2)
        with pytest.raises(OciError, match="holds more than 2 files"):
            shop.inspect()


def test_a_dest_with_a_long_name(shop: Shop) -> None:
    """Its private folder is named by a hash, and its record knows the path."""
    dest = shop.guests / ("n" * 240)
    state = shop.guests / f".{hashlib.sha256(dest.name.encode()).hexdigest()}.oci_rootfs"
    record = os.fspath(state / "record.json")
    shop.write_reference(record, names=["s2"])
    found = {each["record"]: each for each in shop.inspect().facts["references"]}[record]
    assert (found["dest"], found["exists"], found["state"]) == (None, None, "gone")
    state.mkdir(0o700)
    for text, expected in (
        (json.dumps({"dest": os.fspath(dest)}), os.fspath(dest)),
        ('{"dest": "/etc"}', None),
        ("{", None),
    ):
        (state / "record.json").write_text(text)
        found = {each["record"]: each for each in shop.inspect().facts["references"]}[record]
        assert (found["dest"], found["state"]) == (expected, "present")
