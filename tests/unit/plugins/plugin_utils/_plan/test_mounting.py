# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes, mounts and directories of the role: docs/behaviour.md, sections 9 and 10."""

from __future__ import annotations

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import ContainerError
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.mounting import require_sources
from ansible_collections.hypervisor.oci.tests.unit.container_plans import MAPS, planned, request_of


def test_volumes_of_the_image_can_be_left_out() -> None:
    assert [item["target"] for item in planned("runc")["volumes"]] == ["/data"]
    without = planned("runc", image_volumes=False)
    assert without["volumes"] == []
    paths = [item["path"] for item in without["directories"]]
    assert "/var/lib/hypervisor.oci/volumes" not in paths
    assert "/var/lib/hypervisor.oci/volumes/web" in [item["path"] for item in planned("runc")["directories"]]


def test_what_the_container_can_write_to() -> None:
    mounts = [
        {"source": "/srv/rw", "target": "/rw"},
        {"source": "/srv/ro", "target": "/ro", "read_only": True},
        {"type": "tmpfs", "target": "/tmp"},
    ]
    assert planned("runc", mounts=mounts)["writable"] == ["/srv/rw", "/var/lib/hypervisor.oci/volumes/web/data"]


def test_folders_are_open_to_the_mapped_root_alone() -> None:
    for item in planned("lxc", **MAPS)["directories"]:
        assert item["passable"] or item["mode"] in ("0750", "0755"), item
        assert not item["shared"] or item["passable"], item


@pytest.mark.parametrize(
    ("source", "is_refused"),
    [
        ("/v/web/data", False),
        ("/v/web/data/", False),
        ("/v/web/data/.", False),
        ("/v/web/data/sub", True),
        ("/v//other/data/sub/x", True),
        ("//v/./other/data/sub", True),
        ("/v/x/../other/data/sub", True),
        ("/vv/a/b/c/d", False),
        ("/srv/v/a/b/c", False),
    ],
)
def test_a_source_inside_of_a_volume(source: str, is_refused: bool) -> None:
    """Its container could put a link there."""
    request = request_of("runc", volumes_folder="/v/", mounts=[{"source": source, "target": "/m"}])
    if not is_refused:
        require_sources(request)
        return
    with pytest.raises(ContainerError, match="^mounts: the source .* lies in a volume"):
        require_sources(request)
