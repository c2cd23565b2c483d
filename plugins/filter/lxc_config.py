# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter ``lxc_config``: image facts and overrides as LXC's configuration."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ..plugin_utils._container.lxc import render_lxc
from ..plugin_utils._container.merge import container_from
from ..plugin_utils._container.model import ContainerError


def lxc_config(
    image: t.Any,
    runtime_environment: bool | None = None,
    version: str | None = None,
    wrapper: str | None = None,
    settings: t.Any = (),
    **overrides: t.Any,
) -> str:
    """The text of ``config``."""
    try:
        return render_lxc(
            container_from(image, overrides),
            runtime_environment=runtime_environment,
            version=version,
            wrapper=wrapper,
            settings=settings,
        )
    except ContainerError as error:
        raise AnsibleFilterError(error.message) from error


class FilterModule:
    """Ansible's way to find the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"lxc_config": lxc_config}
