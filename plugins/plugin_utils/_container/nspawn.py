# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""A container as settings of systemd-nspawn, a ``.nspawn`` file (docs/behaviour.md, section 9; docs/rendering.md).

The file is read by systemd's parser of unit files, but without specifiers: ``%`` stands for itself. Words of
``Parameters=`` and ``Environment=`` are unquoted as in a shell and keep their backslashes: systemd reads
no C escapes there, so that quotes change where a word holds both kinds.
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping

from ...module_utils._errors import show
from .lxc_values import Start, plan_start, require_wrapper, wrapper_mount
from .model import Container, ContainerError, IdRange, Mount, Option
from .text import has_controls, require_line, variable

_BARE = re.compile(r"[A-Za-z0-9=+_/;.:,-]+\Z")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?\Z")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9-]*\Z")
_TMPFS_OPTION = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:=[A-Za-z0-9_%.+/-]+)?\Z")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
# Where code points that are no characters may be; beyond the first plane, they are the last two of each.
_UNUSUAL = re.compile("[\ufdd0-\ufdef\ufffe\uffff\U00010000-\U0010ffff]")
_SECTIONS = ("Exec", "Files", "Network")
# systemd reads no longer line (LONG_LINE_MAX)
_LINE_LIMIT = 1024 * 1024 - 1
_RUNC = "use runc or crun, which take numbers"
_CONTROLS_ADVICE = "remove it, allow the exec wrapper, or use runc or crun"

# What nspawn's options of a bind mount are called where others have another word for it.
_BIND_OPTIONS = {
    "bind": "norbind",
    "rbind": "rbind",
    "norbind": "norbind",
    "idmap": "idmap",
    "noidmap": "noidmap",
    "rootidmap": "rootidmap",
    "owneridmap": "owneridmap",
}
# LXC's words for what is done here anyway
_CREATE = ("create=dir", "create=file")
_TMPFS_DEFAULT = ("mode=1777", "nosuid", "nodev")
# Signals that systemd knows by their other name only.
_SIGNALS = {"SIGIOT": "SIGABRT", "SIGPOLL": "SIGIO", "SIGCLD": "SIGCHLD"}

_ID_MAPS = (Option("uid_map"), " and ", Option("gid_map"))
# The keys that are rendered from the container, and what the user sets instead.
_OWN = {
    ("Exec", "Boot"): (Option("command"),),
    ("Exec", "Parameters"): (Option("command"),),
    ("Exec", "Environment"): (Option("env"),),
    ("Exec", "WorkingDirectory"): (Option("working_dir"),),
    ("Exec", "User"): (Option("user"),),
    ("Exec", "KillSignal"): (Option("stop_signal"),),
    ("Exec", "Hostname"): (Option("hostname"),),
    ("Exec", "PrivateUsers"): _ID_MAPS,
    ("Files", "PrivateUsersChown"): _ID_MAPS,
    ("Files", "PrivateUsersOwnership"): _ID_MAPS,
}

Line = t.Tuple[str, str]


def render_nspawn(
    container: Container,
    *,
    settings: t.Mapping[str, t.Any] | None = None,
    nss: t.Mapping[str, t.Any] | None = None,
    wrapper: str | None = None,
) -> str:
    """Return the text of ``/etc/systemd/nspawn/NAME.nspawn``, for ``--settings=trusted`` or ``override``.

    ``settings``: the administrator's lines, section -> key -> value or list of values, written after ours.
    ``nss``: the user as nspawn looks it up in the root, a mapping with ``getent``, ``uid``, ``gid`` and ``groups`` as
    ``hypervisor.oci.oci_user_info`` returns it; not needed for root. ``wrapper``: the exec wrapper's path on the host; without it,
    what the file cannot express is an error. Raises ``ContainerError``.
    """
    for field, given in (("settings", settings), ("nss", nss)):
        if given and not isinstance(given, Mapping):
            raise ContainerError(Option(field), f" must be a mapping, not {show(str(given))}")
    start = Start(container.argv, container.env)
    mounts = list(container.mounts)
    if wrapper is not None and needs_wrapper(container):
        start = plan_start(container, secret_env=False)
        path = require_wrapper((Option("command"),), str(wrapper))
        mounts.append(wrapper_mount(path))
    lines: dict[str, list[Line]] = {section: [] for section in _SECTIONS}
    lines["Exec"] += _exec_lines(container, start, nss or {})
    lines["Files"].append(("PrivateUsersOwnership", "off"))
    for number, mount in enumerate(mounts):
        lines["Files"].append(_mount_line(mount, f"mounts[{number}]"))
    for section, key, value in _administrators(settings or {}):
        lines[section].append((key, value))
    text = []
    for section in _SECTIONS:
        if lines[section]:
            text.append(f"[{section}]")
            text += [_line(key, value) for key, value in lines[section]]
            text.append("")
    return "\n".join(text)


