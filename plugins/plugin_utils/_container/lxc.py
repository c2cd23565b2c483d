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
    Start,
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
from .model import Container, ContainerError, Mount, Option
from .text import require_line

# the keys of this family that are not about controllers of cgroup v1
_CGROUP_KEYS = ("lxc.cgroup.dir", "lxc.cgroup.relative")
# LXC runs it before it sets the environment, which the container's process does
_EARLY_HOOK = "lxc.hook.pre-start"
_VERSION = re.compile(r"([0-9]{1,4})(?:\.[0-9]+)+(?:[^0-9.].*)?\Z")


@dataclass(frozen=True)
class Features:
    """Features of the installed LXC: quoted words in a command (6.0), an environment that hooks do not see (7.0),
    supplementary groups in mapped containers (7.0), and keys of cgroup v1 (before 7.0)."""

    quoted_words: bool = True
    runtime_environment: bool = False
    mapped_groups: bool = True
    # an unknown release: a container that does not start is better than one that gets all devices
    cgroup_v1: bool = True


def features_of(version: str | None, runtime_environment: bool | None) -> Features:
    """Return the features of ``version``, as ``lxc-start --version`` prints it; ``None`` stands for 6.0.

    ``runtime_environment`` is for builds that know ``lxc.environment.runtime`` before its release. Raises
    ``ContainerError``.
    """
    if version is None:
        return Features(runtime_environment=bool(runtime_environment))
    match = _VERSION.match(str(version).strip())
    if match is None:
        raise ContainerError(
            Option("version"), f": invalid version of LXC {show(str(version))}; expected one such as 6.0.4"
        )
    major = int(match.group(1))
    known = major >= 7
    return Features(
        quoted_words=major >= 6,
        runtime_environment=(known if runtime_environment is None else runtime_environment),
        mapped_groups=known,
        cgroup_v1=not known,
    )


def render_lxc(
    container: Container,
    *,
    runtime_environment: bool | None = None,
    version: str | None = None,
    wrapper: str | None = None,
    settings: t.Sequence[str] = (),
) -> str:
    """Return the text of ``config``.

    ``runtime_environment`` and ``version``: see ``features_of``. ``wrapper``: the exec wrapper's path on the host, ``None`` if it
    must not be used. ``settings``: lines of the administrator; inclusions come first, the others last, so that they win.
    Raises ``ContainerError``.
    """
    settings = checked_settings(settings)
    features = features_of(version, runtime_environment)
    _require_groups(container, features, version)
    if not features.cgroup_v1:
        _require_cgroup2(settings)
    secret = environment_is_seen(features.runtime_environment, settings)
    words = features.quoted_words
    reason = wrapper_reason(container, secret, words)
    mounts = list(container.mounts)
    if reason is not None:
        mounts.append(wrapper_mount(require_wrapper(reason, wrapper)))
    items = _items(container, plan_start(container, secret, words), mounts, features)
    included = [line for line in settings if _key(line) == "lxc.include"]
    others = [line for line in settings if _key(line) != "lxc.include"]
    lines = [*included, *(f"{key} = {value}" for key, value in items), *others]
    return "\n".join(lines) + "\n"


def _items(
    container: Container, start: Start, mounts: t.Sequence[Mount], features: Features
) -> t.Iterator[tuple[str, str]]:
    """Yield the container's keys and values in the order of the file."""
    user = container.user
    variables = "lxc.environment.runtime" if features.runtime_environment else "lxc.environment"
    yield "lxc.uts.name", container.hostname
    yield "lxc.rootfs.path", quote_value("rootfs", f"dir:{container.rootfs}")
    for value in id_map_values(container):
        yield "lxc.idmap", value
    for mount in mounts:
        yield "lxc.mount.entry", mount_value(mount)
    for name, value in start.env:
        yield variables, variable_value(name, value)
    yield "lxc.init.cmd", command_value(start.argv, features.quoted_words)
    yield "lxc.init.cwd", quote_value("working_dir", container.working_dir)
    yield "lxc.init.uid", str(user.uid)
    yield "lxc.init.gid", str(user.gid)
    if user.groups:
        yield "lxc.init.groups", ",".join(map(str, user.groups))
    yield "lxc.signal.halt", signal_value(container.stop_signal)


def _require_groups(container: Container, features: Features, version: str | None) -> None:
    user = container.user
    if user.groups and container.gid_map and not features.mapped_groups:
        raise ContainerError(
            Option("user"),
            f": LXC {show(str(version).strip())} does not give supplementary groups to containers with an id map, and"
            f" {show(user.name)} has some; set user to UID:GID to start without them, or use LXC 7.0, runc or crun",
        )


def _require_cgroup2(settings: t.Sequence[str]) -> None:
    for line in settings:
        key = _key(line)
        if key.startswith("lxc.cgroup.") and not key.startswith(_CGROUP_KEYS):
            raise ContainerError(
                Option("settings"), f": LXC 7.0 does not load a configuration with {show(key)}; use lxc.cgroup2"
            )


def checked_settings(settings: t.Any) -> tuple[str, ...]:
    """Return the administrator's lines unchanged. Raises ``ContainerError``."""
    if isinstance(settings, str) or not isinstance(settings, Sequence):
        raise ContainerError(Option("settings"), " must be a list of lines such as 'lxc.net.0.type = empty'")
    for number, line in enumerate(settings):
        if not isinstance(line, str):
            raise ContainerError(Option(f"settings[{number}]"), " must be a string")
        require_line("settings", line, "use one item for each line")
    return tuple(settings)


def environment_is_seen(runtime_environment: bool, settings: t.Sequence[str]) -> bool:
    """Return whether programs of the host would run with the container's environment: hooks, or included files with hooks."""
    if runtime_environment:
        return False
    keys = {_key(line) for line in settings} - {_EARLY_HOOK}
    return any(key == "lxc.include" or key.startswith("lxc.hook.") for key in keys)


def needs_wrapper(
    container: Container,
    *,
    runtime_environment: bool | None = None,
    version: str | None = None,
    settings: t.Sequence[str] = (),
) -> bool:
    """Return whether ``render_lxc`` with the same arguments needs the exec wrapper."""
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
    """Return the text of the wrapper for ``render_lxc`` with the same arguments, or ``None`` if it is not needed.

    Raises ``ContainerError``.
    """
    features = features_of(version, runtime_environment)
    secret = environment_is_seen(features.runtime_environment, checked_settings(settings))
    return plan_start(container, secret, features.quoted_words).script


def _key(line: str) -> str:
    return line.partition("=")[0].strip()
