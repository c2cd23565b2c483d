# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removes what a test made, and nothing else: the one place in the tests where trees are removed.

    removal.py FOLDER PATH...        removes files and trees that lie below a folder of the test's own
    removal.py FOLDER --content      removes all that lies in that folder

What is to be removed is an absolute path below the folder, whatever links say, and the folder lies in a place where
tests work. Everything else is an error, before anything is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
import typing as t

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Where tests make folders of their own. Those below /var/lib are empty folders of the sandbox's, where tests run as root.
PLACES = (
    "/tmp",
    "/var/tmp",
    "/dev/shm",
    "/var/lib/hypervisor.oci",
    "/var/lib/lxc",
    "/var/lib/machines",
    *(os.path.join(ROOT, name) for name in (".nox", "tests/output")),
)

Path = t.Union[str, bytes, "os.PathLike[str]"]


class NotOurs(Exception):
    """What is to be removed is not, or not surely, a test's own; the text says what."""


def remove_below(folder: Path, path: Path) -> None:
    """Remove a file or a tree below a folder of the test's own; nothing if it is not there. Raises ``NotOurs``."""
    above, name = _checked(os.fsdecode(folder), os.fsdecode(path))
    target = os.path.join(above, name)
    try:
        kind = os.lstat(target).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(kind):
        shutil.rmtree(target)
    else:
        os.unlink(target)


def remove_content(folder: Path) -> None:
    """Remove all that lies in a folder of the test's own. Raises ``NotOurs``."""
    own = _own(os.fsdecode(folder))
    for name in os.listdir(own):
        remove_below(own, os.path.join(own, name))


@contextlib.contextmanager
def made_folder(prefix: str, above: str | None = None) -> t.Iterator[str]:
    """Make a folder, and remove it at the end."""
    folder = make_folder(prefix, above)
    try:
        yield folder
    finally:
        remove_folder(folder)


def make_folder(prefix: str, above: str | None = None) -> str:
    """Return a new folder in a place where tests work, for ``remove_folder``."""
    folder = tempfile.mkdtemp(prefix=prefix, dir=above)
    try:
        return _own(folder)
    except NotOurs:
        os.rmdir(folder)
        raise


def remove_folder(folder: Path) -> None:
    """Remove what ``make_folder`` made. Raises ``NotOurs``."""
    own = _own(os.fsdecode(folder))
    remove_below(os.path.dirname(own), own)


def _own(folder: str) -> str:
    """Return the resolved path of a folder below a place where tests work."""
    _check_words(folder)
    own = os.path.realpath(folder)
    for place in _places():
        if _is_below(own, place):
            return own
    raise NotOurs(f"{folder!r} is not in a place where tests work")


def _places() -> list[str]:
    return [os.path.realpath(place) for place in (tempfile.gettempdir(), *PLACES)]


def _checked(folder: str, path: str) -> tuple[str, str]:
    """Return the resolved directory above a path, which is the folder or lies below it, and the last component."""
    _check_words(path)
    above, name = os.path.split(path.rstrip("/"))
    above = os.path.realpath(above)
    own = os.path.realpath(folder)
    if own not in _places():
        own = _own(folder)
    if above != own and not _is_below(above, own):
        raise NotOurs(f"{path!r} does not lie below {folder!r}")
    return above, name


def _check_words(path: str) -> None:
    unclear = {".", ".."} & set(path.split("/"))
    if not path.startswith("/") or unclear or not path.strip("/"):
        raise NotOurs(f"{path!r} is not the absolute path of something to remove")


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder + "/") and folder != "/"


def main() -> int:
    """The command line; returns the exit status."""
    folder, *paths = sys.argv[1:]
    if paths == ["--content"]:
        remove_content(folder)
    else:
        for path in paths:
            _checked(folder, path)
        for path in paths:
            remove_below(folder, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
