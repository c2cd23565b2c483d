# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter ``proxmox_config``: image facts and overrides in Proxmox VE's configuration of a container."""

from __future__ import annotations

import typing as t

from ..plugin_utils._container.filters import adapted, filter_module, split
from ..plugin_utils._container.merge import container_from
from ..plugin_utils._container.proxmox import ProxmoxOptions, render_proxmox


@adapted
def proxmox_config(image: t.Any, current: t.Any, **given: t.Any) -> str:
    """Return the new text of VMID.conf."""
    options, overrides = split(ProxmoxOptions, given)
    # the root volume belongs to Proxmox VE: nothing here depends on where it is mounted
    overrides.setdefault("rootfs", "/rootfs")
    return render_proxmox(container_from(image, overrides), current, options)


FilterModule = filter_module(proxmox_config)
