# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Which volumes a container has, and where on the host they lie (docs/behaviour.md, section 9)."""

from __future__ import annotations

import posixpath
import typing as t
import urllib.parse
from collections.abc import Mapping, Sequence

from ansible_collections.hypervisor.oci.plugins.module_utils._errors import show
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import (
    ContainerError,
)
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.text import (
    require_line,
)

_KEYS = ("source", "target", "read_only")


def volumes_of(
    image: t.Mapping[str, t.Any],
    folder: str,
    declared: t.Sequence[t.Mapping[str, t.Any]] = (),
    taken: t.Sequence[str] = (),
) -> list[dict[str, t.Any]]:
    """The declared volumes and the image's, as mounts: C(source), C(target) and C(read_only), by target.

    C(folder) is where those without a source lie: one directory each, whose name tells the target. Of the image's, those
    whose target is declared or among C(taken) are left out. Raises C(ContainerError).
    """
    found: dict[str, dict[str, t.Any]] = {}
    for item in _sequence("volumes", declared):
        volume = _declared(item, folder)
        target = volume["target"]
        if target in found:
            raise ContainerError(
                f"volumes: two of them have the target {show(target)}; leave one out"
            )
        found[target] = volume
    others = {_target("mounts", item) for item in _sequence("mounts", taken)}
    for word in _sequence("image.volumes", image.get("volumes")):
        target = _target("image.volumes", word)
        if target not in others:
            found.setdefault(target, _volume(target, folder))
    return [found[target] for target in sorted(found)]


def _sequence(field: str, value: t.Any) -> t.Sequence[t.Any]:
    if value is None:
        return ()
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ContainerError(f"{field} must be a list")
    return value


def _declared(item: t.Any, folder: str) -> dict[str, t.Any]:
    if not isinstance(item, Mapping):
        raise ContainerError(f"volumes must be mappings with {', '.join(_KEYS)}")
    for key in item:
        if key not in _KEYS:
            raise ContainerError(
                f"volumes: {show(str(key))} is no key of a volume; there are: {', '.join(_KEYS)}"
            )
    volume = _volume(_target("volumes", item.get("target")), folder)
    if item.get("source") is not None:
        volume["source"] = item["source"]
    volume["read_only"] = bool(item.get("read_only"))
    return volume


def _volume(target: str, folder: str) -> dict[str, t.Any]:
    # one component, whatever the image says: nothing leads out of the folder
    name = urllib.parse.quote(target[1:], safe="")
    return {
        "source": posixpath.join(folder, name),
        "target": target,
        "read_only": False,
    }


def _target(field: str, value: t.Any) -> str:
    if not isinstance(value, str):
        raise ContainerError(f"{field}: {show(str(value))} is no path")
    # a relative one of an image's is one from the root, as runtimes take it
    target = posixpath.normpath("/" + require_line(field, value).lstrip("/"))
    if target == "/":
        raise ContainerError(
            f"{field}: {show(value)} is the root itself, which cannot be a volume; give another target"
        )
    return target
