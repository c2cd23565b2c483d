# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory of a tree that layers were applied to (docs/behaviour.md, section 13)."""

from __future__ import annotations

import os
import struct
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._inventory.inventory import KINDS
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs import candidates as remembered
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    block,
    char,
    directory,
    fifo,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
    write_oci_archive,
)
from ansible_collections.hypervisor.oci.tests.unit.support import needs_root, run

PING: dict[str | bytes, str | bytes | int | None] = {
    b"SCHILY.xattr.security.capability": struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
}
HELD = {"permitted": ["cap_net_raw"], "inheritable": [], "effective": True}
ACCOUNTS = (file("etc/passwd", "root:x:0:0::/:\napp:x:1000:1000::/:\n"), file("etc/group", "staff:x:50:app\n"))

pytestmark = needs_root


def found(tmp_path: Path, *layers: t.Any, **options: t.Any) -> dict[str, t.Any]:
    """The files of each kind that has any; every way to find them must agree."""
    src = write_oci_archive(tmp_path / "image.tar", Image([Layer(*members) for members in layers]))
    inventories = []
    for name, most in (("some", 8 * 1024 * 1024), ("all", 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(remembered, "_MOST_BYTES", most)
            report = run(tmp_path / "guests" / name, src=src, **options)["report"]
        inventories.append(report["inventory"])
    assert inventories[0] == inventories[1]
    assert set(inventories[0]) == set(KINDS)
    for kind in KINDS:
        assert inventories[0][kind]["count"] == len(inventories[0][kind]["files"])
    return {kind: value["files"] for kind, value in inventories[0].items() if value["count"]}


def test_each_kind(tmp_path: Path) -> None:
    assert found(
        tmp_path,
        [
            *ACCOUNTS,
            file("usr/bin/su", b"", 0o4755, uid=1000, gid=50),
            file("usr/bin/wall", b"", 0o2755, gid=50),
            file("usr/bin/ping", b"", 0o755, pax=PING),
            char("dev/null", 1, 3),
            file("w/file", b"", 0o666),
            fifo("w/pipe", 0o622),
            directory("w/open", 0o777),
            directory("tmp", 0o1777),
            symlink("w/link", "nowhere"),
            file("x/stranger", b"", 0o600, uid=7),
            file("x/group", b"", 0o600, gid=7),
            symlink("x/link", "nowhere", uid=7),
            file("x/app", b"", 0o600, uid=1000, gid=50),
            directory("x/s", 0o2755),
        ],
    ) == {
        "setuid": [{"path": "/usr/bin/su", "uid": 1000}],
        "setgid": [{"path": "/usr/bin/wall", "gid": 50}],
        "capabilities": [{"path": "/usr/bin/ping", **HELD}],
        "devices": [{"path": "/dev/null", "device": "c 1:3"}],
        "world_writable": [
            {"path": "/w/file", "type": "file"},
            {"path": "/w/open", "type": "directory"},
            {"path": "/w/pipe", "type": "file"},
        ],
        "unowned": [
            {"path": "/x/group", "uid": 0, "gid": 7},
            {"path": "/x/link", "uid": 7, "gid": 0},
            {"path": "/x/stranger", "uid": 7, "gid": 0},
        ],
    }


@pytest.mark.parametrize(
    "hiding",
    [
        [whiteout("a/b/su")],
        [whiteout("a")],
        [opaque("a/b")],
        [opaque("a")],
        [file("a/b/su", b"", 0o755)],
        [directory("a/b/su")],
        [file("a/b", b"")],
        # the parent becomes a link to a directory that has a file of that name
        [directory("c"), file("c/su", b"", 0o755), symlink("a/b", "../c")],
    ],
)
def test_what_a_later_layer_hides_does_not_count(tmp_path: Path, hiding: list[t.Any]) -> None:
    assert found(tmp_path, [file("a/b/su", b"", 0o4755, uid=9)], hiding) == {}


def test_what_comes_back_counts(tmp_path: Path) -> None:
    layers = [[file("su", b"", 0o4755)], [whiteout("su")], [file("su", b"", 0o4755)]]
    assert found(tmp_path, *layers) == {"setuid": [{"path": "/su", "uid": 0}]}


@pytest.mark.parametrize("later", [False, True])
def test_every_name_of_a_linked_file_counts(tmp_path: Path, later: bool) -> None:
    """Also if the name that the entry gave is gone."""
    first = [file("su", b"", 0o4755, pax=PING), directory("d"), hardlink("d/other", "su")]
    second = [hardlink("third", "d/other"), whiteout("su")]
    layers = [first, second] if later else [[*first, hardlink("third", "su")], [whiteout("su")]]
    assert found(tmp_path, *layers) == {
        "setuid": [{"path": "/d/other", "uid": 0}, {"path": "/third", "uid": 0}],
        "capabilities": [{"path": "/d/other", **HELD}, {"path": "/third", **HELD}],
    }


def test_paths_are_resolved(tmp_path: Path) -> None:
    """An entry below a link lands where the link leads."""
    layer = [directory("usr/bin"), symlink("bin", "usr/bin"), file("bin/su", b"", 0o4755)]
    assert found(tmp_path, layer) == {"setuid": [{"path": "/usr/bin/su", "uid": 0}]}


def test_names_of_aufs(tmp_path: Path) -> None:
    layer = [file(".wh..wh.plnk/1.2", b"", 0o4755), hardlink("su", ".wh..wh.plnk/1.2")]
    assert found(tmp_path, layer) == {"setuid": [{"path": "/su", "uid": 0}]}


def test_a_kept_link_to_a_directory(tmp_path: Path) -> None:
    layers = [[directory("real"), symlink("link", "real")], [directory("link", 0o777)]]
    expected = {"world_writable": [{"path": "/real", "type": "directory"}]}
    assert found(tmp_path, *layers, keep_dirlinks=True) == expected


def test_the_top_itself(tmp_path: Path) -> None:
    assert found(tmp_path, [directory(".", 0o777)]) == {"world_writable": [{"path": "/", "type": "directory"}]}


def test_ids_are_those_of_the_container(tmp_path: Path) -> None:
    maps = {"uid_map": ["0:100000:1000"], "gid_map": ["0:200000:1000"]}
    layer = [*ACCOUNTS, file("su", b"", 0o6755, uid=7, gid=50), file("ping", b"", pax=PING)]
    assert found(tmp_path, layer, **maps) == {
        "setuid": [{"path": "/su", "uid": 7}],
        "setgid": [{"path": "/su", "gid": 50}],
        "capabilities": [{"path": "/ping", **HELD}],
        "unowned": [{"path": "/su", "uid": 7, "gid": 50}],
    }


def test_accounts_may_come_in_a_later_layer(tmp_path: Path) -> None:
    assert found(tmp_path, [file("f", b"", uid=1000, gid=50)], ACCOUNTS) == {}


def test_without_owners_nothing_is_unowned(tmp_path: Path) -> None:
    layer = [file("su", b"", 0o4755, uid=7), file("open", b"", 0o666, uid=7), block("disk", 8, 0)]
    expected = {"world_writable": [{"path": "/open", "type": "file"}]}
    assert found(tmp_path, layer, ownership="ignore") == expected


def test_many_files_of_one_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are remembered up to a bound; beyond it, the tree is looked through if nobody knows the owner."""
    monkeypatch.setattr(remembered, "_MOST_OWNED", 5)
    layer = [*ACCOUNTS, *(file(f"f{number}", b"", uid=uid) for uid in (7, 1000) for number in range(uid, uid + 10))]
    assert len(found(tmp_path, layer)["unowned"]) == 10


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    paths = [item["path"] for item in found(tmp_path, [file(b"\xff", b"", 0o4755)])["setuid"]]
    assert list(map(os.fsencode, paths)) == [b"/\xff"]
