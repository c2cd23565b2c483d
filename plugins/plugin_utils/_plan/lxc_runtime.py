# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""LXC as a runtime of the role."""

from __future__ import annotations

import posixpath

from ...module_utils._errors import show
from .._container import lxc
from .._container.model import ContainerError, Option
from .attach import attach
from .control import told_script
from .etc_files import MADE
from .health import Check, Joining, mark_of
from .known import Places
from .quoting import shell, systemd
from .request import Request
from .runtime import Context, Directory
from .service import ServedRuntime, restart_lines
from .stack import hook_lines, require_no_mapped_mounts, script_prefix, unit_lines, unit_prefix

# Docker's
_CAPABILITIES = (
    "audit_write chown dac_override fowner fsetid kill mknod net_bind_service net_raw setfcap setgid setpcap setuid"
    " sys_chroot"
)
# null, zero, full, random, urandom, tty, console, ptmx and terminals
_DEVICES = ("1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:1", "5:2", "136:*")
_SECCOMP = "/usr/share/lxc/config/common.seccomp"
# LXC asks newuidmap, which asks these files, for root too
_RANGES = (("/etc/subuid", "uid_map"), ("/etc/subgid", "gid_map"))
_FUNCTIONS = r"""folder=@folder@

alive() {
    [ "$(lxc-info -P "$folder" -n "$name" -s -H 2>/dev/null)" = RUNNING ]
}

start() {
    begin
    $plain @mounting@lxc-start -d -P "$folder" -n "$name" -o "$log.lxc" -l @level@
}

stop() {
    # the signal is lxc.signal.halt of the configuration
    lxc-stop -P "$folder" -n "$name" -t "$timeout"
}

"""
_ALIVE = """\
alive() {
    systemctl --quiet is-active @unit@
}

"""
# How the last start ended, by the log of LXC; needs the function ``alive``.
LXC_LOG = r"""# what LXC wrote of the last start; its lines begin with program, container, time, level, part and place
said() {
    tail -c "+$(($(first_byte "$log.lxc" second) + 1))" "$log.lxc" 2>/dev/null | head -c 262144
}

ended() {
    ! alive || return 0
    status=$(said | sed -n -e 's/^lxc-start [^ ]* [^ ]* NOTICE *start - [^ ]* - Started .*/0/p' \
        -e 's/^lxc-start [^ ]* [^ ]* [A-Z]* *error - [^ ]* - Child <[0-9]*> ended on error (\([0-9]*\))$/\1/p' \
        -e 's/^lxc-start [^ ]* [^ ]* [A-Z]* *error - [^ ]* - Child <[0-9]*> ended on signal .*(\([0-9]*\))$/128 + \1/p' |
        tail -n 1)
    [ -z "$status" ] || explain "$(($status))"
}

# the first errors are the reason; later ones, and those of the program lxc-start, only follow from it
errors() {
    said | sed -n -e '/^[^ ]* [^ ]* [^ ]* ERROR *lxc_start - /d' -e 's/^[^ ]* [^ ]* [^ ]* ERROR *[^ ]* - [^ ]* - //p' |
        head -n 3 | cut -c 1-500
}

log() {
    # the lines of a console end with CR LF
    { ended; errors; last "$log" first | tr -d '\r'; } | printable
}

"""
# LXC tells at this level how a container ended.
LOG_LEVEL = "INFO"


