# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The scripts by which the role starts, stops and watches one container, or tells how its last start ended."""

from __future__ import annotations

import posixpath
import re
import typing as t

from .etc_files import MADE
from .quoting import shell
from .runtime import Context

_SHELLS = ("ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "sh", "tcsh", "zsh")
_SHELL_ENDS = "a shell without a terminal ends at once: set container_command to what is to run"
_FIELD = re.compile("@([a-z]+)@")
_OPENING = "#!/bin/sh\n" + MADE + """\
# @purpose@
set -eu
name=@name@
log=@log@
run=/run/hypervisor.oci
# for a container whose command is a shell
hint=@hint@
"""
_CONTROLS = "Starts, stops and watches one container on a node without systemd: start, stop, status, log."
_TELLS = "Tells how the last start of a container ended that another service runs: begin, log."
_STOPPING = """\
timeout=@timeout@
signal=@signal@
# A signal that is ignored by whoever calls this would be ignored by the container, too.
plain=
env --default-signal true 2>/dev/null && plain='env --default-signal'
"""
_HEAD = """\

length() {
    { wc -c <"$1"; } 2>/dev/null || echo 0
}

# notes how long the logs are, so that what earlier starts wrote is not shown
begin() {
    mkdir -p -m 0700 "$run"
    rm -f "$run/$name.pid" "$run/$name.ended"
    echo "$(length "$log") $(length "$log.lxc")" >"$run/$name.begun"
}

# FILE FIRST|SECOND: where the last start begins in it, which is at 0 if the file was rotated
first_byte() {
    first=0 second=0
    [ ! -r "$run/$name.begun" ] || read -r first second <"$run/$name.begun"
    [ "$2" = first ] || first=$second
    [ "$first" -le "$(length "$1")" ] || first=0
    echo "$first"
}

# the end of FILE; a line may be as long as the container likes
last() {
    from=$(first_byte "$1" "$2")
    end=$(length "$1")
    [ "$((end - from))" -le 2048 ] || from=$((end - 2048))
    tail -c "+$((from + 1))" "$1" 2>/dev/null | head -c 2048 | tail -n 10
}

explain() {
    echo "exit status $1"
    [ "$1" != 0 ] || [ -z "$hint" ] || echo "$hint"
}

# what a terminal would obey: C0 but for TAB and line ends, DEL, and C1 as UTF-8 has it
printable() {
    LC_ALL=C tr '\\000-\\010\\013-\\037\\177' '?' | LC_ALL=C sed "s/$(printf '\\302[\\200-\\237]')/?/g"
}

"""

# For runtimes that run in the foreground: their process is put into the background, and known by number and start time.
_FOREGROUND = """\
# the time at which a process started tells it from a later one of the same number
started() {
    sed -e 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
}

alive() {
    [ -r "$run/$name.pid" ] || return 1
    read -r pid begun watcher <"$run/$name.pid"
    [ "$(started "$pid")" = "$begun" ]
}

start() {
    begin
@prepare@\
    : >>"$log"
    # an empty pipe: crun makes a mapped user the owner of what it reads from, and /dev/null is the node's own
    : | setsid --fork "$0" watch >>"$log" 2>&1
    tries=50
    until [ -e "$run/$name.pid" ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.1
    done
}

# waits for the runtime and notes how it ended, and which of these notes it: it may be an earlier one
watch() {
    status=0
    "$0" run || status=$?
    # nobody asks for it after a stop
    [ -e "$run/$name.pid" ] || return 0
    echo "$$ $status" >"$run/$name.ended.new"
    mv "$run/$name.ended.new" "$run/$name.ended"
}

# a process of its own, in the foreground: the shell would let one in the background ignore signals
run() {
    echo "$$ $(started $$) $PPID" >"$run/$name.pid.new"
    mv "$run/$name.pid.new" "$run/$name.pid"
    exec $plain @command@
}

ended_within() {
    tries=$(($1 * 10))
    while alive; do
        [ "$tries" -gt 0 ] || return 1
        tries=$((tries - 1))
        sleep 0.1
    done
}

stop() {
@stop@\
}

ended() {
    ! alive || return 0
    [ -r "$run/$name.pid" ] && [ -r "$run/$name.ended" ] || return 0
    read -r pid begun watcher <"$run/$name.pid"
    read -r by status <"$run/$name.ended"
    [ "$by" != "$watcher" ] || explain "$status"
}

log() {
    { ended; last "$log" first; } | printable
}

"""

# For containers whose output systemd writes to its journal.
_JOURNAL = """\
unit=@unit@

begin_journal() {
    begin
    # what was written before must not get a later time
    journalctl --sync 2>/dev/null || true
    date +@%s.%6N >"$run/$name.since"
}

# ARGUMENT...: what the journal has of the last start; if that was not noted, of this boot
journal() {
    since=
    [ ! -r "$run/$name.since" ] || read -r since <"$run/$name.since"
    if [ -n "$since" ]; then set -- "--since=$since" "$@"; else set -- --boot "$@"; fi
    journalctl --quiet --no-pager --output=cat "$@" 2>/dev/null | tail -c 65536
}

# NAME: a property of the unit's main process
main() {
    systemctl show "--property=ExecMain$1" "$unit" 2>/dev/null | sed -n "s/^ExecMain$1=//p"
}

# how its main process ended, as systemd tells, or its journal when the unit was started again or forgotten
ended() {
    status=$(main Status)
    case $(main Code) in
        1) ;;
        2 | 3) status="128 + $status" ;;
        *)
            status=$(journal _PID=1 "UNIT=$unit" | sed -n \
                -e 's/^.*: Main process exited, code=exited, status=\\([0-9]*\\).*/\\1/p' \
                -e 's/^.*: Main process exited, code=[dk][a-z]*, status=\\([0-9]*\\).*/128 + \\1/p' \
                -e 's/^.*: Deactivated successfully\\.$/0/p' | tail -n 1)
            ;;
    esac
    [ -z "$status" ] || explain "$(($status))"
}

# what the container and its runtime wrote, or what systemd says if it has not come to that (200 to 243 are its own)
lines() {
    found=$(journal --lines=10 "_SYSTEMD_UNIT=$unit" | tail -c 2048)
    case $found,$status in
        , | ,2[0-4]?) found=$(journal --lines=10 "--unit=$unit" | tail -c 2048) ;;
    esac
    [ -z "$found" ] || echo "$found"
}

log() {
    journalctl --sync 2>/dev/null || true
    { ended; lines; } | printable
}

"""
_TOLD_TAIL = """\
case ${1-} in
    begin) @begin@ ;;
    log) log ;;
    *)
        echo "usage: $0 begin|log" >&2
        exit 64
        ;;
esac
"""

_TAIL = """\
case ${1-} in
    start) alive || start ;;
    stop)
        alive || exit 3
        stop
        rm -f "$run/$name.pid" "$run/$name.ended" "$run/$name.begun"
        ;;
    status)
        alive || exit 3
        echo running
        ;;
    log) log ;;
@run@\
    *)
        echo "usage: $0 start|stop|status|log" >&2
        exit 64
        ;;
esac
"""


def foreground(prepare: str, command: str, stop: str) -> str:
    """Return the functions for a runtime whose ``command`` runs as long as the container does."""
    return _fill(_FOREGROUND, prepare=prepare, command=command, stop=stop)


def control_script(context: Context, functions: str) -> str:
    """Return the whole script around the runtime's functions."""
    is_foreground = functions.startswith(_FOREGROUND[:20])
    stopping = _fill(
        _STOPPING,
        timeout=str(context.request.stop_timeout),
        signal=shell(context.container.stop_signal.removeprefix("SIG")),
    )
    tail = _fill(_TAIL, run="    watch) watch ;;\n    run) run ;;\n" if is_foreground else "")
    return _opening(context, _CONTROLS) + stopping + _HEAD + functions + tail


def told_script(context: Context, functions: str) -> str:
    """Return the script for a container that another service starts and stops; ``functions`` have ``log``."""
    return _opening(context, _TELLS) + _HEAD + functions + _fill(_TOLD_TAIL, begin="begin")


def journal_script(context: Context, unit: str) -> str:
    """Return the script for a container whose output goes to the journal of systemd."""
    functions = _fill(_JOURNAL, unit=shell(unit))
    return _opening(context, _TELLS) + _HEAD + functions + _fill(_TOLD_TAIL, begin="begin_journal")


def _opening(context: Context, purpose: str) -> str:
    return _fill(
        _OPENING,
        purpose=purpose,
        name=shell(context.request.name),
        log=shell(context.places.log),
        hint=shell(_hint(context.container.argv)),
    )


def _hint(argv: t.Sequence[str]) -> str:
    """Return what to say if a container with this command ends at once, empty if it is not a shell without a script."""
    is_shell = posixpath.basename(argv[0]) in _SHELLS
    is_interactive = all(word.startswith("-") and "c" not in word for word in argv[1:])
    return _SHELL_ENDS if is_shell and is_interactive else ""


def _fill(text: str, **values: str) -> str:
    """Replace every @name@ in one pass, so that no value is searched again."""
    return _FIELD.sub(lambda match: values[match.group(1)], text)
