# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter ``container``: image facts and overrides as one checked container."""

from __future__ import annotations

import typing as t

from ..plugin_utils._container.filters import adapted, filter_module
from ..plugin_utils._container.merge import container_from
from ..plugin_utils._container.model import Container
from ..plugin_utils._container.wrapping import needs_wrapper


@adapted
def container(
    image: t.Any,
    runtime: str = "lxc",
    runtime_environment: bool | None = None,
    version: str | None = None,
    settings: t.Any = (),
    **overrides: t.Any,
) -> dict[str, t.Any]:
    """The merged model as a mapping; ``needs_wrapper`` speaks of the runtime with the same arguments."""
    merged = container_from(image, overrides)
    return _to_mapping(
        merged,
        needs_wrapper(merged, runtime, runtime_environment=runtime_environment, version=version, settings=settings),
    )


def _to_mapping(merged: Container, wrapper: bool) -> dict[str, t.Any]:
    user = merged.user
    return {
        "name": merged.name,
        "rootfs": merged.rootfs,
        "hostname": merged.hostname,
        "argv": list(merged.argv),
        "env": dict(merged.env),
        "working_dir": merged.working_dir,
        "user": {"name": user.name, "uid": user.uid, "gid": user.gid, "groups": list(user.groups), "home": user.home},
        "stop_signal": merged.stop_signal,
        "architecture": merged.architecture,
        "os": merged.os,
        "created": merged.created,
        "mounts": [
            {
                "source": mount.source,
                "target": mount.target,
                "read_only": mount.read_only,
                "type": mount.type,
                "options": list(mount.options),
            }
            for mount in merged.mounts
        ],
        "uid_map": [f"{r.container}:{r.host}:{r.count}" for r in merged.uid_map],
        "gid_map": [f"{r.container}:{r.host}:{r.count}" for r in merged.gid_map],
        "volumes": list(merged.volumes),
        "exposed_ports": list(merged.exposed_ports),
        "labels": dict(merged.labels),
        "needs_wrapper": wrapper,
    }


FilterModule = filter_module(container)
