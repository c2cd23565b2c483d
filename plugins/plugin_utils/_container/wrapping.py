# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The runtimes by name, and which of their descriptions need the exec wrapper (docs/behaviour.md, section 9)."""

from __future__ import annotations

import typing as t

from ...module_utils._errors import show
from . import lxc, nspawn, proxmox, runtime_spec
from .model import Container, ContainerError, Option


class Wrapping(t.NamedTuple):
    """Whether a container needs the wrapper, and its text, or ``None``. Options that a runtime does not know are ignored."""

    is_needed: t.Callable[..., bool]
    script: t.Callable[..., str | None]


RUNTIMES = {
    "lxc": Wrapping(lxc.needs_wrapper, lxc.wrapper_script),
    "proxmox": Wrapping(proxmox.needs_wrapper, proxmox.wrapper_script),
    "nspawn": Wrapping(nspawn.needs_wrapper, nspawn.wrapper_script),
    "runc": Wrapping(runtime_spec.needs_wrapper, runtime_spec.wrapper_script),
    "crun": Wrapping(runtime_spec.needs_wrapper, runtime_spec.wrapper_script),
}


def needs_wrapper(container: Container, runtime: str, **options: t.Any) -> bool:
    """Return whether the description for ``runtime`` with these options needs the wrapper. Raises ``ContainerError``."""
    return _wrapping(runtime).is_needed(container, **options)


def wrapper_script(container: Container, runtime: str, **options: t.Any) -> str | None:
    """Return the text of the wrapper, or ``None`` if the description does not need it. Raises ``ContainerError``."""
    return _wrapping(runtime).script(container, **options)


def _wrapping(runtime: str) -> Wrapping:
    found = RUNTIMES.get(runtime)
    if found is None:
        raise ContainerError(Option("runtime"), f": unknown runtime {show(str(runtime))}; use {', '.join(RUNTIMES)}")
    return found
