# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Let the systemd of a container run a health check: it gives what it starts no more than it has (docs/behaviour.md, section 15)."""

from __future__ import annotations

from .._container.model import Container, ContainerError
from .._container.wrapper import render_wrapper
from .health import Check, Joining

# How many seconds later than the node the container's systemd ends a check that takes too long.
_GRACE = 1


def by_systemd(machine: str, container: Container, mark: str, check: Check) -> Joining:
    """Return the command that has the systemd of a machine run the check, as a service that lasts no longer than it.

    A shell of the container sets the variables, from what it reads: a command line would show them to all users. It also keeps
    words from systemd, which would put variables into them.
    """
    try:
        script = render_wrapper(check.argv, container.env)
    except ContainerError as error:
        return Joining(refusal=f"its environment cannot be passed on to a health check: {error.message}")
    # a process that the check leaves behind ends with its service, at once
    limits = ("--property=KillSignal=SIGKILL", f"--property=RuntimeMaxSec={check.timeout + _GRACE:.3f}s")
    user = (f"--uid={container.user.uid}", f"--gid={container.user.gid}")
    where = (f"--machine={machine}", f"--setenv={mark}", *user, f"--working-directory={container.working_dir}")
    return Joining(
        ("systemd-run", "--quiet", "--wait", "--pipe", "--collect", *where, *limits, "--", "/bin/sh"), script
    )
