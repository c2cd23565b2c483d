# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stepping in between the product and the system, from outside, in a process that is there to be lost.

Every function that changes the disk, of ``os`` and of the product's own ``syscalls``, is replaced for the
life of this process by one that counts, and at one number dies or fails.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import signal
import sys
import typing as t

_PRODUCT = "ansible_collections.hypervisor.oci.plugins."
_SYSCALLS = "syscalls"
# The product's own calls, by the file of ``_fs`` that has them.
_OWN = {
    _SYSCALLS: ("exchange", "rename_new", "set_inode_flags", "set_subvolume_writable", "syncfs"),
    "btrfs": ("destroy_subvolume", "make_read_only", "make_snapshot", "make_subvolume"),
}
_OS = (
    "chmod",
    "chown",
    "copy_file_range",
    "fchmod",
    "fchown",
    "fdatasync",
    "fsync",
    "ftruncate",
    "lchown",
    "link",
    "mkdir",
    "mkfifo",
    "mknod",
    "posix_fallocate",
    "pwrite",
    "pwritev",
    "remove",
    "removexattr",
    "rename",
    "replace",
    "rmdir",
    "sendfile",
    "setxattr",
    "symlink",
    "sync",
    "truncate",
    "unlink",
    "utime",
    "write",
    "writev",
)
_MAKES = os.O_CREAT | os.O_TRUNC
_NEW_RECORD = b"record.json.new"

# What happens at the call: nothing, death before it, or after it (in the midst of it, for a write).
COUNT = "count"
BEFORE = "before"
AFTER = "after"


class Calls:
    """Counts the calls that change the disk; at call number ``at``, from 1, does what ``action`` says.

    ``action`` is ``BEFORE``, ``AFTER``, or the number of an error, which is raised in place of the call; with
    ``stay``, every later call fails too. ``event`` happens first, and with ``COUNT`` is all that happens.
    """

    def __init__(
        self, at: int = 0, action: str | int = COUNT, stay: bool = False, event: t.Callable[[], None] | None = None
    ) -> None:
        self.names: list[str] = []
        self._event = event
        self._at = at
        self._action = action
        self._stay = stay

    def __str__(self) -> str:
        if self._event is not None:
            return f"an event and {self._action} at call {self._at}"
        if isinstance(self._action, str):
            return f"death {self._action} call {self._at}"
        name = errno.errorcode[self._action]
        return f"{name} at call {self._at}{' and all later' if self._stay else ''}"

    def install(self) -> None:
        """Replace the functions, in this process, for good."""
        for name in _OS:
            function = getattr(os, name, None)
            if function is not None:
                setattr(os, name, self._wrapped(name, function))
        self._install_open()
        for where, names in _OWN.items():
            for name in names:
                replace_in_product(name, lambda found: self._wrapped(found.__name__, found), where)

    def _install_open(self) -> None:
        real_open = os.open
        counted_open = self._wrapped("open", real_open)

        def opened(path: t.Any, flags: int, *more: t.Any, **options: t.Any) -> int:
            function = counted_open if flags & _MAKES else real_open
            return function(path, flags, *more, **options)

        real_fdopen = os.fdopen
        calls = self

        class Counted(io.FileIO):
            def write(self, data: t.Any) -> int:
                return calls.run("write", super().write, (data,), {})

        def fdopened(fd: int, mode: str = "r", *more: t.Any, **options: t.Any) -> t.Any:
            if mode == "wb":
                return io.BufferedWriter(Counted(fd, "wb"))
            if mode not in ("r", "rb"):
                raise NotImplementedError(f"fdopen {mode!r} is not counted")
            return real_fdopen(fd, mode, *more, **options)

        vars(os).update(open=opened, fdopen=fdopened)

    def _wrapped(self, name: str, function: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        @functools.wraps(function)
        def call(*arguments: t.Any, **options: t.Any) -> t.Any:
            return self.run(name, function, arguments, options)

        return call

    def run(
        self, name: str, function: t.Callable[..., t.Any], arguments: tuple[t.Any, ...], options: dict[str, t.Any]
    ) -> t.Any:
        """One call, unless it is the one."""
        if name == "rename" and arguments[0] == _NEW_RECORD:
            name = "save"
        self.names.append(name)
        number = len(self.names)
        if not self._at or number < self._at or (number > self._at and not self._stay):
            return function(*arguments, **options)
        if self._event is not None and number == self._at:
            self._event()
        if self._action == COUNT:
            return function(*arguments, **options)
        if isinstance(self._action, int):
            raise OSError(self._action, os.strerror(self._action))
        try:
            if self._action == AFTER:
                function(*_torn(name, arguments), **options)
        finally:
            die()
        return None


def die() -> None:
    """End this process as a power cut would: nothing of it runs any more."""
    os.kill(os.getpid(), signal.SIGKILL)
    # the signal is delivered when the call returns, if not before
    signal.pause()


def replace_in_product(
    name: str, make: t.Callable[[t.Callable[..., t.Any]], t.Callable[..., t.Any]], where: str = _SYSCALLS
) -> None:
    """Replace one of the product's own system calls wherever it was imported to."""
    original = getattr(sys.modules[f"{_PRODUCT}module_utils._fs.{where}"], name)
    replacement = make(original)
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith(_PRODUCT):
            for key, value in list(vars(module).items()):
                if value is original:
                    setattr(module, key, replacement)


def _torn(name: str, arguments: tuple[t.Any, ...]) -> tuple[t.Any, ...]:
    """Of a write, only half has reached the disk."""
    if name not in ("write", "pwrite"):
        return arguments
    position = 0 if len(arguments) == 1 else 1
    data = bytes(arguments[position])
    half = data[: len(data) // 2]
    return (*arguments[:position], half, *arguments[position + 1 :])
