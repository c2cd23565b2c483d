# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the files of the host that describe a container, and restore their earlier versions.

A runtime trusts them as root, and containers or other users may be able to write near them. So paths are resolved by
descriptor: no link is followed below the container's directories, and above them only links that nobody else can change.
Nothing is written to a folder of another user (docs/behaviour.md, section 9).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
import typing as t
from dataclasses import dataclass, replace

from .diff import diff_of
from .._errors import RootfsError, os_advice, os_phrase, show
from .._fs.descriptors import opened
from .._fs.directories import DIRECTORY, drop_inherited_acl, open_made
from .host_path import HostPaths, is_closed
from .lookup import Found, Guard, look_up
from .passage import add_entry, can_pass, let_pass, let_pass_by_group
from .._dest.reach import MappedRoot

_MANIFEST = "files.json"
_MODE = 0o7777
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Directory:
    """A directory to make with ``mode`` if it is missing.

    ``passable`` lets the container's mapped root pass it, also if it exists. Containers with other id maps have folders in
    a ``shared`` one.
    """

    path: str
    mode: int
    passable: bool = False
    shared: bool = False

    def __post_init__(self) -> None:
        _require_absolute(self.path)


@dataclass(frozen=True)
class File:
    """The wanted state of a file; with ``None`` as ``content`` it is removed."""

    path: str
    content: bytes | None
    mode: int
    uid: int = 0
    gid: int = 0

    def __post_init__(self) -> None:
        _require_absolute(self.path)


def _require_absolute(path: str) -> None:
    if not path.startswith("/"):
        raise RootfsError(f"the path {show(path)} is not absolute")


def provide(
    directories: t.Sequence[Directory],
    files: t.Sequence[File],
    keep: str | None,
    check_mode: bool,
    root: MappedRoot | None = None,
) -> list[str]:
    """Make directories and files as described, and return the paths of those that change.

    If a file changes, the earlier versions of all files are stored in the directory ``keep``. ``root`` is the container's
    root on the host, if the container has an id map. Raises ``RootfsError``.
    """
    if keep is not None:
        _require_absolute(keep)
    own = tuple(item.path for item in directories)
    changed = [
        item.path for item in directories if _make_directory(item, own, root if item.passable else None, check_mode)
    ]
    differing = [file for file in files if _read(file.path, file.mode, own) != file]
    if differing and not check_mode:
        if keep is not None:
            _keep(keep, files, own)
        for file in differing:
            _write(file, own)
    return changed + [file.path for file in differing]


def restore(keep: str, check_mode: bool) -> list[str]:
    """Restore the files that ``provide`` stored in ``keep``; return the paths that change. Raises ``RootfsError``."""
    _require_absolute(keep)
    manifest = _read(os.path.join(keep, _MANIFEST), 0, (keep,))
    if manifest.content is None:
        raise RootfsError(f"{show(keep)} has nothing to restore; earlier versions are stored only when a file changes")
    try:
        files = [_from_json(item) for item in json.loads(manifest.content)]
    except (ValueError, KeyError, TypeError) as error:
        raise RootfsError(
            f"{show(manifest.path)} is damaged, so no file can be restored; provision the container again"
        ) from error
    differing = [file for file in files if _read(file.path, file.mode) != file]
    if not check_mode:
        for file in differing:
            _write(file)
    return [file.path for file in differing]


def difference(file: File, kind: str) -> str:
    """Return a diff of what ``provide`` would change in a file, as far as ``kind`` allows."""
    old = _read(file.path, file.mode).content
    return diff_of(file.path, kind, old, file.content)


@contextlib.contextmanager
def _sentences(path: str) -> t.Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = os_advice(error) or "check the folder that contains it"
        raise RootfsError(f"{show(path)} cannot be read or written: {os_phrase(error)}; {advice}") from error


@contextlib.contextmanager
def _resolved(path: str, own: t.Sequence[str]) -> t.Iterator[Found]:
    """Resolve a path; below the outermost of the directories ``own``, links are errors."""
    path = os.path.normpath(path)
    bases = [base for base in map(os.path.normpath, own) if _is_below(path, base)]
    base = min(bases, key=len, default=path)
    with HostPaths().open(base) as found:
        if base == path:
            yield found
        elif found.missing:
            rest = os.fsencode(path[len(base) :]).strip(b"/").split(b"/")
            missing = (*found.missing, *rest)
            yield Found(found.parts, missing, found.fd, found.mode)
        else:
            below = os.fsencode(path[len(base) :])
            with look_up(found.fd, below, _refuse_links(path)) as inside:
                yield inside


def _is_below(path: str, base: str) -> bool:
    return path.startswith(base.rstrip("/") + "/")


def _refuse_links(path: str) -> Guard:
    def guard(_above: int, name: bytes, fd: int) -> None:
        if fd >= 0 and stat.S_ISLNK(os.fstat(fd).st_mode):
            raise RootfsError(
                f"the path {show(path)} leads through the link {show(name)}, which is not allowed there; remove it and"
                " run again"
            )

    return guard


def _make_directory(item: Directory, own: t.Sequence[str], root: MappedRoot | None, check_mode: bool) -> bool:
    with _sentences(item.path):
        try:
            return _provide_directory(item, own, root, check_mode)
        except FileExistsError:
            # another run has made the same one for another container
            return _provide_directory(item, own, root, check_mode)


