# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""The folder that blobs are sent to: on the file system of dest, for the user who logs in, and for nobody else.

Blobs of a transfer that was not finished stay in it, for the next run (docs/behaviour.md, section 7). It is
recorded in the private folder of dest, and known again by that record and its binding alone: others may
own what lies around it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import typing as t
from dataclasses import asdict, dataclass, replace

from .._errors import RootfsError, os_phrase
from .._fs.directories import DIRECTORY, make_private, open_existing
from .place import UPLOADS, Dest
from .reach import everyone_passes
from .record import Binding, bind, random_name
from .._fs.removal import try_empty_directory
from .._fs.syscalls import mount_id
from .._source.sent import UPLOAD_PREFIX, is_upload_path

# A transfer to which nothing came for so many seconds counts as given up.
QUIET = 15.0


@dataclass(frozen=True)
class UploadFolder:
    """A folder for blobs: its absolute ``path``, and the digest of the ``image`` that they are for.

    ``made`` are the directories above dest that were made for it, the outermost first.
    """

    path: str
    image: str
    binding: Binding
    made: tuple[str, ...] = ()

    def open(self) -> int | None:
        """A descriptor of the folder; ``None`` where it is gone, or another one in its place."""
        try:
            fd, missing = open_existing(os.fsencode(self.path))
        except (OSError, RootfsError):
            return None
        if missing or not self.binding.holds(fd):
            os.close(fd)
            return None
        return fd

    def is_active(self) -> bool:
        """Whether something came a moment ago, so that somebody is sending."""
        fd = self.open()
        if fd is None:
            return False
        try:
            times = [os.fstat(fd).st_mtime]
            for name in os.listdir(fd):
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    times.append(status.st_mtime)
            return abs(time.time() - max(times)) < QUIET
        finally:
            os.close(fd)


def load_upload_folders(site: Dest) -> list[UploadFolder]:
    """The folders that the record of a site knows, the newest first. Raises ``RootfsError``."""
    data = site.read(UPLOADS)
    if data is None:
        return []
    try:
        return [
            UploadFolder(
                str(item["path"]),
                str(item["image"]),
                Binding(**item["binding"]),
                tuple(map(str, item["made"])),
            )
            for item in json.loads(data)
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RootfsError(
            f"the record of an unfinished transfer to {site.path!r} is damaged; remove {UPLOADS.decode()} in the"
            " folder beside dest, and run again"
        ) from error


def make_upload_folder(
    site: Dest, image: str, owner: int, group: int
) -> UploadFolder | None:
    """A new, empty folder that the user ``owner`` can write to; ``None`` where none can be had for him.

    The record comes first, so that nothing lies around that it does not know.
    """
    found = _parent_for(site, owner)
    if found is None:
        return None
    parent, path = found
    name = UPLOAD_PREFIX + random_name()
    if not is_upload_path(os.path.join(path, name)):
        # the controller would refuse it
        os.close(parent)
        return None
    try:
        with _same_times(site, path, parent):
            known = load_upload_folders(site)
            made = [*site.made, *(path for other in known for path in other.made)]
            upload = UploadFolder(
                os.path.join(path, name), image, Binding(None, 0, None), tuple(made)
            )
            _save(site, [upload, *known])
            fd = make_private(parent, name.encode())
            try:
                if owner != os.geteuid() and os.geteuid() == 0:
                    os.fchown(fd, owner, group)
                upload = replace(upload, binding=bind(fd))
            finally:
                os.close(fd)
    finally:
        os.close(parent)
    _save(site, [upload, *known])
    return upload


def remove_upload_folder(site: Dest, upload: UploadFolder) -> None:
    """Remove a folder with all that is in it, and its record where that speaks of it.

    What cannot be removed now stays recorded for the next run, with a warning.
    """
    above, name = os.path.split(upload.path)
    try:
        parent, missing = open_existing(os.fsencode(above))
        try:
            if not missing:
                with _same_times(site, above, parent):
                    _remove(parent, name, upload)
        finally:
            os.close(parent)
    except RootfsError as error:
        site.warn_kept(upload.path, error.message)
        return
    except OSError as error:
        site.warn_kept(upload.path, os_phrase(error))
        return
    _save(site, [other for other in load_upload_folders(site) if other != upload])
    site.made += upload.made


def names_in_dest(site: Dest) -> list[bytes]:
    """The folders' names where they lie in dest itself, which is a mount point then."""
    return [
        os.fsencode(os.path.basename(upload.path))
        for upload in load_upload_folders(site)
        if os.path.dirname(upload.path) == site.path
    ]


def _save(site: Dest, uploads: list[UploadFolder]) -> None:
    if uploads:
        site.write(UPLOADS, json.dumps(list(map(asdict, uploads))).encode())
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(UPLOADS, dir_fd=site.state)
        os.fsync(site.state)


def _remove(parent: int, name: str, upload: UploadFolder) -> None:
    fd = upload.open()
    if fd is None:
        # its owner may have put something else in its place, and that is not ours to empty
        with contextlib.suppress(OSError):
            os.rmdir(name, dir_fd=parent)
        return
    try:
        remains = try_empty_directory(fd)
    finally:
        os.close(fd)
    if remains:
        raise RootfsError(f"{remains.describe(upload.path)}; {remains.advice}")
    os.rmdir(name, dir_fd=parent)


def _parent_for(site: Dest, owner: int) -> tuple[int, str] | None:
    """A descriptor and the path of the directory that the folder is to lie in."""
    place = site.place
    own = owner in (os.geteuid(), 0)
    if not own and os.geteuid() != 0:
        # nobody but root gives directories away
        return None
    if place.inside:
        dest = site.open_dest()
        if dest is None:
            return None
        if own or everyone_passes(dest):
            return dest, place.path
        os.close(dest)
        return None
    if own:
        path = os.path.join(place.state_parent, os.fsdecode(place.state_name))
        return os.dup(site.state), path
    return _nearest_passable(site)


def _nearest_passable(site: Dest) -> tuple[int, str] | None:
    """The nearest directory above dest, on its mount, that every user may pass through."""
    current = os.dup(site.parent)
    path = site.place.parent
    mount = mount_id(current)
    try:
        while not everyone_passes(current):
            if path == "/":
                return None
            above = os.open(b"..", DIRECTORY, dir_fd=current)
            os.close(current)
            current = above
            path = os.path.dirname(path)
            if mount_id(current) != mount:
                return None
        return os.dup(current), path
    finally:
        os.close(current)


@contextlib.contextmanager
def _same_times(site: Dest, path: str, fd: int) -> t.Iterator[None]:
    """What is made and removed in the root of a mount shall not show in the tree."""
    before = os.fstat(fd)
    try:
        yield
    finally:
        if path == site.path:
            with contextlib.suppress(PermissionError):
                os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
