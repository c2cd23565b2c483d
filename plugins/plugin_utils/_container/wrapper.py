# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The exec wrapper: a small script for what no line of configuration can express (docs/behaviour.md, section 9).

It lies outside of the tree, is bind-mounted read-only, and the ``/bin/sh`` of the root runs it. Every word of the image
stands between single quotes in it: text, never code.
"""

from __future__ import annotations

import re
import typing as t

from ...module_utils._errors import show
from .model import ContainerError
from .text import require_text, variable

# /dev is a tmpfs of the runtime's, so no file for the mount is made in the tree itself
WRAPPER_TARGET = "/dev/.hypervisor-oci-exec"
# not executed itself: neither its mode nor a noexec mount matters
WRAPPER_ARGV = ("/bin/sh", WRAPPER_TARGET)

# what a shell passes on; it drops others from the environment without a word
_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# what a shell does not let anybody set
_READ_ONLY = ("BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID")


def render_wrapper(
    argv: t.Sequence[str], exported: t.Iterable[tuple[str, str]], passed: t.Iterable[tuple[str, str]] = ()
) -> str:
    """The script: sets ``exported``, and becomes ``argv``. ``passed`` is what the runtime itself puts into its environment.

    Raises ``ContainerError`` for what would not come through a shell.
    """
    exported = tuple(exported)
    for name, _value in (*exported, *passed):
        if not _SHELL_NAME.match(name) or name in _READ_ONLY:
            raise ContainerError(
                f"{variable('env', name)}: a shell does not pass on a variable of this name, and this container needs the"
                " wrapper; leave the variable out, or use runc or crun"
            )
    if argv[0].startswith("-"):
        raise ContainerError(
            f"argv: the program {show(argv[0])} would be taken for an option of the wrapper's shell; name it with its path"
        )
    lines = ["#!/bin/sh", "# Made by the collection hypervisor.oci; changes here are lost."]
    lines.extend(f"export {name}={_inert(variable('env', name), value)}" for name, value in exported)
    lines.append("exec " + " ".join(_inert("argv", word) for word in argv))
    return "\n".join(lines) + "\n"


def _inert(field: str, text: str) -> str:
    """One word for the shell, whatever it holds: nothing is special between single quotes but they themselves."""
    return "'" + require_text(field, text).replace("'", "'\\''") + "'"
