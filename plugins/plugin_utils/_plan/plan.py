# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The plan of a container: what the role does, as far as it is known (docs/behaviour.md, section 10)."""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass, field, replace

from ...module_utils._errors import show
from .._container.model import ContainerError, Option
from .description import plan_files
from .health import Check, Health, check_of, health_of
from .known import RESOLV_CONF, SYSTEMD, UPLINK, Facts, Node, Places, Root, places_of
from .made import made_file, require_same_place
from .merging import merged
from .mounting import plan_directories, plan_mounts, plan_volumes, require_sources, writable_sources
from .request import Request
from .runtime import Context, Directory, File, Runtime, Service
from .runtimes import RUNTIMES
from .look import look_command
from .volume_note import former_targets, note_file, read_note, volume_key


@dataclass(frozen=True)
class Plan:
    """What the tasks carry out. ``look`` is the command that looks at the node. ``service`` is ``None``, and ``files`` are empty, until the node is known.

    ``configuration`` is the new text of a manager's file, ``former_configuration`` the current one. ``volume_key`` says what a
    managed container's volume is to hold, and ``is_filled`` that it holds that. ``note`` is the last run's. ``health`` is ``None`` for a container
    without a health check.
    """

    name: str
    state: str
    is_managed: bool
    places: dict[str, str]
    look: list[str]
    rootfs_arguments: Facts
    volume_commands: dict[str, list[str]]
    removed: list[str]
    id_ranges: list[dict[str, str]]
    needs_user_info: bool
    image_user: str
    program: str
    working_dir: str
    start_wait: int
    keep: int
    verify: str
    repair: str
    purge: bool
    volumes: list[dict[str, t.Any]]
    wanted_mounts: list[Facts]
    writable: list[str]
    directories: list[Directory]
    warnings: list[str]
    service: Service | None = None
    files: list[File] = field(default_factory=list)
    configuration: str | None = None
    former_configuration: str | None = None
    configuration_differs: bool = False
    volume_key: str = ""
    is_filled: bool = False
    has_root: bool = False
    has_note: bool = False
    health: Health | None = None
    note: Facts = field(default_factory=dict)

    def as_result(self, contents: bool) -> dict[str, t.Any]:
        """Return plain data; what may hold passwords or the environment only with ``contents``."""
        result = asdict(self)
        for name in ("directories", "files"):
            result[name] = [{key: item[key] for key in item if item[key] is not None} for item in result[name]]
        if not contents:
            result.update(configuration=None, former_configuration=None, note={}, rootfs_arguments={})
            result["health"] = result["health"] and {**result["health"], "input": ""}
            for item in result["files"]:
                del item["content"]
        return result


@dataclass(frozen=True)
class _Case:
    """One call of ``plan``: the container, and what is known."""

    request: Request
    runtime: Runtime
    places: Places
    node: Node | None
    root: Root | None


def plan(request: Request, node: Node | None = None, root: Root | None = None) -> Plan:
    """Return the plan, and check everything that can be checked with what is known. Raises ``ContainerError``."""
    runtime = RUNTIMES[request.runtime]
    folder = runtime.folder(request)
    places = places_of(request, folder, runtime.rootfs(request, folder))
    case = _Case(request, runtime, places, node, root)
    outline = _outline(case)
    if node is not None:
        require_same_place(request, places, runtime, node)
    if request.state == "absent":
        return replace(outline, **_served(case))
    _check(case)
    container = merged(request, places, runtime, outline.wanted_mounts, root)
    outline = replace(outline, program="".join(container.argv[:1]))
    if node is None:
        return outline
    note = read_note(node, places)
    nss = root.user_info.get("nspawn") if root is not None and root.user_info else None
    context = Context(request, places, node, container, nss, former_targets(note), _is_stacked(root))
    served = replace(outline, **_served(case), note=note, warnings=[*outline.warnings, *runtime.warnings(container)])
    return _with_files(served, case, context)


def _is_stacked(root: Root | None) -> bool:
    return root is not None and root.result.get("store") == "overlay"


def _outline(case: _Case) -> Plan:
    """Return the part of the plan that follows from the variables and the image."""
    request, runtime, places = case.request, case.runtime, case.places
    volumes = plan_volumes(request, places, case.root)
    image = case.root.image if case.root is not None else {}
    own = [] if runtime.is_managed else [runtime.file(request, places)]
    return Plan(
        name=request.name,
        state=request.state,
        is_managed=runtime.is_managed,
        places=_shown_places(case),
        look=_look(case),
        rootfs_arguments=_rootfs_arguments(request, places),
        volume_commands=runtime.volume_commands(request),
        removed=[*own, places.own_folder, places.log, f"{places.log}.lxc"],
        id_ranges=runtime.id_ranges(request),
        needs_user_info=bool(request.user) or runtime.needs_user_info,
        image_user=request.user or image.get("user") or "",
        program="",
        working_dir=request.working_dir or image.get("working_dir") or "",
        start_wait=request.start_wait,
        keep=request.keep,
        verify=request.verify,
        repair=request.repair,
        purge=request.purge,
        volumes=volumes.mounts,
        wanted_mounts=plan_mounts(request, places, runtime, volumes),
        writable=writable_sources(request, volumes),
        directories=plan_directories(request, places, runtime, volumes),
        warnings=volumes.ignored,
    )


