# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The container, merged from the image and the role's variables, as far as they are known."""

from __future__ import annotations

import re
import typing as t

from .._container.merge import container_from
from .._container.model import Container
from .known import Facts, Places, Root
from .mounting import without_kind
from .request import Request
from .runtime import Runtime

_NUMERIC_USER = re.compile(r"[0-9]{1,10}(?::[0-9]{1,10})?\Z")
_FROM_REQUEST = ("name", "hostname", "env", "entrypoint", "command", "working_dir", "stop_signal", "uid_map", "gid_map")
# an image that is not known yet must not fail a check
_UNKNOWN_IMAGE: Facts = {"cmd": ["/sbin/init"]}


def merged(request: Request, places: Places, runtime: Runtime, wanted: list[Facts], root: Root | None) -> Container:
    """Merge image and variables; what is not known yet is replaced by what passes every check. Raises ``ContainerError``."""
    image = _UNKNOWN_IMAGE if root is None else root.image
    mounts = root.mounts if root is not None and root.mounts is not None else without_kind(wanted)
    overrides = {name: getattr(request, name) for name in _FROM_REQUEST}
    user = _user(request, runtime, image, root)
    return container_from(image, {**overrides, "rootfs": places.rootfs, "mounts": mounts, "user": user})


def _user(request: Request, runtime: Runtime, image: Facts, root: Root | None) -> t.Any:
    """Return the user instead of the image's, or ``None``; a stand-in until accounts are looked up."""
    if root is not None and root.mounts is not None:
        return (root.user_info or {}).get("user") if request.user else None
    if request.user is not None:
        is_known = _NUMERIC_USER.match(request.user) is not None and not runtime.needs_user_info
        return request.user if is_known else _stand_in(request)
    is_resolved = image.get("uid") is not None and image.get("gid") is not None
    return None if is_resolved and not runtime.needs_user_info else _stand_in(request)


def _stand_in(request: Request) -> str:
    """Return a user that needs no look-up: the first ids of the maps."""
    ids = [ranges[0].partition(":")[0] if ranges else "0" for ranges in (request.uid_map, request.gid_map)]
    user = ":".join(ids)
    return user if _NUMERIC_USER.match(user) else "0:0"
