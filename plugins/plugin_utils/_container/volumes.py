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

from ...module_utils._errors import show
from ...module_utils._container.reserved import ignored_volume, volume_problem
from .model import ContainerError, Mount, Option
from .places import require_places
from .text import require_line

_KEYS = ("source", "target", "read_only")


class Volumes(t.NamedTuple):
    """Volumes as mounts, sorted by target, and a sentence for each volume of the image that is ignored."""

    mounts: list[dict[str, t.Any]]
    ignored: list[str]


def volumes_of(
    image: t.Mapping[str, t.Any],
    folder: str,
    declared: t.Sequence[t.Mapping[str, t.Any]] = (),
    mounts: t.Sequence[t.Mapping[str, t.Any]] = (),
) -> Volumes:
    """The declared volumes and the image's, as mounts: ``source``, ``target`` and ``read_only``.

    The image's have ``from_image``, too: only the node can tell whether links in the root lead them to where none can
    be. ``folder`` is where those without a source lie: one directory each, whose name tells the target. Of the image's,
    those whose target is declared or one of ``mounts`` are left out, and those that no container can have are ignored.
    Raises ``ContainerError``.
    """
    for field, value, kind, what in (("image", image, Mapping, "a mapping"), ("folder", folder, str, "a path")):
        if not isinstance(value, kind):
            raise ContainerError(Option(field), f" must be {what}")
    found: dict[str, dict[str, t.Any]] = {}
    for item in _sequence("volumes", declared):
        volume = _declared(item, folder)
        target = volume["target"]
        if target in found:
            raise ContainerError(Option("volumes"), f": two volumes have the target {show(target)}; remove one")
        found[target] = volume
    others = [_mount(item) for item in _sequence("mounts", mounts)]
    require_places([*map(_mount, found.values()), *others])
    taken = {mount.target for mount in others}
    ignored = []
    for word in _sequence("image.volumes", image.get("volumes")):
        target = _target("image.volumes", word)
        warning = ignored_volume(target, target)
        if warning is not None:
            ignored.append(warning)
        elif target not in taken:
            found.setdefault(target, {**_volume(target, folder), "from_image": True})
    return Volumes([found[target] for target in sorted(found)], ignored)


def _mount(item: t.Any) -> Mount:
    """What its places are; the rest is looked at when it is merged."""
    if not isinstance(item, Mapping):
        raise ContainerError(Option("mounts"), " must be a list of mappings with source and target")
    return Mount(
        source=require_line("mounts", str(item.get("source") or "/")),
        target=_target("mounts", item.get("target")),
        read_only=_read_only("mounts.read_only", item),
        type=str(item.get("type") or "bind"),
    )


def _sequence(field: str, value: t.Any) -> t.Sequence[t.Any]:
    if value is None:
        return ()
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ContainerError(Option(field), " must be a list")
    return value


def _declared(item: t.Any, folder: str) -> dict[str, t.Any]:
    if not isinstance(item, Mapping):
        raise ContainerError(Option("volumes"), f" must be a list of mappings with {', '.join(_KEYS)}")
    for key in item:
        if key not in _KEYS:
            raise ContainerError(
                Option("volumes"), f": unknown key {show(str(key))} of a volume; the keys are {', '.join(_KEYS)}"
            )
    target = _target("volumes", item.get("target"))
    problem = volume_problem(target, target)
    if problem is not None:
        raise ContainerError(Option("volumes"), f": {problem}; give another target")
    volume = _volume(target, folder)
    if item.get("source") is not None:
        if not isinstance(item["source"], str):
            raise ContainerError(Option("volumes.source"), " must be a path")
        volume["source"] = item["source"]
    volume["read_only"] = _read_only("volumes.read_only", item)
    return volume


def _read_only(field: str, item: t.Mapping[str, t.Any]) -> bool:
    value = item.get("read_only") or False
    if not isinstance(value, bool):
        raise ContainerError(Option(field), " must be true or false")
    return value


def _volume(target: str, folder: str) -> dict[str, t.Any]:
    # one component, whatever the image says: nothing leads out of the folder
    name = urllib.parse.quote(target[1:], safe="")
    return {"source": posixpath.join(folder, name), "target": target, "read_only": False}


def _target(field: str, value: t.Any) -> str:
    if not isinstance(value, str):
        raise ContainerError(Option(field), f": {show(str(value))} must be a path")
    # a relative one of an image's is one from the root, as runtimes take it
    return posixpath.normpath("/" + require_line(field, value).lstrip("/"))
