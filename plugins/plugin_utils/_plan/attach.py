# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Attach a health check to a container of LXC, with no more rights than its first process (docs/behaviour.md, section 15)."""

from __future__ import annotations

from .._container.model import Container, ContainerError
from .._container.wrapper import render_wrapper
from .health import Joining

_SHELL = ("/bin/sh",)


def attach(
    selected: tuple[str, ...], container: Container, mark: str, argv: tuple[str, ...], by_shell: bool
) -> Joining:
    """Return the command that runs ``argv`` in the container that ``selected`` options of ``lxc-attach`` mean.

    LXC puts the attached process under the container's own restrictions, and sets the variables of its configuration. With
    ``by_shell`` a shell of the container sets all of them, from what it reads: a command line would show them to all users.
    """
    stdin = ""
    if by_shell:
        try:
            stdin = render_wrapper(argv, container.env)
        except ContainerError as error:
            return Joining(refusal=f"its environment cannot be passed on to a health check: {error.message}")
        argv = _SHELL
    user = ("--uid", str(container.user.uid), "--gid", str(container.user.gid))
    return Joining(("lxc-attach", *selected, "--clear-env", "--set-var", mark, *user, "--", *argv), stdin)
