# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The image's facts and the user's overrides to one container, by Docker's rules (docs/behaviour.md, section 9)."""

from __future__ import annotations

import posixpath
import re
import typing as t
from collections.abc import Mapping, Sequence

from ...module_utils._errors import RootfsError, show
from ...module_utils._image.config import normalise_signal
from ...module_utils._rootfs.ids import IdMap, UnmappedError, parse_id_map
from ...module_utils._container.reserved import reserved_place
from .model import Container, ContainerError, IdRange, Mount, Option, User
from .places import require_places
from .text import require_line, require_text, variable

Facts = t.Mapping[str, t.Any]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEFAULT_HOME = "/"

# 64 characters are what the kernel keeps of a host name; runc, nspawn and LXC all take these
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_HOSTNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?\Z")
_NUMERIC_USER = re.compile(r"([0-9]{1,10})(?::([0-9]{1,10}))?\Z")
_LAST_ID = 2**32 - 2
_MOUNT_TYPES = ("bind", "tmpfs")
_MOUNT_KEYS = ("source", "target", "read_only", "type", "options", "from_image")

OVERRIDES = (
    "name",
    "rootfs",
    "hostname",
    "env",
    "entrypoint",
    "command",
    "working_dir",
    "stop_signal",
    "user",
    "mounts",
    "uid_map",
    "gid_map",
)


def container_from(image: Facts, overrides: Facts) -> Container:
    """Merge the image's facts and the overrides, and check the result.

    ``image`` is the ``image`` value of a result of ``oci_rootfs``. ``overrides`` has keys of ``OVERRIDES``, of which ``name``
    and ``rootfs`` are required; ``None`` means that a value is not given. Raises ``ContainerError``.
    """
    _require_mapping("image", image)
    unknown = sorted(set(map(str, overrides)) - set(OVERRIDES))
    if unknown:
        raise ContainerError(f"unknown override {show(unknown[0])}; the overrides are {', '.join(OVERRIDES)}")
    name = _name(overrides.get("name"))
    rootfs = _rootfs(overrides.get("rootfs"))
    user = _user(image, overrides.get("user"))
    uid_map, gid_map = _id_maps(overrides, user)
    return Container(
        name=name,
        rootfs=rootfs,
        hostname=_hostname(overrides.get("hostname"), name),
        argv=_argv(image, overrides),
        env=_environment(image, overrides.get("env"), user),
        working_dir=_working_dir(image, overrides.get("working_dir")),
        user=user,
        stop_signal=_stop_signal(image, overrides.get("stop_signal")),
        architecture=_text("image.architecture", image.get("architecture") or ""),
        os=_text("image.os", image.get("os") or "linux"),
        created=_optional_text("image.created", image.get("created")),
        mounts=_mounts(overrides.get("mounts"), rootfs),
        uid_map=uid_map,
        gid_map=gid_map,
        volumes=_words("image.volumes", image.get("volumes")),
        exposed_ports=_words("image.exposed_ports", image.get("exposed_ports")),
        labels=_labels(image.get("labels")),
        variant=_optional_text("image.variant", image.get("variant")),
    )


def _require_mapping(field: str, value: t.Any) -> None:
    if not isinstance(value, Mapping):
        raise ContainerError(Option(field), " must be a mapping")


def _text(field: str, value: t.Any) -> str:
    """Return a string, also for a number, which YAML makes of unquoted text. Raises ``ContainerError``."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        # not quoted: it may be a secret
        raise ContainerError(Option(field), " must be a string; put it between quotes")
    return require_text(field, str(value))


def _optional_text(field: str, value: t.Any) -> str | None:
    return None if value is None else _text(field, value)


def _sequence(field: str, value: t.Any) -> Sequence[t.Any]:
    if value is None:
        return ()
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ContainerError(Option(field), " must be a list of strings")
    return value


def _words(field: str, value: t.Any) -> tuple[str, ...]:
    return tuple(_text(field, item) for item in _sequence(field, value))


def _name(value: t.Any) -> str:
    if value is None:
        raise ContainerError(Option("name"), " is missing")
    name = _text("name", value)
    if not _NAME.match(name):
        raise ContainerError(
            Option("name"),
            f": invalid container name {show(name)}; use at most 64 letters, digits, '_', '.' and '-', a letter or"
            " digit first",
        )
    return name


def _hostname(value: t.Any, name: str) -> str:
    hostname = name if value is None else _text("hostname", value)
    if not _HOSTNAME.match(hostname):
        raise ContainerError(
            Option("hostname"),
            f": invalid host name {show(hostname)}; use at most 64 letters, digits, '_', '.' and '-', a letter or"
            " digit first and last",
        )
    return hostname


def _rootfs(value: t.Any) -> str:
    if value is None:
        raise ContainerError(Option("rootfs"), " is missing; set it to the dest value of the result of oci_rootfs")
    return _absolute("rootfs", _text("rootfs", value))


def _absolute(field: str, path: str) -> str:
    """Return a path without double and trailing slashes; ``..`` could mean another place on the host."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if not path.startswith("/") or ".." in path.split("/") or clean == "/":
        raise ContainerError(Option(field), f": {show(path)} must be an absolute path below /, without '..'")
    # paths of the host and targets of mounts are the administrator's: no format needs controls in them
    return require_line(field, clean)