def needs_wrapper(container: Container, **options: t.Any) -> bool:
    """Return whether argv or the environment contain a control character other than TAB, which no line can express."""
    del options
    words = [*container.argv, *(value for _name, value in container.env)]
    return any(has_controls(word) for word in words)


def wrapper_script(container: Container, **options: t.Any) -> str | None:
    """Return the text of the wrapper, or ``None`` if it is not needed. Raises ``ContainerError``."""
    del options
    if not needs_wrapper(container):
        return None
    return plan_start(container, secret_env=False).script


def _exec_lines(container: Container, start: Start, nss: t.Mapping[str, t.Any]) -> list[Line]:
    if not start.argv:
        raise ContainerError(Option("command"), " is empty")
    words = [_word(word, f"command[{number}]") for number, word in enumerate(start.argv)]
    lines = [("Boot", "no"), ("Parameters", " ".join(words))]
    lines += [("Environment", _word(f"{key}={value}", variable("env", key))) for key, value in start.env]
    lines.append(("WorkingDirectory", _directory(container.working_dir)))
    lines += _user_lines(container, nss)
    signal = _SIGNALS.get(container.stop_signal, container.stop_signal)
    lines.append(("KillSignal", _checked(signal, "stop_signal")))
    # machines are called by host names, too
    _hostname(container.name, "name")
    lines.append(("Hostname", _hostname(container.hostname, "hostname")))
    lines.append(("PrivateUsers", _private_users(container)))
    return lines


def _user_lines(container: Container, nss: t.Mapping[str, t.Any]) -> list[Line]:
    """Return nothing for root: nspawn then starts as 0:0 without supplementary groups, and looks nothing up."""
    user = container.user
    if user.uid == 0 and user.gid == 0:
        return []
    name = user.name.partition(":")[0]
    if not _USER.match(name):
        raise ContainerError(
            Option("user"),
            f": systemd-nspawn does not accept the user {show(user.name)} ({user.uid}:{user.gid}); {_RUNC}",
        )
    if not nss.get("getent"):
        raise ContainerError(
            Option("user"),
            f": systemd-nspawn looks {show(name)} up with the root's own getent, which was not found; {_RUNC}",
        )
    wanted = _ids(user.uid, user.gid, user.groups)
    found = _ids(nss.get("uid"), nss.get("gid"), nss.get("groups"))
    if found != wanted:
        raise ContainerError(
            Option("user"),
            f": systemd-nspawn's own look-up of {show(name)} in the root gives uid, gid and groups {found}"
            f" instead of {wanted}; {_RUNC}",
        )
    return [("User", name)]


def _ids(uid: t.Any, gid: t.Any, groups: t.Any) -> str:
    """Return the ids in one form; the primary group may or may not be among the others."""
    others = groups if isinstance(groups, (list, tuple)) else ()
    text = ",".join(sorted({str(group) for group in others} - {str(gid)}))
    return show(f"{uid}:{gid}:{text}")[1:-1]


def _private_users(container: Container) -> str:
    if container.uid_map != container.gid_map:
        raise ContainerError(
            *(Option("uid_map"), " and ", Option("gid_map")),
            " differ, but systemd-nspawn has one map for both; use runc or crun",
        )
    if not container.uid_map:
        # said, since the unit systemd-nspawn@.service picks a range and would change the tree's owners
        return "no"
    if len(container.uid_map) > 1:
        raise ContainerError(Option("uid_map"), " has several ranges, but systemd-nspawn maps one; use runc or crun")
    ids: IdRange = container.uid_map[0]
    if ids.container != 0:
        raise ContainerError(
            Option("uid_map"),
            f" starts at the container's id {ids.container}, but systemd-nspawn maps from 0 on; use runc or crun",
        )
    return f"{ids.host}:{ids.count}"


