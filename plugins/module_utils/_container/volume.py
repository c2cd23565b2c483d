# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Provide persistent directories for volumes, filled once from the image (docs/behaviour.md, section 9)."""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t
from dataclasses import dataclass, field, replace

from .._errors import RootfsError, os_advice, os_phrase, show
from .._report import Report
from .copying import copy_metadata, copy_tree
from .._fs.descriptors import opened
from .._fs.directories import DIRECTORY, make_directories, make_private, move, names_in, open_or_none, some_names_in
from .._fs.stack import is_stack, require_unmounted
from .host_path import HostPaths
from .._dest.in_use import require_unused
from .lookup import Found, look_up, opened_place, opened_root
from .._dest.reach import ReachRule, Spot, find_way
from .._fs.removal import remove_tree
from .reserved import ignored_volume, volume_problem
from .rights import count_rights
from .._fs.syscalls import syncfs

_NEW_MODE = 0o755
# The private folder that a volume is made in: beside a new one, inside of an existing one.
_BESIDE = b".%s.oci_volume"
_INSIDE = b".oci_volume"
_TREE = b"tree"
_LINKS = b"links"
_MOST_ATTEMPTS = 100


@dataclass(frozen=True)
class Volume:
    """A directory ``path`` of the host for ``target`` in the root file system ``rootfs``.

    ``fill_empty`` allows to fill an existing, empty directory; ``ignore_users`` allows to fill while the root or the volume
    is in use. ``from_image`` tells that the image declares the volume, not the task. ``writable`` are directories of the
    host that containers can write to. ``reach`` decides about files that would grant rights to ordinary users.
    """

    def __post_init__(self) -> None:
        if not self.name or not self.path.startswith("/"):
            raise RootfsError(f"the path {show(self.path)} of a volume is not absolute")

    @property
    def name(self) -> bytes:
        """The last component of the path."""
        return os.fsencode(os.path.basename(os.path.normpath(self.path)))

    path: str
    rootfs: str
    target: str
    fill_empty: bool = False
    ignore_users: bool = False
    from_image: bool = False
    writable: tuple[str, ...] = ()
    reach: ReachRule = ReachRule()

    def judge(self, above: int, folder: str, found: Found, filling: bool) -> list[str]:
        """Return warnings about the content for it; ``above`` is open, at the path ``folder``. Raises ``RootfsError``."""
        if not found.is_directory or find_way(above, folder, self.reach.root) is None:
            return []
        with _readable(found) as source:
            rights = count_rights(source)
        return self.reach.judge(Spot("path", self.path, above, folder), rights, filling)

    def make_above(self, fd: int, missing: list[bytes]) -> int:
        """Make the directories above the volume, which only root and the container's own root can pass."""
        root = self.reach.root
        if root is None:
            return make_directories(fd, missing, 0o700)
        return make_directories(fd, missing, 0o710, root.gid)


@dataclass(frozen=True)
class Provided:
    """The result: ``ignored`` is the reason if the volume is ignored, ``skipped`` counts the files that were left out."""

    changed: bool
    ignored: str = ""
    skipped: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def provide_volume(volume: Volume, check_mode: bool) -> Provided:
    """Make the directory of a volume like the target in the image, with its content.

    An existing directory is left alone, unless it is empty and may be filled. It is filled completely or not at all.
    Raises ``RootfsError``.
    """
    try:
        with opened_root(volume.rootfs) as root, look_up(root, os.fsencode(volume.target)) as found:
            target = os.fsdecode(found.path)
            problem = volume_problem(volume.target, target)
            if problem is not None and not volume.from_image:
                raise RootfsError(f"{problem}; choose another target")
            ignored = ignored_volume(volume.target, target)
            if ignored is not None:
                return Provided(False, ignored)
            if not found.missing and not stat.S_ISDIR(found.mode):
                raise RootfsError(
                    f"{show(volume.target)} is a file in the image, but a volume must be a directory; choose another target"
                )
            return _provide(volume, root, found, check_mode)
    except OSError as error:
        advice = os_advice(error) or "check the file systems of the volume and the root"
        raise RootfsError(f"the volume {show(volume.path)} cannot be made: {os_phrase(error)}; {advice}") from error


