# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A reader of LXC's ``config`` by LXC's own rules: the other side of the renderer's quoting.

The rules are those of LXC 5.0 to 7.0 (lxc_file_for_each_line_mmap, parse_line, lxc_string_split_quoted or, before 6.0,
split_init_cmd, the setters of confile.c, sig_parse, parse_idmaps) and of glibc's getmntent, which reads the mount entries. They work on bytes: a line ends
with a newline or a carriage return, the file with a NUL; only a blank and TAB are trimmed. What LXC refuses is ``Misread``.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

_SPACES = b" \t\n\v\f\r"
_PATH_MAX = 4096
_SIGNALS = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG"
    " XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
_OTHER_NAMES = {"IOT": 6, "CLD": 17, "POLL": 29, "UNUSED": 31}
_NUMBERS = {name: number for number, name in enumerate(_SIGNALS.split(), 1)}
_SIGRTMIN = 34
_SIGRTMAX = 64
# The keys of LXC 5.0 without families (config_jump_table), and what later releases added and removed.
_KEYS_OF_5 = set(
    "apparmor.allow_incomplete apparmor.allow_nesting apparmor.profile apparmor.raw arch autodev autodev.tmpfs.size cap.drop"
    " cap.keep cgroup.dir cgroup.dir.container cgroup.dir.container.inner cgroup.dir.monitor cgroup.dir.monitor.pivot"
    " cgroup.relative console.buffer.size console.logfile console.path console.rotate console.size environment ephemeral"
    " execute.cmd group hook.autodev hook.clone hook.destroy hook.mount hook.post-stop hook.pre-mount hook.pre-start"
    " hook.start hook.start-host hook.stop hook.version idmap include init.cmd init.cwd init.gid init.groups init.uid"
    " keyring.session log.file log.level log.syslog monitor.signal.pdeath monitor.unshare mount.auto mount.entry mount.fstab"
    " namespace.clone namespace.keep no_new_privs pty.max rootfs.managed rootfs.mount rootfs.options rootfs.path sched.core"
    " seccomp.allow_nesting seccomp.notify.cookie seccomp.notify.proxy seccomp.profile selinux.context"
    " selinux.context.keyring signal.halt signal.reboot signal.stop start.auto start.delay start.order time.offset.boot"
    " time.offset.monotonic tty.dir tty.max uts.name".split()
)
_KEYS_SINCE_7 = {"environment.runtime", "environment.hooks"}
_FAMILIES_OF_ALL = ("cgroup2.", "namespace.share.", "net.", "prlimit.", "proc.", "sysctl.")
_FAMILIES_BEFORE_7 = ("cgroup.",)
_FAMILIES = ("lxc.net.", "lxc.cgroup2.", "lxc.prlimit.", "lxc.hook.", "lxc.sysctl.")


class Misread(Exception):
    """Something that LXC would not load."""


class Entry(t.NamedTuple):
    """A mount entry as getmntent gives it."""

    source: bytes
    target: bytes
    kind: bytes
    options: tuple[bytes, ...]


@dataclass
class Config:
    """What LXC knows after it has read the file; ``others`` are keys that are not looked into here."""

    init: list[bytes] = field(default_factory=list)
    cwd: bytes | None = None
    uid: int = 0
    gid: int = 0
    groups: list[int] = field(default_factory=list)
    environment: list[tuple[bytes, bytes]] = field(default_factory=list)
    runtime: list[tuple[bytes, bytes]] = field(default_factory=list)
    mounts: list[Entry] = field(default_factory=list)
    idmap: list[tuple[str, int, int, int]] = field(default_factory=list)
    halt: int | None = None
    uts: bytes | None = None
    rootfs: tuple[bytes, bytes] | None = None
    others: list[tuple[bytes, bytes]] = field(default_factory=list)


def read(text: str, quoted_words: bool = True) -> Config:
    """What LXC makes of the file; releases before 6.0 do not know ``quoted_words``."""
    config = Config()
    for key, value in items(text.encode("utf-8")):
        if key == b"lxc.init.cmd" and not quoted_words:
            config.init = [word for word in value.split(b" ") if word]
        else:
            _set(config, key.decode("utf-8"), value)
    return config


def require_known(text: str, version: str) -> None:
    """Raise ``Misread`` for a key that this release does not load."""
    is_new = int(version.partition(".")[0]) >= 7
    keys = _KEYS_OF_5 | (_KEYS_SINCE_7 if is_new else set())
    families = _FAMILIES_OF_ALL + (() if is_new else _FAMILIES_BEFORE_7)
    for raw, _value in items(text.encode("utf-8")):
        key = raw.decode("utf-8").partition("lxc.")[2]
        if key not in keys and not key.startswith(families):
            raise Misread(f"LXC {version} does not know {key}")


