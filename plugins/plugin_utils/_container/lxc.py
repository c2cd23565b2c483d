# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""A container as LXC's ``config`` (docs/behaviour.md, section 9)."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Sequence
from dataclasses import dataclass

from ...module_utils._errors import show
from .lxc_values import (
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
from .model import Container, ContainerError
from .text import require_line

_VERSION = re.compile(r"([0-9]{1,4})(?:\.[0-9]+)+(?:[^0-9.].*)?\Z")


@dataclass(frozen=True)
class Features:
    """What the installed LXC can do: quote words of a command (6.0), tell the container's environment from that of hooks
    (7.0), and give supplementary groups to mapped containers (7.0)."""

    quoted_words: bool = True
    runtime_environment: bool = False
    mapped_groups: bool = True


def features_of(version: str | None, runtime_environment: bool | None) -> Features:
    """Those of ``version`` as ``lxc-start --version`` prints it, of any where it is ``None``.

    ``runtime_environment`` is for builds that know ``lxc.environment.runtime`` before its release. Raises
    ``ContainerError``.
    """
    if version is None:
        return Features(runtime_environment=bool(runtime_environment))
    match = _VERSION.match(str(version).strip())
    if match is None:
        raise ContainerError(f"version: {show(str(version))} is not a version of LXC, such as 6.0.4")
    major = int(match.group(1))
    known = major >= 7
    return Features(
        quoted_words=major >= 6,
        runtime_environment=(known if runtime_environment is None else runtime_environment),
        mapped_groups=known,
    )


def render_lxc(
    container: Container,
    *,
    runtime_environment: bool | None = None,
    version: str | None = None,
    wrapper: str | None = None,
    settings: t.Sequence[str] = (),
) -> str:
    """The text of ``config``.

    ``runtime_environment`` and ``version`` tell what the installed LXC can do, see ``features_of``. ``wrapper`` is where on
    the host the exec wrapper lies, where it may be used. ``settings`` are lines of the administrator's: inclusions come
    first, the others last, so that they win. Raises ``ContainerError``.
    """
    settings = checked_settings(settings)
    features = features_of(version, runtime_environment)
    user = container.user
    if user.groups and container.gid_map and not features.mapped_groups:
        raise ContainerError(
            f"user: LXC {show(str(version).strip())} gives no supplementary groups to containers with an id map, and {show(user.name)} has"
            " some; set user to UID:GID to go without, or use LXC 7.0, runc or crun"
        )
    secret = environment_is_seen(features.runtime_environment, settings)
    words = features.quoted_words
    reason = wrapper_reason(container, secret, words)
    mounts = list(container.mounts)
    if reason is not None:
        mounts.append(wrapper_mount(require_wrapper(reason, wrapper)))
    start = plan_start(container, secret, words)
    variables = "lxc.environment"
    if features.runtime_environment:
        variables = "lxc.environment.runtime"
    items = [
        ("lxc.uts.name", container.hostname),
        ("lxc.rootfs.path", quote_value("rootfs", f"dir:{container.rootfs}")),
        *(("lxc.idmap", value) for value in id_map_values(container)),
        *(("lxc.mount.entry", mount_value(mount)) for mount in mounts),
        *((variables, variable_value(name, value)) for name, value in start.env),
        ("lxc.init.cmd", command_value(start.argv, words)),
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
    """Lines of the administrator's, as they stand. Raises ``ContainerError``."""
    if isinstance(settings, str) or not isinstance(settings, Sequence):
        raise ContainerError("settings must be a list of lines, each such as 'lxc.net.0.type = empty'")
    for number, line in enumerate(settings):
        if not isinstance(line, str):
            raise ContainerError(f"settings[{number}]: the value is not a line of text")
        require_line("settings", line, "give one item for each line")
    return tuple(settings)


def environment_is_seen(runtime_environment: bool, settings: t.Sequence[str]) -> bool:
    """Whether programs of the host's would run with the container's environment: hooks, or files that may bring some."""
    if runtime_environment:
        return False
    return any(_key(line) == "lxc.include" or _key(line).startswith("lxc.hook.") for line in settings)


def needs_wrapper(
    container: Container,
    *,
    runtime_environment: bool | None = None,
    version: str | None = None,
    settings: t.Sequence[str] = (),
) -> bool:
    """Whether ``render_lxc`` of the same arguments needs the exec wrapper."""
    features = features_of(version, runtime_environment)
    secret = environment_is_seen(features.runtime_environment, checked_settings(settings))
    return wrapper_reason(container, secret, features.quoted_words) is not None


def wrapper_script(
    container: Container,
    *,
    runtime_environment: bool | None = None,
    version: str | None = None,
    settings: t.Sequence[str] = (),
) -> str | None:
    """The text of the wrapper that goes with ``render_lxc`` of the same arguments; ``None`` where none is needed. Raises
    ``ContainerError``."""
    features = features_of(version, runtime_environment)
    secret = environment_is_seen(features.runtime_environment, checked_settings(settings))
    return plan_start(container, secret, features.quoted_words).script


def _key(line: str) -> str:
    return line.partition("=")[0].strip()
