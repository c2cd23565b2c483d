# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""A container as LXC's C(config) (docs/behaviour.md, section 9)."""

from __future__ import annotations

import typing as t
from collections.abc import Sequence

from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.lxc_values import (
    command_value,
    id_map_values,
    mount_value,
    plan_start,
    quote_value,
    require_wrapper,
    signal_value,
    variable_value,
    wrapper_mount,
    wrapper_reason,
)
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import (
    Container,
    ContainerError,
)
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.text import (
    require_line,
)


def render_lxc(
    container: Container,
    *,
    runtime_environment: bool = False,
    wrapper: str | None = None,
    settings: t.Sequence[str] = (),
) -> str:
    """The text of C(config).

    C(runtime_environment) tells that the installed LXC knows C(lxc.environment.runtime) (7.0 does). C(wrapper) is where
    on the host the exec wrapper lies, where it may be used. C(settings) are lines of the administrator's: inclusions
    come first, the others last, so that they win. Raises C(ContainerError).
    """
    settings = checked_settings(settings)
    secret = environment_is_seen(runtime_environment, settings)
    reason = wrapper_reason(container, secret)
    mounts = list(container.mounts)
    if reason is not None:
        mounts.append(wrapper_mount(require_wrapper(reason, wrapper)))
    start = plan_start(container, secret)
    variables = "lxc.environment.runtime" if runtime_environment else "lxc.environment"
    user = container.user
    items = [
        ("lxc.uts.name", container.hostname),
        ("lxc.rootfs.path", quote_value("rootfs", f"dir:{container.rootfs}")),
        *(("lxc.idmap", value) for value in id_map_values(container)),
        *(("lxc.mount.entry", mount_value(mount)) for mount in mounts),
        *((variables, variable_value(name, value)) for name, value in start.env),
        ("lxc.init.cmd", command_value(start.argv)),
        ("lxc.init.cwd", quote_value("working_dir", container.working_dir)),
        ("lxc.init.uid", str(user.uid)),
        ("lxc.init.gid", str(user.gid)),
    ]
    if user.groups:
        items.append(("lxc.init.groups", ",".join(map(str, user.groups))))
    items.append(("lxc.signal.halt", signal_value(container.stop_signal)))
    included = [line for line in settings if _key(line) == "lxc.include"]
    others = [line for line in settings if _key(line) != "lxc.include"]
    lines = [*included, *(f"{key} = {value}" for key, value in items), *others]
    return "\n".join(lines) + "\n"


def checked_settings(settings: t.Any) -> tuple[str, ...]:
    """Lines of the administrator's, as they stand. Raises C(ContainerError)."""
    if isinstance(settings, str) or not isinstance(settings, Sequence):
        raise ContainerError(
            "settings must be a list of lines, each such as 'lxc.net.0.type = empty'"
        )
    for line in settings:
        if not isinstance(line, str):
            raise ContainerError(f"settings: {line!r} is no line of text")
        require_line("settings", line, "give one item for each line")
    return tuple(settings)


def environment_is_seen(runtime_environment: bool, settings: t.Sequence[str]) -> bool:
    """Whether programs of the host's would run with the container's environment: hooks, or files that may bring some."""
    if runtime_environment:
        return False
    return any(
        _key(line) == "lxc.include" or _key(line).startswith("lxc.hook.")
        for line in settings
    )


def needs_wrapper(
    container: Container,
    *,
    runtime_environment: bool = False,
    settings: t.Sequence[str] = (),
) -> bool:
    """Whether C(render_lxc) of the same arguments needs the exec wrapper."""
    secret = environment_is_seen(runtime_environment, checked_settings(settings))
    return wrapper_reason(container, secret) is not None


def _key(line: str) -> str:
    return line.partition("=")[0].strip()