def _provide(volume: Volume, root: int, found: Found, check_mode: bool) -> Provided:
    for _attempt in range(_MOST_ATTEMPTS):
        above, folder, missing = _open_above(volume)
        with opened(above):
            fd = None if missing else open_or_none(above, volume.name)
            if fd is not None:
                with opened(fd):
                    fills = volume.fill_empty and _is_fillable(fd, found)
                    warnings = volume.judge(above, folder, found, fills)
                    if not fills:
                        return Provided(False, warnings=warnings)
                    filled = _fill_empty(volume, fd, found, check_mode)
                    return replace(filled, warnings=warnings)
            # missing directories are made closed, so nobody can reach the volume
            warnings = [] if missing else volume.judge(above, folder, found, True)
            if found.is_directory:
                _require_unused(volume)
            if check_mode:
                return Provided(True, warnings=warnings)
            try:
                below = volume.make_above(above, missing)
            except FileExistsError:
                # another run has made the same directories for another container: try again
                continue
        with opened(below):
            made = _make(below, volume.name, root, found)
            return replace(made, warnings=warnings)
    raise RootfsError(
        f"another process keeps making and removing the directories above {show(volume.path)}; find out which"
    )


def _open_above(volume: Volume) -> tuple[int, str, list[bytes]]:
    """Open the deepest existing directory above the volume; return it, its path, and the missing names.

    The path includes the missing directories.
    """
    with HostPaths([volume.rootfs, *volume.writable]).open_above(volume.path) as place:
        if not stat.S_ISDIR(place.mode):
            raise RootfsError(
                f"{show(os.path.dirname(volume.path))} is not a directory; choose another path for the volume"
            )
        fd = os.open(b".", DIRECTORY, dir_fd=place.fd)
        return fd, os.fsdecode(place.path), list(place.missing)


def _require_unused(volume: Volume) -> None:
    if volume.ignore_users:
        return
    with opened_place(volume.rootfs) as root:
        require_unused(root, os.path.realpath(volume.rootfs))
        if is_stack(root):
            require_unmounted(root, volume.rootfs)


def _is_fillable(fd: int, found: Found) -> bool:
    # the folder that a killed run left does not count as content
    if not found.is_directory or some_names_in(fd, 1, frozenset([_INSIDE])):
        return False
    with _readable(found) as source:
        return bool(some_names_in(source, 1))


def _fill_empty(volume: Volume, fd: int, found: Found, check_mode: bool) -> Provided:
    with _readable(found) as source:
        _require_unused(volume)
        if not volume.ignore_users:
            require_unused(fd, os.path.realpath(volume.path))
        if check_mode:
            return Provided(True)
        with _workspace(fd, _INSIDE) as work:
            report = _copy(source, work)
            syncfs(work)
            _move_content(work, fd)
        copy_metadata(source, fd)
    return _filled(report)


def _move_content(work: int, volume: int) -> None:
    """Move everything or, unless the process is killed, nothing."""
    moved = []
    with opened(os.open(_TREE, DIRECTORY, dir_fd=work)) as tree:
        try:
            for name in names_in(tree):
                move(tree, name, volume, name)
                moved.append(name)
        except BaseException:
            for name in moved:
                with contextlib.suppress(OSError, RootfsError):
                    remove_tree(volume, name)
            raise


def _make(parent: int, name: bytes, root: int, found: Found) -> Provided:
    """Make a volume beside its path first, so that an existing one is always complete."""
    with _workspace(parent, _BESIDE % name[:200]) as work:
        if found.is_directory:
            with _readable(found) as source:
                report = _copy(source, work)
        else:
            report = Report()
            _make_as_runtime(work, root)
        syncfs(work)
        move(work, _TREE, parent, name)
        os.fsync(parent)
    return _filled(report)


def _make_as_runtime(work: int, root: int) -> None:
    """Make an empty directory as a runtime would make it in the root."""
    owner = os.fstat(root)
    with opened(make_private(work, _TREE)) as fd:
        os.fchmod(fd, _NEW_MODE)
        os.fchown(fd, owner.st_uid, owner.st_gid)


def _copy(source: int, work: int) -> Report:
    with opened(make_private(work, _TREE)) as tree, opened(make_private(work, _LINKS)) as links:
        return copy_tree(source, tree, links)


def _filled(report: Report) -> Provided:
    kinds = ("devices_skipped", "sockets_skipped")
    counts = {kind: report.counted(kind) for kind in kinds}
    return Provided(True, skipped={kind: n for kind, n in counts.items() if n})


@contextlib.contextmanager
def _workspace(parent: int, name: bytes) -> t.Iterator[int]:
    """Make a private folder for the block, after removing the one that a killed run left."""
    remove_tree(parent, name)
    try:
        with opened(make_private(parent, name)) as fd:
            yield fd
    except BaseException:
        # the first error is the one to report
        with contextlib.suppress(OSError, RootfsError):
            remove_tree(parent, name)
        raise
    remove_tree(parent, name)


def _readable(found: Found) -> opened:
    return opened(os.open(b".", DIRECTORY, dir_fd=found.fd))