def items(data: bytes) -> t.Iterator[tuple[bytes, bytes]]:
    """Key and value of each line that is not passed over."""
    data = data.partition(b"\0")[0]
    for line in re.split(rb"[\r\n]+", data):
        if not line.strip(b" \t\n\r\f\0"):
            continue
        line = line.lstrip(b" \t")
        if line.startswith(b"#") or not line.startswith(b"lxc."):
            continue
        key, equals, value = line.partition(b"=")
        if not equals:
            raise Misread(f"no key and value: {line!r}")
        value = value.strip(b" \t")
        if len(value) > 1 and value[:1] in b"'\"" and value[-1:] == value[:1]:
            value = value[1:-1]
        yield key.rstrip(b" \t"), value


def words(value: bytes) -> list[bytes]:
    """The words of a command. A quote that nothing closes loses its word, as in LXC."""
    found = []
    state = 0
    start = 0
    for index in range(len(value)):
        c = value[index]
        if state == 0:
            if c in _SPACES:
                continue
            start = index
            state = c if c in b"'\"" else -1
        elif state == -1:
            if c in _SPACES:
                found.append(value[start:index])
                state = 0
        elif c == state:
            found.append(value[start + 1 : index])
            state = 0
    if state == -1:
        found.append(value[start:])
    return found


def entry(value: bytes) -> Entry:
    """One line of a mount table, from a buffer of PATH_MAX bytes."""
    if len(value) >= _PATH_MAX:
        raise Misread("a mount entry that does not fit into its buffer")
    fields = [part for part in re.split(rb"[ \t]+", value) if part]
    if not fields or fields[0].startswith(b"#"):
        raise Misread(f"no mount entry: {value!r}")
    fields += [b""] * (4 - len(fields))
    source, target, kind, options = (_unescape(part) for part in fields[:4])
    return Entry(source, target, kind, tuple(options.split(b",")))


def _unescape(text: bytes) -> bytes:
    codes = {rb"\040": b" ", rb"\011": b"\t", rb"\012": b"\n", rb"\134": b"\\"}
    codes[rb"\\"] = b"\\"
    return re.sub(rb"\\(?:040|011|012|134|\\)", lambda m: codes[m.group(0)], text)


def signal(value: bytes) -> int:
    """The number of a signal."""
    text = value.decode("ascii")
    if text[:1].isdigit():
        return _uint(value)
    if text[:3].lower() != "sig":
        raise Misread(f"no signal: {text}")
    name = text[3:].upper()
    if name.startswith("RT"):
        match = re.match(r"RT(MAX-|MIN\+)([0-9]+)\Z", name)
        if match is None or int(match.group(2)) > _SIGRTMAX - _SIGRTMIN:
            raise Misread(f"no signal: {text}")
        steps = int(match.group(2))
        return _SIGRTMAX - steps if match.group(1) == "MAX-" else _SIGRTMIN + steps
    number = {**_NUMBERS, **_OTHER_NAMES}.get(name)
    if number is None:
        raise Misread(f"no signal: {text}")
    return number


def _uint(value: bytes) -> int:
    if not re.match(rb"[0-9]+\Z", value) or int(value) >= 2**32:
        raise Misread(f"no number: {value!r}")
    return int(value)


def _variable(value: bytes) -> tuple[bytes, bytes]:
    name, equals, rest = value.partition(b"=")
    if not equals:
        raise Misread(f"the host's own variable: {value!r}")
    return name, rest


def _path(value: bytes) -> bytes:
    if len(value) >= _PATH_MAX:
        raise Misread("a path that is too long")
    return re.sub(rb"/+", b"/", value)


def _set(config: Config, key: str, value: bytes) -> None:
    if not value:
        raise Misread(f"{key} is empty, which clears what was there")
    if key == "lxc.init.cmd":
        config.init = words(value)
    elif key == "lxc.init.cwd":
        config.cwd = _path(value)
    elif key == "lxc.init.uid":
        config.uid = _uint(value)
    elif key == "lxc.init.gid":
        config.gid = _uint(value)
    elif key == "lxc.init.groups":
        config.groups += [_uint(part) for part in value.split(b",") if part]
    elif key == "lxc.environment":
        config.environment.append(_variable(value))
    elif key == "lxc.environment.runtime":
        config.runtime.append(_variable(value))
    elif key == "lxc.mount.entry":
        config.mounts.append(entry(value))
    elif key == "lxc.idmap":
        kind, *numbers = value.split()
        if kind not in (b"u", b"g") or len(numbers) != 3:
            raise Misread(f"no map: {value!r}")
        inside, outside, count = (_uint(number) for number in numbers)
        config.idmap.append((kind.decode(), inside, outside, count))
    elif key == "lxc.signal.halt":
        config.halt = signal(value)
    elif key == "lxc.uts.name":
        if len(value) >= 65:
            raise Misread("a host name that is too long")
        config.uts = value
    elif key == "lxc.rootfs.path":
        kind, _colon, path = value.partition(b":")
        config.rootfs = (kind, _path(path))
    elif key.startswith(_FAMILIES) or key in ("lxc.include", "lxc.mount.auto"):
        config.others.append((key.encode(), value))
    else:
        raise Misread(f"unknown key {key}")
