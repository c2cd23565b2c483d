# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""The files of the host that describe a container, written together and brought back together."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
import typing as t
from dataclasses import dataclass

from ansible_collections.hypervisor.oci.plugins.module_utils._diff import (
    diff_of,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import (
    RootfsError,
    os_advice,
    os_phrase,
    show,
)

_MANIFEST = "files.json"
_MODE = 0o7777


@dataclass(frozen=True)
class Directory:
    """Made with C(mode) where it is missing; C(passable) lets others through, also where it is there already."""

    path: str
    mode: int
    passable: bool = False


@dataclass(frozen=True)
class File:
    """What a file is to be; C(content) of C(None) stands for no file."""

    path: str
    content: bytes | None
    mode: int
    uid: int = 0
    gid: int = 0


def provide(
    directories: t.Sequence[Directory],
    files: t.Sequence[File],
    keep: str | None,
    check_mode: bool,
) -> list[str]:
    """Make directories and files as they are said to be; returns the paths of those that were not.

    Where a file changes, what all of them were before goes to the directory C(keep). Raises C(RootfsError).
    """
    with _sentences():
        changed = [
            item.path for item in directories if _make_directory(item, check_mode)
        ]
        differing = [file for file in files if _read(file.path, file.mode) != file]
        if differing and not check_mode:
            if keep is not None:
                _keep(keep, files)
            for file in differing:
                _write(file)
        return changed + [file.path for file in differing]


def restore(keep: str, check_mode: bool) -> list[str]:
    """Bring back what C(provide) put into C(keep); returns the paths of what was otherwise. Raises C(RootfsError)."""
    with _sentences():
        try:
            with open(os.path.join(keep, _MANIFEST), encoding="utf-8") as manifest:
                kept = json.load(manifest)
        except FileNotFoundError as error:
            raise RootfsError(
                f"there is nothing to restore in {show(keep)}; only files that were changed are kept there"
            ) from error
        files = [_from_json(item) for item in kept]
        differing = [file for file in files if _read(file.path, file.mode) != file]
        if not check_mode:
            for file in differing:
                _write(file)
        return [file.path for file in differing]


def difference(file: File, kind: str) -> str:
    """What C(provide) would change in one file, as much of it as C(kind) allows to be shown."""
    with _sentences():
        old = _read(file.path, file.mode).content
    return diff_of(file.path, kind, old, file.content)


@contextlib.contextmanager
def _sentences() -> t.Iterator[None]:
    try:
        yield
    except OSError as error:
        name = show(os.fsdecode(error.filename)) if error.filename else "a file"
        advice = os_advice(error) or "look at the folder that it lies in"
        raise RootfsError(
            f"{name} could not be worked on: {os_phrase(error)}; {advice}"
        ) from error


def _make_directory(item: Directory, check_mode: bool) -> bool:
    try:
        status = os.stat(item.path)
    except FileNotFoundError:
        if not check_mode:
            above = os.path.dirname(item.path.rstrip("/"))
            if not os.path.isdir(above):
                # those above are for nobody else either, but for passing
                _make_directory(Directory(above, item.mode, item.passable), False)
            os.mkdir(item.path, 0o700)
            os.chmod(item.path, item.mode | (0o001 if item.passable else 0))
        return True
    if not stat.S_ISDIR(status.st_mode):
        raise RootfsError(
            f"{show(item.path)} is not a directory; remove it or choose another place"
        ) from None
    if not item.passable or status.st_mode & 0o001:
        return False
    if not check_mode:
        os.chmod(item.path, stat.S_IMODE(status.st_mode) | 0o001)
    return True


def _read(path: str, mode: int) -> File:
    """The file as it is; one that is not there has the mode that it would get."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return File(path, None, mode)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise RootfsError(
                f"{show(path)} is not a regular file; remove it and run again"
            )
        return File(
            path, file.read(), status.st_mode & _MODE, status.st_uid, status.st_gid
        )


def _write(file: File) -> None:
    """Whole or not at all, also when the machine stops."""
    if file.content is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file.path)
        return
    folder, name = os.path.split(file.path)
    new = os.path.join(folder, f".{name}.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(file.content)
            os.fchown(fd, file.uid, file.gid)
            os.fchmod(fd, file.mode)
            stream.flush()
            os.fsync(fd)
        os.rename(new, file.path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise


def _keep(folder: str, files: t.Sequence[File]) -> None:
    _make_directory(Directory(folder, 0o700), False)
    kept = [_to_json(_read(file.path, file.mode)) for file in files]
    text = json.dumps(kept, indent=1).encode()
    _write(
        File(os.path.join(folder, _MANIFEST), text, 0o600, os.geteuid(), os.getegid())
    )


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
