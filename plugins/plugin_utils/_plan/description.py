# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The files that describe a container on its node."""

from __future__ import annotations

from .._container.model import Container
from .etc_files import hosts, resolv_conf
from .mounting import etc_names
from .health import Check
from .runtime import Context, File, Runtime


def plan_files(context: Context, runtime: Runtime, check: Check | None = None) -> list[File]:
    """Return all files but that of a manager, with those for a health check. Raises ``ContainerError`` for what they cannot express."""
    request, places = context.request, context.places
    files = []
    if not runtime.is_managed:
        files.append(File(runtime.file(request, places), runtime.render(context), runtime.shown, "0600"))
    files += _etc_files(context, runtime)
    wrapper = runtime.wrapper(context) if request.wrapper else None
    if wrapper is not None:
        # it may hold secrets of the environment, and the container's user has to read it
        files.append(File(places.wrapper, wrapper, "script", "0400", _host_uid(context.container)))
    if check is not None:
        files += runtime.join_files(context, check.argv)
    return [*files, *runtime.service_files(context)]


def _etc_files(context: Context, runtime: Runtime) -> list[File]:
    request = context.request
    hostname = context.container.hostname
    texts = {
        "hosts": hosts(hostname, request.extra_hosts),
        "hostname": f"{hostname}\n",
        "resolv.conf": resolv_conf(request, context.node),
    }
    return [File(f"{context.places.own_folder}/{name}", texts[name]) for name in etc_names(request, runtime)]


def _host_uid(container: Container) -> int:
    uid = container.user.uid
    for item in container.uid_map:
        if item.container <= uid < item.container + item.count:
            return item.host + uid - item.container
    return uid
