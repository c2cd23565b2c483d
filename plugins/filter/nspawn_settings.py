# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter ``nspawn_settings``: image facts and overrides as settings of systemd-nspawn."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ..plugin_utils._container.merge import container_from
from ..plugin_utils._container.model import ContainerError
from ..plugin_utils._container.nspawn import render_nspawn


def nspawn_settings(
    image: t.Any, settings: t.Any = None, nss: t.Any = None, wrapper: str | None = None, **overrides: t.Any
) -> str:
    """The text of ``NAME.nspawn``."""
    try:
        return render_nspawn(container_from(image, overrides), settings=settings, nss=nss, wrapper=wrapper)
    except ContainerError as error:
        raise AnsibleFilterError(error.message) from error


class FilterModule:
    """Ansible's way to find the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"nspawn_settings": nspawn_settings}
