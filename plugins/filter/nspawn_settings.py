# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter ``nspawn_settings``: image facts and overrides as settings of systemd-nspawn."""

from __future__ import annotations

import typing as t

from ..plugin_utils._container.filters import adapted, filter_module
from ..plugin_utils._container.merge import container_from
from ..plugin_utils._container.nspawn import render_nspawn


@adapted
def nspawn_settings(
    image: t.Any, settings: t.Any = None, nss: t.Any = None, wrapper: str | None = None, **overrides: t.Any
) -> str:
    """The text of ``NAME.nspawn``."""
    return render_nspawn(container_from(image, overrides), settings=settings, nss=nss, wrapper=wrapper)


FilterModule = filter_module(nspawn_settings)
