# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module that looks after a store, on a real btrfs (docs/behaviour.md, section 16)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.hypervisor.oci.plugins.module_utils._store import inspect
from ansible_collections.hypervisor.oci.plugins.modules import oci_store
from ansible_collections.hypervisor.oci.tests.images.builder import write_oci_archive
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import ONE, TWO, beside_of, everything
from ansible_collections.hypervisor.oci.tests.unit.support import give, loop_mounted, needs_root, run, without_waiting

pytestmark = needs_root


class Node:
    """A btrfs with a store and trees, and the module, which runs in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.store = folder / "store"
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def dest(self, name: str) -> Path:
        """Where a tree is."""
        return self.folder / "guests" / name

    def make(self, name: str, src: str, **options: t.Any) -> dict[str, t.Any]:
        """Make a tree with the store."""
        return run(self.dest(name), src=src, store_dir=str(self.store), **options)

    def __call__(self, check_mode: bool = False, **params: t.Any) -> dict[str, t.Any]:
        """Run the module, and return its result."""
        give(self._monkeypatch, {"store_dir": os.fspath(self.store), "_ansible_check_mode": check_mode, **params})
        with pytest.raises(SystemExit):
            oci_store.main()
        result: dict[str, t.Any] = json.loads(self._capfd.readouterr().out, parse_constant=pytest.fail)
        return result

    def btrfs(self, *words: str | Path) -> None:
        """Change something by hand."""
        subprocess.run(["btrfs", *words], check=True, capture_output=True)


@pytest.fixture(name="node")
def fixture_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> t.Iterator[Node]:
    """See ``Node``."""
    without_waiting(monkeypatch)
    point = tmp_path / "btrfs"
    point.mkdir(0o700)
    with loop_mounted(point, tmp_path / "disk", "btrfs"):
        (point / "guests").mkdir(0o700)
        yield Node(point, monkeypatch, capfd)


@pytest.fixture(name="one")
def fixture_one(tmp_path: Path) -> str:
    return write_oci_archive(tmp_path / "one.tar", ONE)


@pytest.fixture(name="two")
def fixture_two(tmp_path: Path) -> str:
    return write_oci_archive(tmp_path / "two.tar", TWO)


def test_what_is_returned_is_documented(node: Node, one: str) -> None:
    node.make("web", one)
    found = node(verify=True, sizes=True, prune=True)
    documented = yaml.safe_load(oci_store.RETURN)
    assert set(found) - {"changed", "invocation"} == set(documented)
    for name in ("snapshots", "references"):
        assert set(found[name][0]) == set(documented[name]["contains"])
    assert set(found["pruned"]) == set(documented["pruned"]["contains"])
    options = yaml.safe_load(oci_store.DOCUMENTATION)["options"]
    assert {name: (value.get("default"), value["type"]) for name, value in options.items()} == {
        name: (spec.get("default"), spec["type"]) for name, spec in oci_store.ARGUMENT_SPEC.items()
    }
    assert re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z", found["snapshots"][0]["used"])


def test_two_trees_of_a_common_layer(node: Node, one: str, two: str) -> None:
    node.make("a", one)
    node.make("b", two)
    before = everything(node.folder)
    found = node(verify=True, sizes=True)
    assert everything(node.folder) == before
    assert found["changed"] is False
    assert found["exists"] and not found["busy"]
    assert found["problems"] == []
    assert [each["driver"] for each in found["snapshots"]] == ["btrfs"] * 3
    lower, *tops = found["snapshots"]
    assert lower["diff_id"] == lower["chain_id"] == ONE.layers[0].diff_id
    assert lower["digests"] == [ONE.layers[0].digest]
    assert {each["parent"] for each in tops} == {lower["name"]}
    assert {each["diff_id"] for each in tops} == {ONE.layers[1].diff_id, TWO.layers[1].diff_id}
    dests = [os.fspath(node.dest(name)) for name in "ab"]
    assert lower["dests"] == dests
    assert [each["dest"] for each in found["references"]] == dests
    assert all(each["state"] == "present" and each["exists"] for each in found["references"])
    assert lower["options"]["devices"] == "safe"
    assert found["size"] == found["needed_size"] == lower["layer_size"] + sum(each["layer_size"] for each in tops)
    assert found["unshared_size"] == sum(each["tree_size"] for each in tops)


def test_what_the_file_system_tells(node: Node, one: str, tmp_path: Path) -> None:
    """Data that is too large for the metadata is shared until its last sharer goes."""
    from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file

    size = 1 << 20
    image = Image([Layer(file("big", os.urandom(size)), file("small", "x"))])
    node.make("web", write_oci_archive(tmp_path / "big.tar", image))
    (found,) = node(sizes=True)["snapshots"]
    assert (found["exclusive"], found["shared"]) == (0, size)
    run(node.dest("web"), state="absent")
    # the former wakes the cleaner, which the latter waits for
    for what in ("filesystem", "subvolume"):
        subprocess.run(["btrfs", what, "sync", node.folder], check=True, capture_output=True, timeout=60)
    (found,) = node(sizes=True)["snapshots"]
    assert (found["exclusive"], found["shared"]) == (size, 0)
    assert "exclusive" not in node()["snapshots"][0]


def test_a_file_system_that_does_not_tell(node: Node, one: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node.make("web", one)
    monkeypatch.setattr(inspect, "measure_extents", lambda fd: None)
    assert [each["exclusive"] for each in node(sizes=True)["snapshots"]] == [None, None]


def test_what_is_wrong(node: Node, one: str, two: str) -> None:
    node.make("a", one)
    node.make("b", two)
    _lower, first, second = node()["snapshots"]
    node.btrfs("property", "set", "-f", node.store / "s" / first["name"], "ro", "false")
    node.btrfs("subvolume", "delete", node.store / "s" / second["name"])
    problems = node(verify=True)["problems"]
    assert f"the snapshot '{first['name']}' can be written to" in problems
    assert f"the snapshot '{second['name']}' is not there" in problems
    assert len(problems) == 3


def test_pruning_when_no_other_run_comes(node: Node, one: str, two: str) -> None:
    node.make("a", one)
    node.make("b", two)
    run(node.dest("a"), state="absent")
    record = os.fspath(beside_of(node.dest("a")) / "record.json")
    assert node(prune=True, check_mode=True)["pruned"]["references"] == [record]
    for check_mode in (True, False):
        found = node(prune=True, store_max_age=0, check_mode=check_mode)
        assert found["changed"] is True
        assert found["pruned"]["references"] == [record]
        assert len(found["pruned"]["snapshots"]) == 1
        assert len(found["snapshots"]) == (3 if check_mode else 2)
    assert sorted(each["name"] for each in found["snapshots"]) == sorted(os.listdir(node.store / "s"))
    assert node(prune=True, store_max_age=0)["changed"] is False
    run(node.dest("b"), state="absent")
    assert node(prune=True, store_max_age=0)["snapshots"] == []
    assert os.listdir(node.store / "s") == os.listdir(node.store / "w") == []
    # and all works again
    assert node.make("a", one)["store"] == "btrfs"
    assert node(verify=True)["problems"] == []


def test_pruning_keeps_what_another_disk_needs(node: Node, one: str, tmp_path: Path) -> None:
    node.make("a", one)
    os.rename(node.folder / "guests", node.folder / "elsewhere")
    (node.folder / "guests").mkdir(0o700)
    with loop_mounted(node.folder / "guests", tmp_path / "disk2", "btrfs"):
        found = node(prune=True, store_max_age=0)
        assert (found["changed"], found["references"][0]["state"]) == (False, "unknown")
    found = node(prune=True, store_max_age=0)
    assert (found["changed"], found["snapshots"]) == (True, [])


def test_leftovers_of_an_interrupted_run(node: Node, one: str) -> None:
    node.make("a", one)
    for folder in ("s", "w"):
        node.btrfs("subvolume", "create", node.store / folder / "left")
    assert len(node(verify=True)["problems"]) == 2
    found = node(prune=True, verify=True)
    assert found["pruned"] == {"snapshots": [], "references": [], "leftovers": ["w/left", "s/left"]}
    assert found["problems"] == []


def test_a_refusal(node: Node) -> None:
    node.store.mkdir()
    node.store.chmod(0o777)
    assert "store_dir is refused: other users can change" in node()["msg"]


def test_no_store(node: Node) -> None:
    found = node(prune=True, verify=True)
    assert (found["exists"], found["changed"], found["problems"]) == (False, False, [])
    assert not node.store.exists()