def _argv(image: Facts, overrides: Facts) -> tuple[str, ...]:
    """Apply Docker's rules: an entrypoint drops the image's cmd, a command replaces it."""
    entrypoint = overrides.get("entrypoint")
    command = overrides.get("command")
    if entrypoint is None:
        first = _words("image.entrypoint", image.get("entrypoint"))
        rest = _words("image.cmd", image.get("cmd"))
    else:
        first, rest = _words("entrypoint", entrypoint), ()
    if command is not None:
        rest = _words("command", command)
    argv = (*first, *rest)
    if not argv or not argv[0]:
        raise ContainerError(
            "the container has nothing to run: neither the image nor the options give an entrypoint or a command; set ",
            Option("command"),
        )
    return argv


def _environment(image: Facts, given: t.Any, user: User) -> tuple[tuple[str, str], ...]:
    """Return the image's variables in their order, overridden by name, then new ones, and PATH and HOME if missing."""
    facts = image.get("env") or {}
    _require_mapping("image.env", facts)
    env: dict[str, str] = {}
    for name, value in facts.items():
        _set_variable(env, "image.env", name, value)
    if isinstance(given, Mapping):
        for name, value in given.items():
            _set_variable(env, "env", name, value)
    else:
        for number, item in enumerate(_sequence("env", given)):
            name, equals, value = _text("env", item).partition("=")
            if not equals:
                # not quoted: it may be a value that lost its name
                raise ContainerError(
                    Option(f"env[{number}]"), " has no '=', so it would take the host's value; write NAME=VALUE"
                )
            _set_variable(env, "env", name, value)
    env.setdefault("PATH", DEFAULT_PATH)
    env.setdefault("HOME", user.home or _DEFAULT_HOME)
    return tuple(env.items())


def _set_variable(env: dict[str, str], field: str, name: t.Any, value: t.Any) -> None:
    key = _text(field, name)
    if not key or "=" in key:
        raise ContainerError(
            Option(field),
            f": invalid variable name {show(key.partition('=')[0])}; names must not be empty or contain '='",
        )
    if value is None:
        raise ContainerError(Option(variable(field, key)), " has no value; use '' for an empty one")
    env[key] = _text(variable(field, key), value)


def _working_dir(image: Facts, given: t.Any) -> str:
    if given is None:
        field, value = "image.working_dir", image.get("working_dir") or "/"
    else:
        field, value = "working_dir", given
    # two slashes at the beginning would be kept, as POSIX allows it
    return posixpath.normpath("/" + _text(field, value).lstrip("/"))


def _stop_signal(image: Facts, given: t.Any) -> str:
    if given is None:
        field, value = "image.stop_signal", image.get("stop_signal") or "SIGTERM"
    else:
        field, value = "stop_signal", given
    text = _text(field, value)
    signal = normalise_signal(text)
    if signal is None:
        raise ContainerError(Option(field), f": unknown signal {show(text)}; use a name such as SIGTERM, or a number")
    return signal


def _user(image: Facts, given: t.Any) -> User:
    if given is None:
        return _resolved("image.user", image.get("user") or "", image)
    if isinstance(given, Mapping):
        return _resolved("user", given.get("name") or "", given)
    text = _text("user", given)
    match = _NUMERIC_USER.match(text)
    if match is None:
        raise ContainerError(
            Option("user"),
            f": {show(text)} must be UID or UID:GID in numbers; look names up with the module oci_user_info",
        )
    uid = _id("user", int(match.group(1)))
    gid = _id("user", int(match.group(2) or "0"))
    return User(name=text, uid=uid, gid=gid)


