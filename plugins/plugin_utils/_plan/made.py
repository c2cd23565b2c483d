# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Record where the container of a name is, so that a run with other variables does not leave its files behind."""

from __future__ import annotations

import json
import typing as t
from collections.abc import Mapping

from ...module_utils._errors import show
from .._container.model import ContainerError, Option
from .known import Node, Places
from .request import Request
from .runtime import File, Runtime

_VARIABLES = {"file": ("runtime", "folder", "vmid"), "rootfs": ("rootfs",)}


def made_file(request: Request, places: Places, runtime: Runtime) -> File:
    """Return the file that holds the record."""
    made = {"runtime": request.runtime, **_where(request, places, runtime)}
    return File(places.made, json.dumps(made) + "\n", "none", "0600")


def require_same_place(request: Request, places: Places, runtime: Runtime, node: Node) -> None:
    """Check that the container of this name, if there is one, has its files where this run has them.

    Raises ``ContainerError``, which names the former runtime and place.
    """
    try:
        made = json.loads(node.texts.get(places.made) or "{}")
    except ValueError:
        return
    if not isinstance(made, Mapping):
        return
    for name, path in _where(request, places, runtime).items():
        former = made.get(name)
        if former not in (None, path):
            raise ContainerError(
                Option("name"),
                f": {show(request.name)} was made with the runtime {show(str(made.get('runtime')))} and has its files at"
                f" {show(str(former))}, not at {show(path)}; to move it, remove it first with the former values of ",
                *_options(_VARIABLES[name]),
                " and the state absent",
            )


def _where(request: Request, places: Places, runtime: Runtime) -> dict[str, str]:
    return {"file": runtime.file(request, places), "rootfs": places.rootfs}


def _options(names: t.Sequence[str]) -> t.Iterator[t.Any]:
    for number, name in enumerate(names):
        if number:
            yield " and " if number == len(names) - 1 else ", "
        yield Option(name)
