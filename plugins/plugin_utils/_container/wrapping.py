# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The exec wrapper for each runtime: whether it is needed, and its text (docs/behaviour.md, section 9)."""

from __future__ import annotations

import typing as t

from ...module_utils._errors import show
from . import lxc, nspawn, proxmox
from .lxc_values import plan_start
from .model import Container, ContainerError

RUNTIMES = ("lxc", "proxmox", "nspawn", "runc", "crun")


def needs_wrapper(
    container: Container,
    runtime: str,
    *,
    runtime_environment: bool | None = None,
    version: str | None = None,
    settings: t.Sequence[str] = (),
) -> bool:
    """Whether the rendering for ``runtime`` needs the wrapper; the other arguments are those of ``render_lxc``."""
    if runtime == "lxc":
        return lxc.needs_wrapper(container, runtime_environment=runtime_environment, version=version, settings=settings)
    if runtime == "proxmox":
        return proxmox.needs_wrapper(container)
    if runtime == "nspawn":
        return nspawn.needs_wrapper(container)
    if runtime in RUNTIMES:
        # JSON holds every word
        return False
    raise ContainerError(f"runtime: {show(str(runtime))} is not known; use one of {', '.join(RUNTIMES)}")


def wrapper_script(
    container: Container,
    runtime: str,
    *,
    runtime_environment: bool | None = None,
    version: str | None = None,
    settings: t.Sequence[str] = (),
) -> str | None:
    """The text of the wrapper that goes with the rendering; ``None`` where none is needed. Raises ``ContainerError``."""
    if runtime == "lxc":
        return lxc.wrapper_script(
            container, runtime_environment=runtime_environment, version=version, settings=settings
        )
    if not needs_wrapper(container, runtime):
        return None
    return plan_start(container, False).script
