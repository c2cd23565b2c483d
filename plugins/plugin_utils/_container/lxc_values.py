# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""What a line of LXC's can hold, and how (docs/behaviour.md, section 9); Proxmox VE copies such lines as they stand.

LXC trims a value and takes one pair of equal quotes off its ends. ``lxc.init.cmd`` is split into words after that, where
only a whole word can be quoted, and nothing can be escaped. Before LXC 6.0, words of it could not be quoted at all.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ...module_utils._errors import show
from .model import Container, ContainerError, IdRange, Mount, Option
from .text import has_controls, require_line, variable
from .wrapper import WRAPPER_ARGV, WRAPPER_TARGET, render_wrapper

_QUOTES = ("'", '"')
# LXC reads an entry into a buffer of this many bytes
_MOUNT_LINE_LIMIT = 4095
_FSTAB_ESCAPES = {"\\": "\\134", " ": "\\040", "\t": "\\011"}


# the parts of an error, without an advice
Reason = t.Tuple[str, ...]


@dataclass(frozen=True)
class Start:
    """What the runtime starts: the container's own argv, or the wrapper with its ``script``."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    script: str | None = None


def plan_start(container: Container, secret_env: bool, quoted_words: bool = True) -> Start:
    """Split argv and environment into what lines can express and what the wrapper must.

    ``secret_env``: keep the environment out of the configuration, since programs of the host would see it.
    ``quoted_words``: LXC is 6.0 or newer. Raises ``ContainerError`` if the wrapper cannot help.
    """
    if wrapper_reason(container, secret_env, quoted_words) is None:
        return Start(container.argv, container.env)
    exported: list[tuple[str, str]] = []
    passed: list[tuple[str, str]] = []
    for name, value in container.env:
        wrapped = secret_env or has_controls(value)
        (exported if wrapped else passed).append((name, value))
    return Start(WRAPPER_ARGV, tuple(passed), render_wrapper(container.argv, exported, passed))


def wrapper_reason(container: Container, secret_env: bool, quoted_words: bool = True) -> Reason | None:
    """Return why the container needs the wrapper, or ``None`` if it does not."""
    for word in container.argv:
        if quote_word(word, quoted_words) is None:
            return Option("command"), f": LXC cannot express the word {show(word)}"
    for name, value in container.env:
        if has_controls(value):
            return Option(variable("env", name)), ": the value contains a control character"
    if secret_env and container.env:
        return Option("env"), ": hooks on the host would see the container's environment"
    return None


def require_wrapper(reason: Reason, wrapper: str | None) -> str:
    """Return the wrapper's path on the host. Raises ``ContainerError`` if it must not be used."""
    if wrapper is None:
        raise ContainerError(
            *reason, "; allow the exec wrapper with the option ", Option("wrapper"), ", or change the value"
        )
    if not wrapper.startswith("/"):
        raise ContainerError(Option("wrapper"), f": {show(wrapper)} is not an absolute path")
    return wrapper


def wrapper_mount(path: str) -> Mount:
    """Return the mount of the wrapper."""
    return Mount(source=path, target=WRAPPER_TARGET, read_only=True, options=("create=file",))


def quote_word(word: str, quoted_words: bool = True) -> str | None:
    """Return one word of a command, quoted, or ``None`` if LXC cannot express it."""
    if has_controls(word):
        return None
    if not quoted_words:
        # split at blanks and nothing else
        return word if word and " " not in word else None
    if word and word[0] not in _QUOTES and not any(c.isspace() for c in word):
        return word
    for quote in ('"', "'"):
        if quote not in word:
            return quote + word + quote
    return None


def command_value(argv: t.Sequence[str], quoted_words: bool = True) -> str:
    """Return the value of ``lxc.init.cmd``; if words are quoted, all of it is put into a pair that LXC removes.

    Raises ``ContainerError``.
    """
    words = []
    for word in argv:
        quoted = quote_word(word, quoted_words)
        if quoted is None:
            raise ContainerError(Option("command"), f": LXC cannot express the word {show(word)}")
        words.append(quoted)
    value = " ".join(words)
    return quote_value("command", value) if words == list(argv) else f'"{value}"'


def quote_value(field: str, value: str) -> str:
    """Return any other value, in a pair of quotes that LXC removes if its ends need them. Raises ``ContainerError``."""
    require_line(field, value)
    if value and (value[0] in _QUOTES or value[0].isspace() or value[-1].isspace()):
        return f'"{value}"'
    return value


def variable_value(name: str, value: str) -> str:
    """Return the value of a line of ``lxc.environment`` or ``lxc.environment.runtime``."""
    field = variable("env", name)
    require_line(field, name)
    return quote_value(field, f"{name}={value}")


def mount_value(mount: Mount) -> str:
    """Return the value of ``lxc.mount.entry``, a line of fstab with its escapes, which creates a missing target.

    Binds are recursive unless they are read-only: mounts below would stay writable.
    """
    if mount.type == "bind":
        kind = "none"
        options = [] if {"bind", "rbind"} & set(mount.options) else ["rbind"]
        if options and mount.read_only:
            options = ["bind"]
    else:
        kind, options = mount.type, []
    if mount.read_only:
        options.append("ro")
    options.extend(mount.options)
    if not any(option.startswith("create=") for option in options):
        options.append("create=dir")
    fields = (
        mount.source,
        # LXC takes a relative target for one in the container
        mount.target.lstrip("/"),
        kind,
        ",".join(options),
    )
    value = " ".join([*(_fstab(field) for field in fields), "0", "0"])
    if len(value.encode()) > _MOUNT_LINE_LIMIT:
        raise ContainerError(
            Option("mounts"),
            f": the mount at {show(mount.target)} is longer than the {_MOUNT_LINE_LIMIT} bytes that LXC reads; use"
            " shorter paths",
        )
    return quote_value("mounts", value)


def _fstab(text: str) -> str:
    return "".join(_FSTAB_ESCAPES.get(c, c) for c in text)


def id_map_values(container: Container) -> list[str]:
    """Return the values of ``lxc.idmap``."""

    def lines(kind: str, ranges: tuple[IdRange, ...]) -> list[str]:
        return [f"{kind} {item.container} {item.host} {item.count}" for item in ranges]

    return lines("u", container.uid_map) + lines("g", container.gid_map)


def signal_value(signal: str) -> str:
    """Return the signal as LXC writes it: real-time signals only by their distance."""
    return {"SIGRTMIN": "SIGRTMIN+0", "SIGRTMAX": "SIGRTMAX-0"}.get(signal, signal)
