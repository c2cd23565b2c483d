# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unpacks images three ways: as trees of their own, into an empty store, and from a full one, with both drivers.

    three_ways.py FOLDER        all images of a folder, one per platform

docs/behaviour.md, section 16: the results are the same, and so are the trees, which umoci and buildah judge as well.
Exit status 1 where something differs.
"""

from __future__ import annotations

import argparse
import os
import sys
import typing as t

# an installed collection needs no PYTHONPATH
sys.path.insert(0, os.path.abspath(__file__).partition("/ansible_collections/")[0])
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError  # noqa: E402
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.descriptors import opened  # noqa: E402
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.stack import opened_tree  # noqa: E402
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.provision import provision  # noqa: E402
from ansible_collections.hypervisor.oci.tests.crash.disks import Disk, Skipped, require_btrfs  # noqa: E402
from ansible_collections.hypervisor.oci.tests.tools.arguments import arguments, options_of  # noqa: E402
from ansible_collections.hypervisor.oci.tests.tools.compare_trees import Ignore, Node, compare, read_tree  # noqa: E402
from ansible_collections.hypervisor.oci.tests.tools.confinement import require  # noqa: E402
from ansible_collections.hypervisor.oci.tests.tools.removal import made_folder  # noqa: E402
from oracle import differences_from_peers, list_images  # noqa: E402

_SIZE = 2 << 30
_TOKEN = Ignore(xattrs=frozenset(["trusted.hypervisor_oci"]))
# What differs by the way itself.
_OF_THE_WAY = ("changed", "dest", "diff", "mount", "store")
_DRIVERS = {"overlay": ("mkfs.ext4", "-q", "-F"), "btrfs": ("mkfs.btrfs", "-q")}

Tree = t.Dict[bytes, Node]


class Way(t.NamedTuple):
    """How an image came out: the ``store`` that the result names, the rest of the result or the error, and the tree."""

    store: str | None
    result: dict[str, t.Any]
    tree: Tree


def unpack(dest: str, store: str | None, case: t.Mapping[str, t.Any]) -> Way:
    """One way."""
    params = {"src": case["path"], "platform": case["platform"], "dest": dest, "store_dir": store}
    try:
        found = provision(options_of(arguments(**params, devices="create", reachable="allow")), False)
    except OciError as error:
        return Way(None, {"msg": error.message}, {})
    result = found.to_result()
    with opened(os.open(dest, os.O_RDONLY)) as fd, opened_tree(fd, dest) as root:
        tree = read_tree(f"/proc/self/fd/{root}/.")
    rest = {name: value for name, value in result.items() if name not in _OF_THE_WAY}
    return Way(result["store"], rest, tree)


def faults(driver: str, ways: t.Mapping[str, Way]) -> list[str]:
    """What differs between the ways of one image."""
    ordinary = ways["ordinary"]
    found = [ordinary.result["msg"]] if "msg" in ordinary.result else []
    for name, way in ways.items():
        if name == "ordinary":
            continue
        if way.store != driver:
            found.append(f"{name}: its store is {way.store}, not {driver}")
        names = {*way.result, *ordinary.result}
        found += [
            f"{name}: {key} of the result differs" for key in names if way.result.get(key) != ordinary.result.get(key)
        ]
        found += [f"{name}: {line}" for line in compare(ordinary.tree, way.tree, _TOKEN)[:20]]
    return found


def _on_disk(driver: str, work: str, cases: t.Sequence[t.Mapping[str, t.Any]]) -> list[str]:
    if driver == "btrfs":
        require_btrfs()
    found = []
    with Disk(work, _SIZE, *_DRIVERS[driver]) as disk:
        for number, case in enumerate(cases):
            folder = os.path.join(disk.path, str(number))
            os.mkdir(folder, 0o700)
            # each image finds its store empty, and then full
            store = os.path.join(folder, "store")
            ways = {
                name: unpack(os.path.join(folder, name), store if name != "ordinary" else None, case)
                for name in ("ordinary", "cold", "warm")
            }
            lines = faults(driver, ways)
            trees = {name: way.tree for name, way in ways.items() if name != "ordinary"}
            peers = differences_from_peers(case["path"], case["digest"], os.path.join(folder, "peers"), trees)
            lines += [line for peer in peers for line in peer.lines[:20]]
            judges = sorted({peer.peer for peer in peers})
            paths = len(ways["ordinary"].tree)
            print(f"{driver}: {case['name']}: {paths} paths, {len(lines)} differences, judged by {judges}", flush=True)
            found += [f"{driver}: {case['name']}: {line}" for line in lines]
    return found


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Unpack images with and without a store, and compare.")
    parser.add_argument("folder")
    options = parser.parse_args()
    require()
    cases = list_images(options.folder)
    found: list[str] = []
    with made_folder("oci_rootfs_three_ways.", "/var/tmp") as work:
        for driver in _DRIVERS:
            try:
                found += _on_disk(driver, work, cases)
            except Skipped as reason:
                print(f"SKIPPED: {driver}: {reason}")
    print("\n".join(found[:200]))
    print(f"{len(cases)} images, {len(found)} differences")
    return 1 if found or not cases else 0


if __name__ == "__main__":
    sys.exit(main())
