# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""runc and crun for the role: docs/behaviour.md, section 10."""

from __future__ import annotations

import json

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.known import Root
from ansible_collections.hypervisor.oci.tests.unit.container_plans import IMAGE, file_of, planned


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_settings_are_merged_into_the_document(runtime: str) -> None:
    settings = {"linux": {"resources": {"memory": {"limit": 1}}}, "hostname": None}
    file = file_of(planned(runtime, runtime_spec_settings=settings), "/config.json")
    document = json.loads(file["content"])
    assert document["linux"]["resources"]["memory"] == {"limit": 1}
    assert "hostname" not in document
    assert (file["mode"], file["shown"]) == ("0600", "spec")
    assert f"    {runtime} kill" in file_of(planned(runtime), "/control")["content"]


def test_labels_that_a_runtime_would_obey_are_told() -> None:
    image = {**IMAGE, "labels": {"run.oci.x": "1", "plain": "2"}}
    warnings = planned("crun", root=Root({"image": image}))["warnings"]
    assert len(warnings) == 1
    assert "'run.oci.x'" in warnings[0]
