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
from .model import Container, ContainerError, IdRange, Mount
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
_RUNC = "choose runc or crun, which take numbers"
_CONTROLS_ADVICE = "take it out, let the exec wrapper carry it, or choose runc or crun"

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

# The keys that are rendered from the container, and what the user sets instead.
_OWN = {
    ("Exec", "Boot"): "command",
    ("Exec", "Parameters"): "command",
    ("Exec", "Environment"): "env",
    ("Exec", "WorkingDirectory"): "working_dir",
    ("Exec", "User"): "user",
    ("Exec", "KillSignal"): "stop_signal",
    ("Exec", "Hostname"): "hostname",
    ("Exec", "PrivateUsers"): "uid_map and gid_map",
    ("Files", "PrivateUsersChown"): "uid_map and gid_map",
    ("Files", "PrivateUsersOwnership"): "uid_map and gid_map",
}

Line = t.Tuple[str, str]


def render_nspawn(
    container: Container,
    *,
    settings: t.Mapping[str, t.Any] | None = None,
    nss: t.Mapping[str, t.Any] | None = None,
    wrapper: str | None = None,
) -> str:
    """The text of ``/etc/systemd/nspawn/NAME.nspawn``, to be read with ``--settings=trusted`` or ``override``.

    ``settings``: the administrator's lines, section -> key -> value or list of values, written after ours.
    ``nss``: what nspawn's own look-up of the user in the root gives, a mapping with ``getent``, ``uid``,
    ``gid`` and ``groups`` as ``hypervisor.oci.oci_user_info`` returns it; needless for root.
    ``wrapper``: where on the host the exec wrapper lies, where it may be used; without it, what the file cannot
    express is an error. Raises ``ContainerError``.
    """
    for field, given in (("settings", settings), ("nss", nss)):
        if given and not isinstance(given, Mapping):
            raise ContainerError(f"{field} must be a mapping, not {show(str(given))}")
    start = Start(container.argv, container.env)
    mounts = list(container.mounts)
    if wrapper is not None and needs_wrapper(container):
        start = plan_start(container, secret_env=False)
        path = require_wrapper("argv", str(wrapper))
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


def needs_wrapper(container: Container) -> bool:
    """Whether argv or a value of the environment hold what no line of the file can: a control character but TAB."""
    words = [*container.argv, *(value for _name, value in container.env)]
    return any(has_controls(word) for word in words)


def wrapper_script(container: Container) -> str | None:
    """The text of the wrapper that goes with ``render_nspawn``; ``None`` where none is needed. Raises ``ContainerError``."""
    if not needs_wrapper(container):
        return None
    return plan_start(container, secret_env=False).script


def _exec_lines(container: Container, start: Start, nss: t.Mapping[str, t.Any]) -> list[Line]:
    if not start.argv:
        raise ContainerError("argv is empty: the image names no command, give command or entrypoint")
    words = [_word(word, f"argv[{number}]") for number, word in enumerate(start.argv)]
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
    """None for root: nspawn then looks nothing up and gives 0:0 without supplementary groups."""
    user = container.user
    if user.uid == 0 and user.gid == 0:
        return []
    name = user.name.partition(":")[0]
    if not _USER.match(name):
        raise ContainerError(f"user: systemd-nspawn takes no user {show(user.name)} ({user.uid}:{user.gid}); {_RUNC}")
    if not nss.get("getent"):
        raise ContainerError(
            f"user: systemd-nspawn looks {show(name)} up by the root's own getent, which is not known to be there; {_RUNC}"
        )
    wanted = _ids(user.uid, user.gid, user.groups)
    found = _ids(nss.get("uid"), nss.get("gid"), nss.get("groups"))
    if found != wanted:
        raise ContainerError(
            f"user: systemd-nspawn's own look-up of {show(name)} in the root gives uid, gid and groups {found}"
            f" instead of {wanted}; {_RUNC}"
        )
    return [("User", name)]


def _ids(uid: t.Any, gid: t.Any, groups: t.Any) -> str:
    """The ids in one way; the primary group may or may not stand among the others."""
    others = groups if isinstance(groups, (list, tuple)) else ()
    text = ",".join(sorted({str(group) for group in others} - {str(gid)}))
    return show(f"{uid}:{gid}:{text}")[1:-1]


def _private_users(container: Container) -> str:
    if container.uid_map != container.gid_map:
        raise ContainerError(
            "uid_map and gid_map differ: systemd-nspawn maps users and groups alike; choose runc or crun"
        )
    if not container.uid_map:
        # said, since the unit systemd-nspawn@.service picks a range and would change the tree's owners
        return "no"
    if len(container.uid_map) > 1:
        raise ContainerError("uid_map has several ranges: systemd-nspawn maps one; choose runc or crun")
    ids: IdRange = container.uid_map[0]
    if ids.container != 0:
        raise ContainerError(
            f"uid_map begins with the container's id {ids.container}: systemd-nspawn maps from 0 on; choose runc or crun"
        )
    return f"{ids.host}:{ids.count}"


