# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is noted beside a root volume: docs/behaviour.md, section 10."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.known import Root
from ansible_collections.hypervisor.oci.tests.unit.container_plans import IMAGE, RESULT, ROOT, file_of, node_of, planned


def _note(result: dict[str, t.Any]) -> dict[str, t.Any]:
    note: dict[str, t.Any] = json.loads(file_of(result, "volume.json")["content"])
    return note


def test_how_a_server_is_spoken_to_is_not_noted() -> None:
    plain = planned("proxmox")
    options = {"url_password": "s3cret", "headers": {"A": "s3cret"}, "registry_auth_file": "/s3cret"}
    spoken = planned("proxmox", rootfs_options=options, fetch="controller")
    other = planned("proxmox", rootfs_options={"devices": "skip"})
    assert plain["volume_key"] == spoken["volume_key"] != other["volume_key"]
    assert "s3cret" not in json.dumps([spoken["files"], spoken["configuration"]])


def test_a_volume_is_known_by_its_note() -> None:
    first = planned("proxmox")
    assert (first["is_filled"], first["has_note"]) == (False, False)
    again = planned("proxmox", node=node_of(note=_note(first)))
    assert (again["is_filled"], again["has_note"]) == (True, True)
    assert file_of(again, "volume.json") == file_of(first, "volume.json")
    assert again["note"]["root"]["image"] == IMAGE


@pytest.mark.parametrize(
    "more",
    [{"user": "1:1"}, {"image_volumes": False}, {"working_dir": "/x"}, {"mounts": [{"type": "tmpfs", "target": "/t"}]}],
)
def test_what_is_found_in_the_tree_decides(more: dict[str, t.Any]) -> None:
    assert not planned("proxmox", node=node_of(note=_note(planned("proxmox"))), root=Root(RESULT), **more)["is_filled"]


@pytest.mark.parametrize("note", ["", "{", "[]", '"x"', '{"places": []}', '{"places": {"mounts": ["x"]}}'])
def test_a_damaged_note_is_none(note: str) -> None:
    assert not planned("proxmox", node=node_of(note=note))["is_filled"]


def test_the_key_of_an_earlier_plan_stays() -> None:
    root = Root(ROOT.result, ROOT.user_info, ROOT.mounts, key="earlier")
    assert _note(planned("proxmox", root=root))["key"] == "earlier"
