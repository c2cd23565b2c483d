# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""What the role does for one container, as plain data: files, directories, mounts and commands.

The same function plans with whatever is known so far: the variables alone, then the node, then the image, then the tree.
Each time it checks everything that can be checked, so that nothing is stopped for a container that cannot be described.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from dataclasses import dataclass

from ...module_utils._errors import show
from ...module_utils._remote.arguments import HTTP_ARGUMENTS
from .etc_files import hosts, resolv_conf
from .control import control_script
from .merge import container_from
from .model import Container, ContainerError
from .request import Request
from .runtime import Context, Node, Places, Runtime
from .runtimes import RUNTIMES
from .service import Service, service_of
from .volumes import volumes_of

Facts = t.Mapping[str, t.Any]
Item = t.Dict[str, t.Any]

_NUMERIC_USER = re.compile(r"[0-9]{1,10}(?::[0-9]{1,10})?\Z")
_ROOT_VOLUME = re.compile(r"^rootfs: *[^,\n]*", re.MULTILINE)
_LOOK_FOR = 'm=; for p; do command -v "$p" >/dev/null || m="$m $p"; done; echo $m'
# of a result of oci_rootfs, what belongs to one run of it
_PASSING = ("changed", "ansible_facts", "invocation", "diff", "warnings")


@dataclass(frozen=True)
class Root:
    """The result of ``oci_rootfs``, and what was found in the tree; ``None`` until then."""

    result: Facts
    user_info: Facts | None = None
    mounts: list[Facts] | None = None
    # what the volume is to hold, as a plan before it was filled said
    key: str | None = None

    @property
    def image(self) -> Facts:
        image: Facts = self.result.get("image") or {}
        return image


def plan(request: Request, node: Node | None = None, root: Root | None = None) -> Item:
    """Return the plan; keys are always there. Raises ``ContainerError`` for what cannot be."""
    runtime = RUNTIMES[request.runtime]
    places = _places(request, runtime)
    planned = _without_files(request, places, runtime, root)
    if node is not None:
        planned["service"] = service_of(request, places, node, runtime)
    if request.state == "absent":
        return planned
    _check(request, places, runtime)
    container = _container(request, places, planned["wanted_mounts"], root)
    if node is None:
        return planned
    if root is not None and request.runtime == "proxmox":
        planned["volume_key"] = root.key or _volume_key(request, node, root)
        planned["is_filled"] = planned["volume_key"] == node.note.get("key")
    nss = root.user_info.get("nspawn") if root and root.user_info else None
    planned["warnings"] += runtime.warnings(container)
    context = Context(request, places, node, container, nss)
    _describe(planned, context, runtime, root)
    return planned


def _without_files(request: Request, places: Places, runtime: Runtime, root: Root | None) -> Item:
    """Return the plan as far as it follows from the variables and the image."""
    volumes, warnings = _volumes(request, places, root)
    image = root.image if root is not None else {}
    return {
        **_facts(request, places, runtime),
        "service": None,
        "volumes": volumes,
        "wanted_mounts": _wanted_mounts(request, places, volumes),
        "writable": _writable(volumes, request.mounts),
        "directories": _directories(request, places, runtime, bool(volumes)),
        "files": [],
        "configuration": None,
        "configuration_differs": False,
        "volume_key": None,
        "is_filled": False,
        "image_user": request.user or image.get("user") or "",
        "working_dir": request.working_dir or image.get("working_dir") or "",
        "warnings": warnings,
    }


def _places(request: Request, runtime: Runtime) -> Places:
    folder = runtime.folder(request)
    return Places(
        folder=folder,
        rootfs=runtime.rootfs(request, folder),
        own_folder=f"{request.state_folder}/{request.name}",
        own_volumes=f"{request.volumes_folder}/{request.name}",
        log=f"{request.log_folder}/{request.name}.log",
    )