def _provide_directory(item: Directory, own: t.Sequence[str], root: MappedRoot | None, check_mode: bool) -> bool:
    """Make a directory, or let the mapped ``root`` pass an existing one; return whether it changes."""
    with _resolved(item.path, own) as found:
        if not stat.S_ISDIR(found.mode):
            raise RootfsError(f"{show(item.path)} is not a directory; remove it or choose another path")
        if found.missing:
            if not check_mode:
                _make_missing(found, item, root)
            return True
        status = os.fstat(found.fd)
        if status.st_uid not in (0, os.geteuid()):
            raise RootfsError(
                f"the directory {show(item.path)} belongs to another user; choose another path, or give it to root"
            )
        if root is None or can_pass(found.fd, root):
            return False
        if not check_mode:
            with opened(os.open(b".", DIRECTORY, dir_fd=found.fd)) as fd:
                let_pass(fd, root, item.path)
        return True


def _make_missing(found: Found, item: Directory, root: MappedRoot | None) -> None:
    """Make a directory and those missing above it, all of which only the mapped root may pass."""
    with contextlib.ExitStack() as stack:
        fd = found.fd
        for number, part in enumerate(found.missing, 1):
            os.mkdir(part, 0o700, dir_fd=fd)
            fd = stack.enter_context(opened(open_made(fd, part, 0o700)))
            # 0700 is set already; setting it again could undo that another run lets its own root pass
            if item.mode != 0o700:
                os.fchmod(fd, item.mode)
            above = number < len(found.missing)
            if root is not None and not can_pass(fd, root):
                _let_pass_new(fd, replace(item, shared=item.shared or above), root)


def _let_pass_new(fd: int, item: Directory, root: MappedRoot) -> None:
    if not item.shared and not item.mode & stat.S_IRWXG:
        drop_inherited_acl(fd)
        let_pass_by_group(fd, root, item.path)
    elif not add_entry(fd, root):
        # the folders in it are closed themselves
        os.fchmod(fd, item.mode | stat.S_IXGRP | stat.S_IXOTH)


@contextlib.contextmanager
def _folder(path: str, own: t.Sequence[str]) -> t.Iterator[int | None]:
    """Open the folder of a file, or return ``None`` if it is missing. Raises ``RootfsError`` if others can write to it."""
    above = os.path.dirname(os.path.normpath(path))
    with _sentences(path), _resolved(above, own) as found:
        if not stat.S_ISDIR(found.mode):
            raise RootfsError(f"{show(above)} is not a directory; remove it or choose another path")
        if found.missing:
            yield None
            return
        if not is_closed(os.fstat(found.fd)):
            raise RootfsError(
                f"the folder {show(above)} belongs to another user or can be written to by others, who could replace"
                f" {show(path)}; close it and run again"
            )
        yield found.fd


def _read(path: str, mode: int, own: t.Sequence[str] = ()) -> File:
    """Read a file; a missing one has no content and the ``mode`` that it would get."""
    with _folder(path, own) as folder:
        found = None if folder is None else _open_file(folder, path)
        if found is None:
            return File(path, None, mode)
        with os.fdopen(found, "rb") as file:
            status = os.fstat(found)
            return File(path, file.read(), status.st_mode & _MODE, status.st_uid, status.st_gid)


def _open_file(folder: int, path: str) -> int | None:
    """Open a regular file for reading; other files are only opened with ``O_PATH``."""
    name = os.fsencode(os.path.basename(path))
    try:
        fd = os.open(name, _PATH, dir_fd=folder)
    except FileNotFoundError:
        return None
    with opened(fd):
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise RootfsError(f"{show(path)} is not a regular file; remove it and run again")
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def _write(file: File, own: t.Sequence[str] = ()) -> None:
    """Write a file atomically and durably, or remove it."""
    with _folder(file.path, own) as folder:
        name = os.path.basename(file.path)
        if file.content is None:
            if folder is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
            return
        if folder is None:
            raise RootfsError(f"the folder of {show(file.path)} is missing; create it, or add it to directories")
        new = f".{name}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=folder)
        fd = os.open(new, _NEW_FILE, 0o600, dir_fd=folder)
        try:
            with os.fdopen(fd, "wb") as stream:
                stream.write(file.content)
                os.fchown(fd, file.uid, file.gid)
                os.fchmod(fd, file.mode)
                stream.flush()
                os.fsync(fd)
            os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=folder)
            raise


def _keep(folder: str, files: t.Sequence[File], own: t.Sequence[str]) -> None:
    own = (*own, folder)
    _make_directory(Directory(folder, 0o700), own, None, False)
    kept = [_to_json(_read(file.path, file.mode, own)) for file in files]
    text = json.dumps(kept, indent=1).encode()
    manifest = os.path.join(folder, _MANIFEST)
    _write(File(manifest, text, 0o600, os.geteuid(), os.getegid()), own)


def _to_json(file: File) -> dict[str, t.Any]:
    content = file.content
    return {
        "path": file.path,
        "content": None if content is None else base64.b64encode(content).decode(),
        "mode": file.mode,
        "uid": file.uid,
        "gid": file.gid,
    }


def _from_json(item: dict[str, t.Any]) -> File:
    content = item["content"]
    return File(
        path=item["path"],
        content=None if content is None else base64.b64decode(content),
        mode=item["mode"],
        uid=item["uid"],
        gid=item["gid"],
    )
