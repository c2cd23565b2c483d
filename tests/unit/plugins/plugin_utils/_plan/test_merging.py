# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The container, as far as it is known: docs/behaviour.md, section 10."""

from __future__ import annotations

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import ContainerError
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.known import Root
from ansible_collections.hypervisor.oci.plugins.plugin_utils._plan.runtimes import RUNTIMES
from ansible_collections.hypervisor.oci.tests.unit.container_plans import IMAGE, MAPS, planned


@pytest.mark.parametrize("runtime", list(RUNTIMES))
@pytest.mark.parametrize("user", [None, "app", "1:1"])
def test_a_user_that_is_not_looked_up_yet(runtime: str, user: str | None) -> None:
    unresolved = {**IMAGE, "uid": None, "gid": None}
    planned(runtime, root=Root({"image": unresolved}), user=user, **MAPS)
    # the image is there already, and its accounts are looked up later
    planned(runtime, root=Root({"image": IMAGE}), user=user, **MAPS)
    planned(runtime, root=None, user=user, **MAPS)


@pytest.mark.parametrize("runtime", list(RUNTIMES))
def test_a_user_that_was_not_found(runtime: str) -> None:
    unresolved = {**IMAGE, "uid": None, "gid": None}
    with pytest.raises(ContainerError, match="unknown user"):
        planned(runtime, root=Root({"image": unresolved}, {}, []), **MAPS)
