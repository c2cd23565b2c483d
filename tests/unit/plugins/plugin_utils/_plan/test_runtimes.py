# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The registry of runtimes, and their protocol."""

from __future__ import annotations

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.known import Node, places_of
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.runtime import Runtime
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.runtimes import RUNTIMES
from ansible_collections.hypervisor.oci.tests.unit.container_plans import request_of


@pytest.mark.parametrize("name", list(RUNTIMES))
def test_each_runtime_answers_everything(name: str) -> None:
    runtime = RUNTIMES[name]
    for member in (member for member in dir(Runtime) if not member.startswith("_")):
        assert hasattr(runtime, member), member
    assert runtime.settings in runtime.variables
    assert runtime.programs
    request = request_of(name)
    folder = runtime.folder(request)
    places = places_of(request, folder, runtime.rootfs(request, folder))
    assert runtime.service(request, places, Node()).start
    assert bool(runtime.volume_commands(request)) is runtime.is_managed