def _mount_line(mount: Mount, field: str) -> Line:
    target = _path(mount.target, f"{field}.target")
    if mount.type == "tmpfs":
        options = [option for option in mount.options if option not in _CREATE]
        options = options or list(_TMPFS_DEFAULT)
        for option in options:
            if not _TMPFS_OPTION.match(option):
                raise ContainerError(
                    f"{field}.options: {show(option)} is not an option that a temporary file system can be given here"
                )
        if mount.read_only and "ro" not in options:
            options.append("ro")
        return "TemporaryFileSystem", f"{target}:{','.join(options)}"
    if mount.type != "bind":
        raise ContainerError(f"{field}.type: systemd-nspawn mounts bind and tmpfs, not {show(mount.type)}")
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
                f"{field}.options: systemd-nspawn knows no option {show(option)} of a bind mount;"
                f" it takes {', '.join(sorted(_BIND_OPTIONS))}, ro and rw"
            )
    source = _path(mount.source, f"{field}.source")
    # the second colon also keeps a blank at the end of the target from being trimmed
    value = f"{source}:{target}:{','.join(words)}"
    return "BindReadOnly" if read_only else "Bind", value


def _administrators(settings: t.Mapping[str, t.Any]) -> t.Iterator[tuple[str, str, str]]:
    for section, keys in settings.items():
        if section not in _SECTIONS:
            raise ContainerError(
                f"settings: unknown section {show(str(section))}; the sections are {', '.join(_SECTIONS)}"
            )
        if not isinstance(keys, Mapping):
            raise ContainerError(f"settings.{section}: a mapping of keys to values is wanted")
        for key, value in keys.items():
            field = f"settings.{section}.{key}"
            if not isinstance(key, str) or not _KEY.match(key):
                raise ContainerError(f"settings.{section}: {show(str(key))} is not a key of a settings file")
            if (section, key) in _OWN:
                raise ContainerError(f"{field} is rendered from the container: set {_OWN[section, key]} instead")
            for item in value if isinstance(value, (list, tuple)) else [value]:
                yield section, key, _setting(item, field)


def _setting(value: t.Any, field: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, str)):
        return _checked(str(value), field)
    raise ContainerError(f"{field}: a text, a number, a boolean or a list of them is wanted")


def _word(text: str, field: str) -> str:
    """One word of a list, quoted so that systemd's parser gives it back (section 9)."""
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
    """A path of a mount, in which colons and backslashes are kept by a backslash."""
    _checked(text, field)
    if not text.startswith("/"):
        raise ContainerError(f"{field}: {show(text)} is not an absolute path")
    return text.replace("\\", "\\\\").replace(":", "\\:")


def _hostname(text: str, field: str) -> str:
    if not _HOSTNAME.match(text):
        raise ContainerError(
            f"{field}: systemd-nspawn takes no {show(text)}; use letters, digits and '-', and '.' between them"
        )
    return text


def _directory(text: str) -> str:
    """A path that stands in its line as it is; a slash keeps what would be trimmed or would continue the line."""
    _checked(text, "working_dir")
    if not text.startswith("/"):
        raise ContainerError(f"working_dir: {show(text)} is not an absolute path")
    return text + "/" if text[-1] in " \t\\" else text


def _line(key: str, value: str) -> str:
    line = f"{key}={value}"
    if len(line.encode("utf-8")) > _LINE_LIMIT:
        raise ContainerError(
            f"{key} is longer than a line that systemd reads (1 MiB); shorten it, or choose runc or crun"
        )
    # an odd backslash at the end would take the next line for its own
    if (len(line) - len(line.rstrip("\\"))) % 2:
        raise ContainerError(f"{key}: the value ends with a backslash, which would continue the line")
    return line


def _checked(text: str, field: str) -> str:
    require_line(field, text, _CONTROLS_ADVICE)
    unfit = _noncharacter(text)
    if unfit is not None:
        raise ContainerError(
            f"{field} holds U+{ord(unfit):04X}, no character of Unicode's, and systemd reads no such line; {_CONTROLS_ADVICE}"
        )
    return text


def _noncharacter(text: str) -> str | None:
    """The first code point that systemd takes for invalid UTF-8 although other programs do not."""
    for found in _UNUSUAL.finditer(text):
        c = found.group()
        if c < "\U00010000" or ord(c) & 0xFFFE == 0xFFFE:
            return c
    return None
