# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter ``lxc_config``: image facts and overrides as LXC's configuration."""

from __future__ import annotations

import typing as t

from ..plugin_utils._container.filters import adapted, filter_module
from ..plugin_utils._container.lxc import render_lxc
from ..plugin_utils._container.merge import container_from


@adapted
def lxc_config(
    image: t.Any,
    runtime_environment: bool | None = None,
    version: str | None = None,
    wrapper: str | None = None,
    settings: t.Any = (),
    **overrides: t.Any,
) -> str:
    """The text of ``config``."""
    return render_lxc(
        container_from(image, overrides),
        runtime_environment=runtime_environment,
        version=version,
        wrapper=wrapper,
        settings=settings,
    )


FilterModule = filter_module(lxc_config)