def _facts(request: Request, places: Places, runtime: Runtime) -> Item:
    """Return what follows from the variables alone."""
    is_proxmox = request.runtime == "proxmox"
    own = [] if is_proxmox else [runtime.file(request, places)]
    return {
        "name": request.name,
        "state": request.state,
        "places": {
            "rootfs": places.rootfs,
            "folder": places.folder,
            "own_folder": places.own_folder,
            "own_volumes": places.own_volumes,
            "log": places.log,
            "previous": places.previous,
            "note": places.note,
            "file": runtime.file(request, places),
            "mount_folder": places.rootfs.rpartition("/")[0],
        },
        "look_for_programs": ["sh", "-c", _LOOK_FOR, "sh", *runtime.programs],
        "version_command": runtime.version(),
        "removed": [*own, places.own_folder, places.log, f"{places.log}.lxc"],
        "id_ranges": runtime.id_ranges(request),
        # the former tree must be there until the new container runs
        "keep": max(request.keep, 1),
        "needs_user_info": bool(request.user) or runtime.needs_user_info,
        "has_resolv_conf": request.resolv_conf and not is_proxmox,
    }


def _check(request: Request, places: Places, runtime: Runtime) -> None:
    for field, path in (("folder", places.folder), ("rootfs", places.rootfs)):
        if not path.startswith("/") or ".." in path.split("/"):
            raise ContainerError(f"{field}: {show(path)} is not an absolute path")
    runtime.check(request, places)
    volumes = re.escape(request.volumes_folder.rstrip("/"))
    inside = re.compile(volumes + r"/+[^/]+/+[^/]+/+[^/]")
    for item in (*request.volumes, *request.mounts):
        source = item.get("source")
        if isinstance(source, str) and inside.match(source):
            raise ContainerError(
                f"the source {show(source)} lies in a volume, whose container could put a link there that leads the mount to"
                " any place of the node; choose a source outside of volumes, or a volume as a whole"
            )


def _volumes(request: Request, places: Places, root: Root | None) -> tuple[list[Item], list[str]]:
    if request.state == "absent":
        return [], []
    image = root.image if root is not None and request.image_volumes else {}
    found = volumes_of(image, places.own_volumes, request.volumes, request.mounts)
    return found.mounts, found.ignored


def _etc_files(request: Request) -> list[str]:
    if request.runtime == "proxmox":
        return []
    names = ["hosts", "hostname"] if request.hosts else []
    return [*names, "resolv.conf"] if request.resolv_conf else names


def _wanted_mounts(request: Request, places: Places, volumes: list[Item]) -> list[Facts]:
    taken = {mount.get("target") for mount in request.mounts}
    own = [
        {"source": f"{places.own_folder}/{name}", "target": f"/etc/{name}", "read_only": True, "is_file": True}
        for name in _etc_files(request)
        if f"/etc/{name}" not in taken
    ]
    return [*volumes, *request.mounts, *own]


def _writable(volumes: list[Item], mounts: list[Facts]) -> list[str]:
    """Return what the container can write to, so that nothing of the node's is looked up below."""
    sources = [item.get("source") for item in (*mounts, *volumes) if item.get("read_only") is not True]
    return [source for source in sources if source]


def _directories(request: Request, places: Places, runtime: Runtime, has_volumes: bool) -> list[Item]:
    """Return the directories to create. A mapped root must be able to pass to its tree and its mounts, and no other user."""
    found: list[Item] = [
        {"path": request.state_folder, "passable": True, "shared": True},
        {"path": places.own_folder, "passable": True},
        {"path": request.log_folder, "mode": "0750"},
    ]
    if has_volumes:
        found += [
            {"path": request.volumes_folder, "passable": True, "shared": True},
            {"path": places.own_volumes, "passable": True},
        ]
    return found + runtime.directories(request, places)


def _container(request: Request, places: Places, wanted: list[Facts], root: Root | None) -> Container:
    """Merge image and variables; what is not known yet is taken for something that changes no check."""
    image = {"cmd": ["/sbin/init"]} if root is None else dict(root.image)
    user = _user(request, image, root)
    mounts = root.mounts if root is not None and root.mounts is not None else [
        {key: value for key, value in mount.items() if key != "is_file"}
        for mount in wanted
    ]  # fmt: skip
    return container_from(
        image,
        {
            "name": request.name,
            "rootfs": places.rootfs,
            "hostname": request.hostname,
            "env": request.env,
            "entrypoint": request.entrypoint,
            "command": request.command,
            "working_dir": request.working_dir,
            "stop_signal": request.stop_signal,
            "user": user,
            "mounts": mounts,
            "uid_map": request.uid_map,
            "gid_map": request.gid_map,
        },
    )