def _mount_line(mount: Mount, field: str) -> Line:
    target = _path(mount.target, f"{field}.target")
    if mount.type == "tmpfs":
        options = [option for option in mount.options if option not in _CREATE]
        options = options or list(_TMPFS_DEFAULT)
        for option in options:
            if not _TMPFS_OPTION.match(option):
                raise ContainerError(Option(f"{field}.options"), f": unknown option {show(option)} of a tmpfs")
        if mount.read_only and "ro" not in options:
            options.append("ro")
        return "TemporaryFileSystem", f"{target}:{','.join(options)}"
    if mount.type != "bind":
        raise ContainerError(Option(f"{field}.type"), f": unknown type {show(mount.type)}; use bind or tmpfs")
    read_only = mount.read_only
    words = []
    for option in mount.options:
        if option in ("ro", "rw"):
            read_only = option == "ro"
        elif option in _CREATE:
            continue
        elif option in _BIND_OPTIONS:
            words.append(_BIND_OPTIONS[option])
        else:
            raise ContainerError(
                Option(f"{field}.options"),
                f": systemd-nspawn does not know the option {show(option)} of a bind mount;"
                f" use {', '.join(sorted(_BIND_OPTIONS))}, ro and rw",
            )
    source = _path(mount.source, f"{field}.source")
    # the second colon also keeps a blank at the end of the target from being trimmed
    value = f"{source}:{target}:{','.join(words)}"
    return "BindReadOnly" if read_only else "Bind", value


def _administrators(settings: t.Mapping[str, t.Any]) -> t.Iterator[tuple[str, str, str]]:
    for section, keys in settings.items():
        if section not in _SECTIONS:
            raise ContainerError(
                Option("settings"), f": unknown section {show(str(section))}; the sections are {', '.join(_SECTIONS)}"
            )
        if not isinstance(keys, Mapping):
            raise ContainerError(Option(f"settings.{section}"), " must be a mapping")
        for key, value in keys.items():
            field = f"settings.{section}.{key}"
            if not isinstance(key, str) or not _KEY.match(key):
                raise ContainerError(Option(f"settings.{section}"), f": invalid key {show(str(key))}")
            if (section, key) in _OWN:
                raise ContainerError(
                    Option(field), " is rendered from the container; set ", *_OWN[section, key], " instead"
                )
            for item in value if isinstance(value, (list, tuple)) else [value]:
                yield section, key, _setting(item, field)


def _setting(value: t.Any, field: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, str)):
        return _checked(str(value), field)
    raise ContainerError(Option(field), " must be a string, a number, a boolean or a list of them")


def _word(text: str, field: str) -> str:
    """Return one word of a list, quoted for systemd's parser (section 9)."""
    _checked(text, field)
    if _BARE.match(text):
        return text
    if '"' not in text:
        return f'"{text}"'
    if "'" not in text:
        return f"'{text}'"
    # quotes may change inside of a word, as in a shell
    return "'\"'".join(f'"{part}"' if part else "" for part in text.split('"'))


def _path(text: str, field: str) -> str:
    """Return a mount's path with colons and backslashes escaped."""
    _checked(text, field)
    if not text.startswith("/"):
        raise ContainerError(Option(field), f": {show(text)} is not an absolute path")
    return text.replace("\\", "\\\\").replace(":", "\\:")


def _hostname(text: str, field: str) -> str:
    if not _HOSTNAME.match(text):
        raise ContainerError(
            Option(field),
            f": systemd-nspawn does not accept {show(text)}; use letters, digits and '-', and '.' between them",
        )
    return text


def _directory(text: str) -> str:
    """Return a path unquoted; a slash at its end protects what would be trimmed or would continue the line."""
    _checked(text, "working_dir")
    if not text.startswith("/"):
        raise ContainerError(Option("working_dir"), f": {show(text)} is not an absolute path")
    return text + "/" if text[-1] in " \t\\" else text


def _line(key: str, value: str) -> str:
    line = f"{key}={value}"
    if len(line.encode("utf-8")) > _LINE_LIMIT:
        raise ContainerError(f"{key} is longer than a line that systemd reads (1 MiB); shorten it, or use runc or crun")
    # an odd backslash at the end would take the next line for its own
    if (len(line) - len(line.rstrip("\\"))) % 2:
        raise ContainerError(f"{key}: the value ends with a backslash, which would continue the line")
    return line


def _checked(text: str, field: str) -> str:
    require_line(field, text, _CONTROLS_ADVICE)
    unfit = _noncharacter(text)
    if unfit is not None:
        raise ContainerError(
            Option(field),
            f" contains the noncharacter U+{ord(unfit):04X}, and systemd rejects such a line; {_CONTROLS_ADVICE}",
        )
    return text


def _noncharacter(text: str) -> str | None:
    """Return the first code point that systemd takes for invalid UTF-8 although other programs do not."""
    for found in _UNUSUAL.finditer(text):
        c = found.group()
        if c < "\U00010000" or ord(c) & 0xFFFE == 0xFFFE:
            return c
    return None