class Lxc(ServedRuntime):
    """LXC, whose containers are folders with a file named config."""

    programs = ("lxc-start", "lxc-stop", "lxc-info")
    version_command = ("lxc-start", "--version")
    variables = {"lxc_settings": "list[str]"}
    settings = "lxc_settings"
    paths = (_SECCOMP,)
    starts_with_node = True

    def folder(self, request: Request) -> str:
        return request.folder or f"/var/lib/lxc/{request.name}"

    def rootfs(self, request: Request, folder: str) -> str:
        return request.rootfs or f"{folder}/rootfs"

    def check(self, request: Request, places: Places) -> None:
        lxc.checked_settings(_given(request))
        if posixpath.basename(places.folder) != request.name:
            raise ContainerError(
                Option("folder"),
                f": {show(places.folder)} must end with the container's name {show(request.name)} for LXC",
            )

    def file(self, request: Request, places: Places) -> str:
        return f"{places.folder}/config"

    def render(self, context: Context) -> str:
        require_no_mapped_mounts(context, _mapped_mounts(context.request))
        return lxc.render_lxc(
            context.container, version=context.node.version, wrapper=context.wrapper, settings=_settings(context)
        )

    def wrapper(self, context: Context) -> str | None:
        return lxc.wrapper_script(context.container, version=context.node.version, settings=_settings(context))

    def directories(self, request: Request, places: Places) -> list[Directory]:
        return [
            Directory(posixpath.dirname(places.folder), passable=True, shared=True),
            Directory(posixpath.dirname(places.rootfs), passable=True),
        ]

    def unit(self, request: Request) -> str:
        return f"lxc@{request.name}.service"

    def unit_text(self, context: Context) -> str:
        request = context.request
        name = request.name
        folder = systemd(posixpath.dirname(context.places.folder))
        log = systemd(f"{context.places.log}.lxc")
        timeout = request.stop_timeout
        return MADE + (
            f"[Unit]\nStartLimitIntervalSec=0\n\n[Service]\n{unit_lines(context)}"
            # that of LXC 7 would open the folder of all containers
            "StateDirectory=\nExecStart=\n"
            f"ExecStart={unit_prefix(context)}lxc-start -F -n {name} -P {folder} -o {log} -l {LOG_LEVEL}\n"
            "ExecStop=\n"
            f"ExecStop=-lxc-stop -n {name} -P {folder} -t {timeout}\n"
            f"TimeoutStopSec={timeout + 10}\n" + restart_lines(request)
        )

    def control(self, context: Context) -> str:
        folder = posixpath.dirname(context.places.folder)
        functions = _FUNCTIONS.replace("@mounting@", script_prefix(context)).replace("@level@", LOG_LEVEL)
        return functions.replace("@folder@", shell(folder)) + LXC_LOG

    def join(self, context: Context, check: Check) -> Joining:
        selected = ("-P", posixpath.dirname(context.places.folder), "-n", context.request.name)
        by_shell = lxc.wrapper_script(context.container, version=context.node.version, settings=_settings(context))
        return attach(selected, context.container, mark_of(context.request), check.argv, by_shell is not None)

    def teller(self, context: Context) -> str:
        alive = _ALIVE.replace("@unit@", shell(self.unit(context.request)))
        return told_script(context, alive + LXC_LOG)

    def id_ranges(self, request: Request) -> list[dict[str, str]]:
        return [
            {"path": path, "line": "root:" + item.partition(":")[2]}
            for path, name in _RANGES
            for item in getattr(request, name)
        ]


def _given(request: Request) -> list[str]:
    return request.own.get("lxc_settings") or []


def _mapped_mounts(request: Request) -> list[str]:
    """Return the line by which the kernel maps owners of the root."""
    return [show(line) for line in _given(request) if line.startswith("lxc.rootfs.options") and "idmap=" in line]


def _settings(context: Context) -> list[str]:
    """Return the role's lines, without those of a kind that the administrator sets, and then the administrator's."""
    request = context.request
    given = [line.partition("=")[0].strip() for line in _given(request)]
    lines: list[str] = []

    def add(prefix: str, *defaults: str) -> None:
        if not any(key.startswith(prefix) for key in given):
            lines.extend(defaults)

    kind = "none" if request.network == "host" else "empty"
    add("lxc.net.", f"lxc.net.0.type = {kind}")
    add("lxc.mount.auto", "lxc.mount.auto = proc:mixed sys:ro cgroup:ro")
    add("lxc.pty.max", "lxc.pty.max = 1024")
    add("lxc.cap.", f"lxc.cap.keep = {_CAPABILITIES}")
    if _SECCOMP in context.node.paths:
        add("lxc.seccomp.profile", f"lxc.seccomp.profile = {_SECCOMP}")
    is_given = any(key.startswith(("lxc.cgroup.devices.", "lxc.cgroup2.devices.")) for key in given)  # fmt: skip
    if not request.uid_map and not is_given:
        # LXC 7 does not load a configuration with keys of cgroup v1
        groups = ("cgroup", "cgroup2") if lxc.features_of(context.node.version, None).cgroup_v1 else ("cgroup2",)
        lines += [f"lxc.{group}.devices.deny = a" for group in groups]
        lines += [f"lxc.{group}.devices.allow = c {device} rwm" for group in groups for device in _DEVICES]
    add("lxc.console.logfile", f"lxc.console.logfile = {context.places.log}")
    if request.starts_with_node and not context.node.systemd:
        lines += ["lxc.start.auto = 1", *hook_lines(context)]
    return [*lines, *_given(request)]
