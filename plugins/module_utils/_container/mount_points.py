# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find where mounts of a container land in its root, and make what is missing there (docs/behaviour.md, section 9)."""

from __future__ import annotations

import os
import stat
import typing as t

from .._errors import RootfsError, os_advice, os_phrase, show
from .host_path import HostPaths
from .lookup import look_up, make_missing, opened_root
from .reserved import ignored_volume, mount_problem

Mount = t.Dict[str, t.Any]

# Keys of mounts that only this module reads; renderers do not know them.
_HINTS = ("is_file", "from_image")


class MountPoints(t.NamedTuple):
    """Mounts in the order to mount them, with targets without links; ``ignored`` are warnings about volumes of the image."""

    mounts: list[Mount]
    changed: bool
    ignored: list[str]


# Is told which paths are made in the root.
Note = t.Callable[[str], None]


def _forget(_path: str) -> None:
    """Note nothing."""


def provide_mount_points(rootfs: str, mounts: list[Mount], check_mode: bool, note: Note = _forget) -> MountPoints:
    """Find where mounts land in the root, and make missing targets.

    Each mount has a ``target`` and, if its ``type`` is ``bind``, a ``source`` on the host. ``is_file`` tells what a missing
    source is going to be, ``from_image`` that the image declares the volume; the result has neither. A missing target is
    made in the root, which ``note`` is told, or in the source of the mount that contains it. Raises ``RootfsError``.
    """
    try:
        _require_sources(rootfs, mounts)
        # before sorting, because a link may lead a mount into another one
        led = [{**mount, "target": _look(rootfs, mount["target"])[0]} for mount in mounts]
        wanted, ignored = _without_reserved(mounts, led)
        wanted.sort(key=lambda mount: mount["target"])
        done: list[Mount] = []
        changed = False
        for mount in wanted:
            target, made = _provide(rootfs, mount, done, None if check_mode else note)
            if any(other["target"] == target for other in done):
                raise RootfsError(f"two mounts have the target {show(target)} in the image; remove one")
            done.append({**mount, "target": target})
            changed = changed or made
    except OSError as error:
        advice = os_advice(error) or "check the root file system"
        raise RootfsError(f"a mount point in {show(rootfs)} cannot be made: {os_phrase(error)}; {advice}") from error
    for mount in done:
        for hint in _HINTS:
            mount.pop(hint, None)
    return MountPoints(done, changed, ignored)


def _require_sources(rootfs: str, mounts: list[Mount]) -> None:
    """Raise ``RootfsError`` if a source leads through a directory that the container can write to, or another user's link.

    A runtime follows links each time that the container starts, so it is not enough that the path has no links now.
    """
    sources = [mount for mount in mounts if mount["type"] == "bind"]
    writable = [mount["source"] for mount in sources if mount.get("source") and not mount.get("read_only")]
    paths = HostPaths([rootfs, *writable])
    for mount in sources:
        if mount.get("source"):
            with paths.open(mount["source"]):
                pass


def _without_reserved(mounts: list[Mount], led: list[Mount]) -> tuple[list[Mount], list[str]]:
    """Return the mounts whose resolved targets are allowed, and warnings about volumes of the image that are not.

    Raises ``RootfsError`` for a mount of the task.
    """
    kept: list[Mount] = []
    ignored: list[str] = []
    for given, mount in zip(mounts, led):
        wanted, target = given["target"], mount["target"]
        if mount.get("from_image"):
            warning = ignored_volume(wanted, target)
            if warning is not None:
                ignored.append(warning)
                continue
        else:
            source = mount.get("source") or ""
            problem = mount_problem(wanted, target, mount["type"], source)
            if problem is not None:
                raise RootfsError(problem)
        kept.append(mount)
    return kept, ignored


def provide_directories(rootfs: str, paths: list[str], check_mode: bool, note: Note = _forget) -> bool:
    """Make missing directories in the root; return whether one was missing. Raises ``RootfsError``."""
    changed = False
    for path in paths:
        try:
            with opened_root(rootfs) as root, look_up(root, os.fsencode(path)) as found:
                if not found.missing:
                    continue
            changed = True
            if not check_mode:
                note(_make_missing(rootfs, path, is_directory=True))
        except OSError as error:
            advice = os_advice(error) or "check the root file system"
            raise RootfsError(
                f"the directory {show(path)} in {show(rootfs)} cannot be made: {os_phrase(error)}; {advice}"
            ) from error
    return changed


def _provide(rootfs: str, mount: Mount, done: list[Mount], note: Note | None) -> tuple[str, bool]:
    """Return the target, and whether it is made; it only would be without ``note``."""
    is_directory = _is_directory(mount)
    base, above, inside = rootfs, "", mount["target"]
    for other in done:
        if mount["target"].startswith(other["target"] + "/"):
            if other["type"] != "bind":
                # empty when the container starts, so the runtime makes the target
                return mount["target"], False
            base, above = other["source"], other["target"]
    inside, there, is_one = _look(base, inside[len(above) :])
    target = above + inside
    if target == "/":
        raise RootfsError("nothing can be mounted on /; choose another target")
    if there and is_one != is_directory:
        kind = "directory" if is_directory else "file"
        raise RootfsError(f"{show(target)} in the image is not a {kind}, but the source is; choose another target")
    if there or note is None:
        return target, not there
    made = _make_missing(base, inside, is_directory)
    if base == rootfs:
        note(made)
    return target, True


def _make_missing(base: str, path: str, is_directory: bool) -> str:
    """Make what is missing of a path, and return the path without links."""
    with opened_root(base, writing=True) as root, look_up(root, os.fsencode(path)) as found:
        make_missing(found, is_directory)
        return os.fsdecode(found.path)


def _is_directory(mount: Mount) -> bool:
    if mount["type"] != "bind":
        return True
    source = mount.get("source")
    if mount.get("is_file") is not None:
        return not mount["is_file"]
    try:
        return stat.S_ISDIR(os.stat(source or "").st_mode)
    except OSError as error:
        raise RootfsError(
            f"the source {show(source or '')} of the mount {show(mount['target'])} cannot be used: {os_phrase(error)};"
            " create it first"
        ) from error


def _look(base: str, path: str) -> tuple[str, bool, bool]:
    """Return the path without links, whether it exists, and whether it is a directory."""
    with opened_root(base) as root, look_up(root, os.fsencode(path)) as found:
        return os.fsdecode(found.path), not found.missing, found.is_directory
