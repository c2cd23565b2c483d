# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judge a plan before anything is changed: is dest ours, in use, out of others' reach, large enough?"""

from __future__ import annotations

import os
import typing as t

from .._dest.reach import MappedRoot, ReachRule, Spot, mapped_root
from .._dest.record import Record, Tree
from .._errors import RootfsError, show
from .._fs.descriptors import opened, opened_or_none
from .._fs.directories import open_existing
from .._fs.syscalls import is_subvolume, lost_attributes
from .._image.image import Image
from .._image.media_types import declared_compression
from .._rootfs.ids import parse_id_maps
from .plan import AlreadyStaged, ImagePlan, Unchanged, UseStaged
from .target import Target

if t.TYPE_CHECKING:
    from .._cache.blobs import BlobCache


def require_stageable(target: Target) -> None:
    """Refuse to stage in a mount point, which a running container reaches. Raises ``RootfsError``."""
    if target.options.state == "staged" and target.dest.location.is_mount:
        raise RootfsError(
            f"{show(target.dest.path)} is a mount point, where the container could change a staged tree before it is"
            " used; stop the container and use state: present, or use a directory below the mount point as dest"
        )


def require_ours(target: Target, record: Record) -> None:
    """Refuse to replace what this module did not create. Raises ``RootfsError``."""
    if not target.options.force and target.replacement.holds_foreign(record):
        raise RootfsError(
            f"{show(target.dest.path)} is not empty and was not made by this module (or was changed as a whole since);"
            " choose another dest, or set force: true to replace it"
        )


def require_plain(target: Target, record: Record) -> None:
    """Refuse to replace a prepared directory by a plain one, which would lose its properties. Raises ``RootfsError``."""
    dest = target.dest
    if target.options.force or dest.location.is_mount or target.replacement.current(record) is not None:
        return
    with opened_or_none(dest.open_dest()) as fd:
        if fd is None:
            return
        if is_subvolume(fd):
            raise RootfsError(
                f"{show(dest.path)} is a btrfs subvolume, which a plain directory without its quota and properties would"
                " replace; mount it there (mount -o subvol=...) to have it filled, use a directory below it as dest, or set"
                " force: true to replace it"
            )
        # a new directory inherits attributes from the one above
        lost = lost_attributes(fd, dest.state if dest.state >= 0 else dest.parent)
    if lost:
        raise RootfsError(
            f"{show(dest.path)} has file attributes that a new directory would not have (lsattr: {lost}); set them on"
            f" {show(dest.location.parent)} if its file system lets new directories inherit them, remove them (chattr), or set"
            " force: true to replace the directory"
        )


def check_plan(target: Target, plan: ImagePlan) -> list[str]:
    """Return warnings about the plan. Raises ``RootfsError`` if it must not be carried out."""
    if isinstance(plan, Unchanged):
        judge_policy(target, plan.current)
        return judge_reach(target, plan.current, filling=False)
    if target.options.state == "present":
        target.replacement.check_use()
    if isinstance(plan, (AlreadyStaged, UseStaged)):
        judge_policy(target, plan.staged)
        return judge_reach(target, plan.staged)
    # the tree of ``Unpack`` is judged when it is unpacked
    if target.options.policy is not None and not target.dest.writable:
        return ["policy is judged by a real run, because it needs the new image's files"]
    return []


def judge_policy(target: Target, tree: Tree) -> None:
    """Require that the policy of the task allows a tree that this module made. Raises ``RootfsError``."""
    policy = target.options.policy
    if policy is not None:
        # imported late: most tasks have no policy
        from .inventory import inventory_of

        policy.judge(inventory_of(target.dest, tree), target.dest.path)


def judge_reach(target: Target, tree: Tree, filling: bool = True) -> list[str]:
    """Return warnings about users who can reach files that give rights away. Raises ``RootfsError``."""
    options, dest = target.options, target.dest
    report = tree.result.get("report")
    rights = None if report is None else report.get("counts", {})
    if rights is None and not options.unpack.preserve:
        # everything becomes the caller's, and no such file is made
        rights = {}
    rule = ReachRule(options.reachable, _root_of(target, tree))
    spot = Spot("dest", dest.path, dest.parent, dest.location.parent)
    return rule.judge(spot, rights, filling)


def _root_of(target: Target, tree: Tree) -> MappedRoot | None:
    """Return the container's root on the host; an earlier tree has its own id map."""
    made_with = tree.fingerprint.get("options")
    if made_with is None:
        unpack = target.options.unpack
        return mapped_root(unpack.uids, unpack.gids)
    return mapped_root(*parse_id_maps(made_with["uid_map"], made_with["gid_map"]))


def require_libraries(image: Image) -> None:
    """Look for the libraries that the layers need before anything is sent. Raises ``MissingLibraryError``.

    When a layer is unpacked, its bytes decide how; before, only its declared type is known.
    """
    # imported late: unchanged runs decompress nothing
    from .._source.decompress import require_library

    for kind in sorted({declared_compression(layer.media_type) or "none" for layer in image.layers} - {"none"}):
        require_library(kind)


def require_room(target: Target, image: Image, arriving: int, cache: BlobCache | None) -> None:
    """Compare the free space with a lower bound of what the image needs. Raises ``RootfsError``.

    ``arriving`` bytes are stored next to the tree. Blobs in the cache count as free space, because they are
    removed when space is needed.
    """
    location = target.dest.location
    path = location.path if location.is_mount else location.parent
    fd, _missing = open_existing(os.fsencode(path))
    # content is at least as large as its compressed form, and layers may replace each other's files
    needed = max((layer.size or 0 for layer in image.layers), default=0) + arriving
    with opened(fd):
        status = os.fstatvfs(fd)
        if not status.f_blocks:
            # some file systems, also in user space, do not tell their size
            return
        free = status.f_bavail * status.f_frsize
        if free < needed and cache is not None:
            free += cache.room(fd)
    if free < needed:
        raise RootfsError(
            f"the image needs at least {needed} bytes, and the file system of {show(location.path)} has {free} free;"
            " make room there and run again"
        )
