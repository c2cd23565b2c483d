# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter ``exec_wrapper``: the script for what lines of configuration cannot express."""

from __future__ import annotations

import typing as t

from ..plugin_utils._container.filters import adapted, filter_module
from ..plugin_utils._container.merge import container_from
from ..plugin_utils._container.wrapping import wrapper_script


@adapted
def exec_wrapper(
    image: t.Any,
    runtime: str = "lxc",
    runtime_environment: bool | None = None,
    version: str | None = None,
    settings: t.Any = (),
    **overrides: t.Any,
) -> str:
    """The script, empty where none is needed."""
    script = wrapper_script(
        container_from(image, overrides),
        runtime,
        runtime_environment=runtime_environment,
        version=version,
        settings=settings,
    )
    return script or ""


FilterModule = filter_module(exec_wrapper)