def _resolved(field: str, name: t.Any, facts: Facts) -> User:
    """Return a user whose ids were looked up in the tree; one that was not found is never root."""
    text = _text(field, name)
    uid, gid = facts.get("uid"), facts.get("gid")
    if uid is None or gid is None:
        raise ContainerError(
            Option(field),
            f": unknown user {show(text)}: the root file system has no such user or group, or is not unpacked yet; set ",
            Option("user"),
        )
    return User(
        name=text,
        uid=_id(f"{field}: uid", uid),
        gid=_id(f"{field}: gid", gid),
        groups=tuple(_id(f"{field}: groups", item) for item in _sequence(f"{field}: groups", facts.get("groups"))),
        home=_optional_text(f"{field}: home", facts.get("home")),
    )


def _id(field: str, value: t.Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:11])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LAST_ID:
        raise ContainerError(Option(field), f": invalid id {show(str(value))}; ids are numbers from 0 to {_LAST_ID}")
    return int(value)


def _mounts(given: t.Any, rootfs: str) -> tuple[Mount, ...]:
    mounts = []
    for item in _sequence("mounts", given):
        _require_mapping("mounts", item)
        unknown = sorted(set(map(str, item)) - set(_MOUNT_KEYS))
        if unknown:
            raise ContainerError(
                Option("mounts"), f": unknown key {show(unknown[0])} of a mount; the keys are {', '.join(_MOUNT_KEYS)}"
            )
        mount = _mount(item)
        # the filter volumes warns about them
        if not (item.get("from_image") and reserved_place(mount.target)):
            mounts.append(mount)
    require_places(mounts, rootfs)
    targets = set()
    for mount in mounts:
        if mount.target in targets:
            raise ContainerError(Option("mounts"), f": two mounts have the target {show(mount.target)}; remove one")
        targets.add(mount.target)
    return tuple(mounts)


def _mount(item: Facts) -> Mount:
    kind = _text("mounts.type", item.get("type") or "bind")
    if kind not in _MOUNT_TYPES:
        raise ContainerError(Option("mounts.type"), f": unknown type {show(kind)}; use {' or '.join(_MOUNT_TYPES)}")
    read_only = item.get("read_only") or False
    if not isinstance(read_only, bool):
        raise ContainerError(Option("mounts.read_only"), f": {show(str(read_only))} must be true or false")
    source = _text("mounts.source", item.get("source") or "")
    options = _words("mounts.options", item.get("options"))
    if read_only and "rw" in options:
        raise ContainerError(Option("mounts"), ": read_only and the option rw contradict each other; remove one")
    read_only = read_only or "ro" in options
    options = tuple(option for option in options if option not in ("ro", "rw"))
    for option in options:
        require_line("mounts.options", option)
        if not option or "," in option or any(c.isspace() for c in option):
            raise ContainerError(
                Option("mounts.options"),
                f": invalid mount option {show(option)}; use one item for each option, without commas and blanks",
            )
    return Mount(
        source=_absolute("mounts.source", source) if kind == "bind" else kind,
        target=_absolute("mounts.target", _text("mounts.target", item.get("target") or "")),
        read_only=read_only,
        type=kind,
        options=options,
    )


def _id_maps(overrides: Facts, user: User) -> tuple[tuple[IdRange, ...], tuple[IdRange, ...]]:
    """Return both maps or neither; they must map every id of the user, or its process could not start."""
    try:
        uids = parse_id_map("uid", _words("uid_map", overrides.get("uid_map")))
        gids = parse_id_map("gid", _words("gid_map", overrides.get("gid_map")))
        if bool(uids.ranges) != bool(gids.ranges):
            raise ContainerError(Option("uid_map"), " and ", Option("gid_map"), " belong together; set both or neither")
        uids.to_host(user.uid)
        for gid in (user.gid, *user.groups):
            gids.to_host(gid)
    except RootfsError as error:
        raise ContainerError(error.message) from error
    except UnmappedError as error:
        raise ContainerError(
            Option("user"), f" {show(user.name)}: {error}; map that id, or set another user"
        ) from error
    return _ranges(uids), _ranges(gids)


def _ranges(id_map: IdMap) -> tuple[IdRange, ...]:
    return tuple(IdRange(*numbers) for numbers in id_map.ranges)


def _labels(value: t.Any) -> tuple[tuple[str, str], ...]:
    """Return the labels as they are: renderers escape them."""
    labels = value or {}
    _require_mapping("image.labels", labels)
    return tuple((str(key), str(item)) for key, item in labels.items())