def _user(request: Request, image: Facts, root: Root | None) -> t.Any:
    """Return the user instead of the image's, or ``None``; a stand-in as long as accounts are not looked up."""
    if root is not None and root.mounts is not None:
        return (root.user_info or {}).get("user") if request.user else None
    if request.user is not None:
        return request.user if _is_known(request, request.user) else _stand_in(request)
    is_resolved = image.get("uid") is not None and image.get("gid") is not None
    needs_more = RUNTIMES[request.runtime].needs_user_info
    return None if is_resolved and not needs_more else _stand_in(request)


def _is_known(request: Request, user: str) -> bool:
    is_number = _NUMERIC_USER.match(user) is not None
    return is_number and not RUNTIMES[request.runtime].needs_user_info


def _stand_in(request: Request) -> str:
    """Return a user for whom nothing has to be looked up: the first of the id maps."""
    ids = [ranges[0].partition(":")[0] if ranges else "0" for ranges in (request.uid_map, request.gid_map)]
    user = ":".join(ids)
    return user if _NUMERIC_USER.match(user) else "0:0"


def _describe(planned: Item, context: Context, runtime: Runtime, root: Root | None) -> None:
    """Add the files that describe the container."""
    request, places = context.request, context.places
    service: Service = planned["service"]
    text = runtime.render(context)
    if request.runtime == "proxmox":
        planned["configuration"] = text
        planned["configuration_differs"] = text != context.node.configuration
        note = _note(planned, root)
        files = [_file(places.note, note, "none", "0600")]
    else:
        files = [_file(runtime.file(request, places), text, runtime.shown, "0600")]
    files += _etc(context)
    wrapper = runtime.wrapper(context) if request.wrapper else None
    if wrapper is not None:
        # it may hold secrets of the environment, and the container's user has to read it
        file = _file(places.wrapper, wrapper, "script", "0400")
        files.append({**file, "owner": _host_uid(context.container)})
    if service["kind"] == "systemd":
        unit = service["unit_file"]
        files.append(_file(unit, runtime.unit_text(context), "all", "0644"))
        if not unit.endswith(".service"):
            folder = unit.rpartition("/")[0]
            planned["directories"].append({"path": folder, "mode": "0755"})
    elif service["kind"] == "script":
        script = control_script(context, runtime.control(context))
        files.append(_file(places.control, script, "all", "0700"))
    planned["files"] = files


def _file(path: str, content: str, shown: str, mode: str) -> Item:
    return {"path": path, "content": content, "shown": shown, "mode": mode}


def _etc(context: Context) -> list[Item]:
    request = context.request
    hostname = context.container.hostname
    texts = {
        "hosts": hosts(hostname, request.extra_hosts),
        "hostname": f"{hostname}\n",
        "resolv.conf": resolv_conf(request, context.node),
    }
    folder = context.places.own_folder
    return [_file(f"{folder}/{name}", texts[name], "all", "0644") for name in _etc_files(request)]


def _host_uid(container: Container) -> int:
    uid = container.user.uid
    for item in container.uid_map:
        if item.container <= uid < item.container + item.count:
            return item.host + uid - item.container
    return uid


def _note(planned: Item, root: Root | None) -> str:
    """Return what is remembered of a volume of Proxmox VE, which is mounted only while its container does not run."""
    if root is None:
        return ""
    result = {key: value for key, value in root.result.items() if key not in _PASSING}
    note = {
        "key": planned["volume_key"],
        "root": result,
        "user_info": root.user_info,
        "places": {"mounts": root.mounts},
    }
    # in the order of the image: that of its variables is the order in which they are set
    return json.dumps(note)


def _volume_key(request: Request, node: Node, root: Root) -> str:
    """Return a digest of all that decides what the volume holds, and what is found out while it is mounted."""
    match = _ROOT_VOLUME.search(node.configuration)
    key = {
        "volume": match.group() if match else "",
        "image": [root.result.get(name) for name in ("manifest_digest", "config_digest", "platform")],
        # how a server is spoken to decides nothing of it, and holds secrets
        "rootfs_options": {name: value for name, value in request.rootfs_options.items() if name not in HTTP_ARGUMENTS},
        "maps": [request.uid_map, request.gid_map],
        "user": request.user,
        "working_dir": request.working_dir,
        "mounts": request.mounts,
        "volumes": request.volumes,
        "image_volumes": request.image_volumes,
    }
    text = json.dumps(key, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
