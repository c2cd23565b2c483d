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
from .model import ContainerError, Option
from .text import require_text, variable

# /dev is a tmpfs of the runtime's, so no file for the mount is made in the tree itself
WRAPPER_TARGET = "/dev/.hypervisor-oci-exec"
# not executed itself: neither its mode nor a noexec mount matters
WRAPPER_ARGV = ("/bin/sh", WRAPPER_TARGET)

# a shell silently drops variables with other names
_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# a shell refuses to set these
_READ_ONLY = ("BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID")


def render_wrapper(
    argv: t.Sequence[str], exported: t.Iterable[tuple[str, str]], passed: t.Iterable[tuple[str, str]] = ()
) -> str:
    """Return the script, which exports ``exported`` and executes ``argv``; the runtime itself sets ``passed``.

    Raises ``ContainerError`` for what a shell would not pass on.
    """
    exported = tuple(exported)
    for name, _value in (*exported, *passed):
        if not _SHELL_NAME.match(name) or name in _READ_ONLY:
            raise ContainerError(
                Option(variable("env", name)),
                ": a shell does not pass on a variable of this name, and this container needs the exec"
                " wrapper; remove the variable, or use runc or crun",
            )
    if argv[0].startswith("-"):
        raise ContainerError(
            Option("command"),
            f": the wrapper's shell would take the program {show(argv[0])} for an option; use its path",
        )
    lines = ["#!/bin/sh", "# Made by the collection hypervisor.oci; changes here are lost."]
    lines.extend(f"export {name}={_inert(variable('env', name), value)}" for name, value in exported)
    lines.append("exec " + " ".join(_inert("command", word) for word in argv))
    return "\n".join(lines) + "\n"


def _inert(field: str, text: str) -> str:
    """Return one word for the shell: between single quotes, only single quotes are special."""
    return "'" + require_text(field, text).replace("'", "'\\''") + "'"
