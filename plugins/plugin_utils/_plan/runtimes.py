# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The runtimes by name."""

from __future__ import annotations

from .lxc_runtime import Lxc
from .nspawn_runtime import Nspawn
from .oci_runtime import OciRuntime
from .proxmox_runtime import Proxmox
from .runtime import Runtime

RUNTIMES: dict[str, Runtime] = {
    "lxc": Lxc(),
    "nspawn": Nspawn(),
    "runc": OciRuntime("runc"),
    "crun": OciRuntime("crun"),
    "proxmox": Proxmox(),
}
# the variables that belong to each
OWN_VARIABLES = {name: runtime.variables for name, runtime in RUNTIMES.items()}