def _shown_places(case: _Case) -> dict[str, str]:
    places = case.places
    return {
        "rootfs": places.rootfs,
        "mount_folder": places.rootfs.rpartition("/")[0],
        "folder": places.folder,
        "file": case.runtime.file(case.request, places),
        "own_folder": places.own_folder,
        "own_volumes": places.own_volumes,
        "previous": places.previous,
        "note": places.note,
    }


# Arguments of ``oci_rootfs`` that have no default.
_GIVEN = (
    *("registry_auth_file", "registry_mirrors", "registry_plain_http"),
    *("policy", "store_dir", "signature_keys", "signature_threshold", "signature_identity", "signatures"),
)


def _look(case: _Case) -> list[str]:
    runtime = case.runtime
    texts = [RESOLV_CONF, UPLINK] if case.request.resolv_conf else []
    if runtime.is_managed:
        texts = [runtime.file(case.request, case.places), case.places.note]
    is_absent = case.request.state == "absent"
    version = () if is_absent else runtime.version_command
    paths = [SYSTEMD, case.places.rootfs, *runtime.paths]
    return look_command(runtime.programs, version, paths, [case.places.made, *texts])


def _rootfs_arguments(request: Request, places: Places) -> Facts:
    """Return the arguments of ``oci_rootfs``."""
    names = ("remote_src", "fetch", "ref", "digest", "platform", "force", "reachable", "uid_map", "gid_map")
    arguments = {
        **request.rootfs_options,
        **{name: getattr(request, name) for name in names},
        **_given_arguments(request),
        "src": request.src if request.state != "absent" else None,
        "dest": places.rootfs,
        # the former tree must stay until the new container runs
        "keep": max(request.keep, 1),
    }
    return {name: value for name, value in arguments.items() if value is not None}


def _given_arguments(request: Request) -> Facts:
    """Return the arguments for registries, policy and signatures that are given; ``rootfs_options`` may hold the others."""
    found = {name: getattr(request, name) for name in _GIVEN}
    return {name: value for name, value in found.items() if value is not None}


def _check(case: _Case) -> None:
    for name, path in (("folder", case.places.folder), ("rootfs", case.places.rootfs)):
        if not path.startswith("/") or ".." in path.split("/"):
            raise ContainerError(Option(name), f": {show(path)} is not an absolute path without '..'")
    case.runtime.check(case.request, case.places)
    # a variable that is wrong is told before anything is known
    check_of(case.request, {})
    require_sources(case.request)
    if case.runtime.is_managed and case.request.verify != "none":
        raise ContainerError(
            Option("verify"),
            ": the root file system lies in a volume that is mounted for an exchange alone; leave it out",
        )
    if case.node is not None and case.node.missing:
        missing = ", ".join(map(show, case.node.missing))
        raise ContainerError(
            Option("runtime"), f": {missing} is not installed on this node; install {case.request.runtime}"
        )


def _served(case: _Case) -> dict[str, t.Any]:
    """Return what follows from the node alone."""
    node = case.node
    if node is None:
        return {}
    service = case.runtime.service(case.request, case.places, node)
    return {
        "service": service,
        "has_root": case.places.rootfs in node.paths,
        "has_note": case.places.note in node.texts,
    }


def _with_files(planned: Plan, case: _Case, context: Context) -> Plan:
    """Return the plan with the files that describe the container, and with what the volume remembers."""
    check = check_of(case.request, case.root.image if case.root is not None else {})
    files = [*plan_files(context, case.runtime, check), made_file(case.request, case.places, case.runtime)]
    planned = replace(planned, health=_health(case, context, check))
    directories = [*planned.directories, *_service_directories(planned.service)]
    planned = replace(planned, directories=directories)
    if not case.runtime.is_managed:
        return replace(planned, files=files)
    former = context.node.texts.get(case.runtime.file(case.request, case.places))
    text = case.runtime.render(context)
    key = ""
    if case.root is not None:
        key = case.root.key or volume_key(case.request, case.runtime, context.node, case.root)
    return replace(
        planned,
        files=[note_file(case.places, key, case.root), *files],
        configuration=text,
        former_configuration=former,
        configuration_differs=text != former,
        volume_key=key,
        is_filled=bool(key) and key == planned.note.get("key"),
    )


def _health(case: _Case, context: Context, check: Check | None) -> Health | None:
    return None if check is None else health_of(case.request, check, case.runtime.join(context, check))


def _service_directories(service: Service | None) -> list[Directory]:
    """Return the folder of a drop-in."""
    file = service.unit_file if service is not None else ""
    return [Directory(file.rpartition("/")[0], mode="0755")] if file.endswith(".conf") else []
