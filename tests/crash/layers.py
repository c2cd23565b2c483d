# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to hold of a store of shared layers, and of the trees that are made of it, after a crash.

docs/behaviour.md, section 16. It reads the files of stores and records itself.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import typing as t

from ansible_collections.hypervisor.oci.tests.tools import compare_trees
from ansible_collections.hypervisor.oci.tests.tools.compare_trees import Ignore, Node, compare, manifest, read_tree
from ansible_collections.hypervisor.oci.tests.unit.container_plans import file_of, planned

_PATIENCE = 60.0
_TOKEN = "trusted.hypervisor_oci"
# Those of overlays that tell of inodes.
_OF_INODES = Ignore(xattrs=frozenset(f"trusted.overlay.{name}" for name in ("impure", "origin", "uuid")))

Tree = t.Dict[bytes, Node]


class Snapshot(t.NamedTuple):
    """What a record of a store says: the key, the name of the snapshot, and of the one below it."""

    key: str
    name: str
    parent: str


class Layers:
    """The store at the path ``store``, and what snapshots have to hold, by their keys: ``learn`` sees them once, whole."""

    def __init__(self) -> None:
        self._right: dict[str, Tree] = {}

    def learn(self, store: str) -> None:
        """Take all snapshots of a store for right, in which nothing has crashed."""
        for snapshot in _snapshots(store):
            self._right[snapshot.key] = _read(f"{store}/s/{snapshot.name}")

    def faults(self, store: str, records: t.Iterable[str]) -> list[str]:
        """What is wrong with a store, and with the trees that these records of dests name; leftovers are not."""
        snapshots = _snapshots(store)
        recorded = {snapshot.name for snapshot in snapshots}
        found = [fault for snapshot in snapshots for fault in self._faults_of(store, snapshot)]
        found += [
            f"{snapshot.name} lies on {snapshot.parent}, which has no record"
            for snapshot in snapshots
            if snapshot.parent and snapshot.parent not in recorded
        ]
        for path in records:
            needed = _needed(path)
            found += [f"{path} names {name}, which has no record" for name in needed - recorded]
            found += [f"nothing refers to {name} for {path}" for name in needed - _referred(store, path)]
        return found

    def _faults_of(self, store: str, snapshot: Snapshot) -> list[str]:
        path = f"{store}/s/{snapshot.name}"
        if not os.path.isdir(path):
            return [f"the snapshot {snapshot.name} is not there"]
        if snapshot.key not in self._right:
            return [f"the snapshot {snapshot.name} has the key of no layer"]
        faults = compare(self._right[snapshot.key], _read(path), _OF_INODES)[:3]
        if _is_subvolume(path) and _can_be_written(path):
            faults.append("it can be written to")
        return [f"the snapshot {snapshot.name}: {fault}" for fault in faults]


def leftovers(store: str, records: t.Iterable[str]) -> list[str]:
    """What nobody needs of a store whose last run has removed all of that, for the dests with these records."""
    snapshots = _snapshots(store)
    recorded = {snapshot.name for snapshot in snapshots}
    below = {snapshot.name: snapshot.parent for snapshot in snapshots}
    needed: set[str] = set()
    for path in records:
        needed |= _needed(path)
    for name in list(needed):
        while below.get(name):
            name = below[name]
            needed.add(name)
    found = [f"w/{name}" for name in os.listdir(f"{store}/w")]
    found += [f"s/{name}" for name in sorted(set(os.listdir(f"{store}/s")) ^ recorded)]
    found += [f"s/{name} for nobody" for name in recorded - needed]
    kept = {f"{snapshot.key}.json" for snapshot in snapshots} | {f"{name}.journal" for name in recorded}
    found += [f"r/{name}" for name in os.listdir(f"{store}/r") if name not in kept and not name.endswith(".lock")]
    references = {_reference(path) for path in records}
    found += [f"d/{name}" for name in os.listdir(f"{store}/d") if name not in references | {"lock"}]
    return found


def shown(dest: str, script: str) -> str:
    """The manifest of what a container sees in ``dest`` when it is started by the role's own script, which is made anew.

    What keeps it from being started comes back in its place.
    """
    content = file_of(planned("runc", rootfs=dest, store_dir="/store"), "/mount")["content"]
    with open(script, "w", encoding="utf-8") as file:
        file.write(content)
    os.chmod(script, 0o700)
    command = ["unshare", "--mount", "--propagation", "private", script]
    command += [sys.executable, "-S", str(compare_trees.__file__), "--manifest", "--ignore-xattr", _TOKEN, dest]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_PATIENCE)
    return done.stderr or done.stdout


def to_be_shown(tree: Tree) -> str:
    """What ``shown`` has to give."""
    return "".join(f"{line}\n" for line in manifest(tree))


def let_be_removed(store: str) -> None:
    """Let snapshots of btrfs be removed."""
    for name in os.listdir(f"{store}/s") if os.path.isdir(f"{store}/s") else ():
        path = f"{store}/s/{name}"
        if _is_subvolume(path):
            subprocess.run(["btrfs", "property", "set", "-ts", path, "ro", "false"], check=True, timeout=_PATIENCE)


def _read(path: str) -> Tree:
    """The tree of a snapshot; the kernel makes whiteouts as it likes, and links them."""
    tree = read_tree(path)
    whiteouts = {name for name, node in tree.items() if (node.kind, node.device) == ("char", "0:0")}
    return {name: Node("whiteout", 0, 0, 0, 0) if name in whiteouts else node for name, node in tree.items()}


def _snapshots(store: str) -> list[Snapshot]:
    if not os.path.isdir(f"{store}/r"):
        return []
    found = []
    for name in sorted(os.listdir(f"{store}/r")):
        if name.endswith(".json"):
            with open(f"{store}/r/{name}", encoding="ascii") as file:
                value = json.load(file)
            found.append(Snapshot(value["key"], value["name"], value["parent"]))
    return found


def _needed(record: str) -> set[str]:
    """The names of the snapshots of all trees that a record names, none where there is no record."""
    try:
        with open(record, encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError:
        return set()
    trees = [value["tree"], value["next"], *value["generations"]]
    return {name for tree in trees if tree for name in tree["snapshots"]}


def _referred(store: str, record: str) -> set[str]:
    try:
        with open(f"{store}/d/{_reference(record)}", encoding="ascii") as file:
            return set(json.load(file)["snapshots"])
    except FileNotFoundError:
        return set()


def _reference(record: str) -> str:
    return hashlib.sha256(os.fsencode(record)).hexdigest() + ".json"


def _is_subvolume(path: str) -> bool:
    return os.stat(path).st_ino == 256


def _can_be_written(path: str) -> bool:
    try:
        os.utime(path)
    except OSError as error:
        return error.errno != errno.EROFS
    return True
