# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Upload folders: where the controller sends blobs, on the file system of dest, private to the user who logs in.

Blobs of an unfinished transfer stay there for the next run (docs/behaviour.md, section 7). The private folder of
dest records every upload folder with its binding. Only these identify it, since other users may own the directories
around it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import typing as t
from dataclasses import asdict, dataclass, replace

from .._errors import RootfsError, os_phrase, show
from .._fs.descriptors import opened, opened_or_none
from .._fs.directories import DIRECTORY, make_private, open_existing
from .._fs.removal import try_empty_directory
from .._fs.syscalls import mount_id
from .._source.sent import UPLOAD_PREFIX, is_upload_path
from .dest import UPLOADS, Dest
from .reach import everyone_passes
from .record import Binding, bind, random_name

# A transfer is abandoned when nothing has arrived for this many seconds.
QUIET = 15.0


@dataclass(frozen=True)
class UploadFolder:
    """A folder at the absolute ``path`` for blobs of one image; ``image`` is its digest and its source's scope.

    ``made`` lists the directories above dest that were created for it, the outermost first.
    """

    path: str
    image: str
    binding: Binding
    made: tuple[str, ...] = ()

    def open(self) -> int | None:
        """Open the folder; return ``None`` if it is gone or was replaced."""
        try:
            fd, missing = open_existing(os.fsencode(self.path))
        except (OSError, RootfsError):
            return None
        if missing or not self.binding.holds(fd):
            os.close(fd)
            return None
        return fd

    def is_active(self) -> bool:
        """Return whether something arrived within the last ``QUIET`` seconds, so that a transfer is running."""
        with opened_or_none(self.open()) as fd:
            if fd is None:
                return False
            latest = os.fstat(fd).st_mtime
            # the user who logs in decides how many files it holds
            with os.scandir(fd) as files:
                for file in files:
                    with contextlib.suppress(FileNotFoundError):
                        latest = max(latest, file.stat(follow_symlinks=False).st_mtime)
            return abs(time.time() - latest) < QUIET


def load_upload_folders(dest: Dest) -> list[UploadFolder]:
    """Read the recorded upload folders, the newest first. Raises ``RootfsError``."""
    data = dest.read(UPLOADS)
    if data is None:
        return []
    try:
        return [
            UploadFolder(
                str(item["path"]), str(item["image"]), Binding(**item["binding"]), tuple(map(str, item["made"]))
            )
            for item in json.loads(data)
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RootfsError(
            f"the record of an unfinished transfer to {show(dest.path)} is damaged; remove {UPLOADS.decode()} from the"
            " private folder beside dest and run again"
        ) from error


def make_upload_folder(dest: Dest, image: str, owner: int, group: int) -> UploadFolder | None:
    """Make an empty folder that the user ``owner`` can write to, or return ``None`` when none is possible."""
    found = _parent_for(dest, owner)
    if found is None:
        return None
    parent, above = found
    name = UPLOAD_PREFIX + random_name()
    path = os.path.join(above, name)
    with opened(parent):
        if not is_upload_path(path):
            # the controller would refuse this path
            return None
        with _same_times(dest, above, parent):
            known = load_upload_folders(dest)
            made = [*dest.made, *(path for other in known for path in other.made)]
            upload = UploadFolder(path, image, Binding(None, 0, None), tuple(made))
            # Record the folder before it exists, so that an interrupted run leaves no unknown folder behind.
            _save(dest, [upload, *known])
            with opened(make_private(parent, name.encode())) as fd:
                if owner != os.geteuid() and os.geteuid() == 0:
                    os.fchown(fd, owner, group)
                upload = replace(upload, binding=bind(fd))
    _save(dest, [upload, *known])
    return upload


def remove_upload_folder(dest: Dest, upload: UploadFolder) -> None:
    """Remove a folder with its content, and its record.

    A folder that cannot be removed now stays recorded for the next run, with a warning.
    """
    above, name = os.path.split(upload.path)
    try:
        parent, missing = open_existing(os.fsencode(above))
        with opened(parent):
            if not missing:
                with _same_times(dest, above, parent):
                    _remove(parent, name, upload)
    except RootfsError as error:
        dest.warn_kept(upload.path, error.message)
        return
    except OSError as error:
        dest.warn_kept(upload.path, os_phrase(error))
        return
    _save(dest, [other for other in load_upload_folders(dest) if other != upload])
    dest.made += upload.made


def names_in_dest(dest: Dest) -> list[bytes]:
    """Return the names of upload folders that lie in dest itself, which is then a mount point."""
    return [
        os.fsencode(os.path.basename(upload.path))
        for upload in load_upload_folders(dest)
        if os.path.dirname(upload.path) == dest.path
    ]


def _save(dest: Dest, uploads: list[UploadFolder]) -> None:
    if uploads:
        dest.write(UPLOADS, json.dumps(list(map(asdict, uploads))).encode())
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(UPLOADS, dir_fd=dest.state)
        os.fsync(dest.state)


def _remove(parent: int, name: str, upload: UploadFolder) -> None:
    with opened_or_none(upload.open()) as fd:
        if fd is None:
            # The user may have put another directory in its place; remove that only if it is empty.
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=parent)
            return
        remains = try_empty_directory(fd)
    if remains:
        raise RootfsError(f"{remains.describe(upload.path)}; {remains.advice}")
    os.rmdir(name, dir_fd=parent)


def _parent_for(dest: Dest, owner: int) -> tuple[int, str] | None:
    """Open the directory for the folder of the user ``owner``; return a descriptor and its path."""
    location = dest.location
    own = owner in (os.geteuid(), 0)
    if not own and os.geteuid() != 0:
        # only root can give a directory to another user
        return None
    if location.is_mount:
        with opened_or_none(dest.open_dest()) as top:
            if top is not None and (own or everyone_passes(top)):
                return os.dup(top), location.path
        return None
    if own:
        return os.dup(dest.state), location.state_path
    return _nearest_passable(dest)


def _nearest_passable(dest: Dest) -> tuple[int, str] | None:
    """Open the nearest directory above dest, on the same mount, that every user may pass through."""
    path = dest.location.parent
    mount = mount_id(dest.parent)
    with contextlib.ExitStack() as stack:
        current = stack.enter_context(opened(os.dup(dest.parent)))
        while not everyone_passes(current):
            if path == "/":
                return None
            above = os.open(b"..", DIRECTORY, dir_fd=current)
            stack.close()
            current = stack.enter_context(opened(above))
            path = os.path.dirname(path)
            if mount_id(current) != mount:
                return None
        return os.dup(current), path


@contextlib.contextmanager
def _same_times(dest: Dest, path: str, fd: int) -> t.Iterator[None]:
    """Keep the times of dest when the folder lies in it: they belong to the image's root directory."""
    before = os.fstat(fd)
    try:
        yield
    finally:
        if path == dest.path:
            with contextlib.suppress(PermissionError):
                os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove_uploads(dest: Dest, active: bool) -> None:
    """Remove what unfinished transfers left, and with ``active`` also the folders of running transfers."""
    for upload in load_upload_folders(dest):
        if active or not upload.is_active():
            remove_upload_folder(dest, upload)
