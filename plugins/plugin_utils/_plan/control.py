# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The script that starts, stops and watches one container on a node without systemd."""

from __future__ import annotations

import re

from .etc_files import MADE
from .quoting import shell
from .runtime import Context

_FIELD = re.compile("@([a-z]+)@")
_HEAD = "#!/bin/sh\n" + MADE + """\
# Starts, stops and watches one container on a node without systemd: start, stop, status, log.
set -eu
name=@name@
log=@log@
run=/run/hypervisor.oci
timeout=@timeout@
signal=@signal@
# A signal that is ignored by whoever calls this would be ignored by the container, too.
plain=
env --default-signal true 2>/dev/null && plain='env --default-signal'

# a line may be as long as the container likes
last() {
    tail -c 2048 "$1" 2>/dev/null | tail -n 10
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
    read -r pid begun <"$run/$name.pid"
    [ "$(started "$pid")" = "$begun" ]
}

start() {
    mkdir -p -m 0700 "$run"
    rm -f "$run/$name.pid"
@prepare@\
    : >>"$log"
    # an empty pipe: crun makes a mapped user the owner of what it reads from, and /dev/null is the node's own
    : | setsid --fork "$0" run >>"$log" 2>&1
    tries=50
    until [ -e "$run/$name.pid" ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.1
    done
}

run() {
    echo "$$ $(started $$)" >"$run/$name.pid.new"
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

log() {
    last "$log" | printable
}

"""

_TAIL = """\
case ${1-} in
    start) alive || start ;;
    stop)
        alive || exit 3
        stop
@forget@\
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
    head = _fill(
        _HEAD,
        name=shell(context.request.name),
        log=shell(context.places.log),
        timeout=str(context.request.stop_timeout),
        signal=shell(context.container.stop_signal.removeprefix("SIG")),
    )
    tail = _fill(
        _TAIL,
        forget='        rm -f "$run/$name.pid"\n' if is_foreground else "",
        run="    run) run ;;\n" if is_foreground else "",
    )
    return head + functions + tail


def _fill(text: str, **values: str) -> str:
    """Replace every @name@ in one pass, so that no value is searched again."""
    return _FIELD.sub(lambda match: values[match.group(1)], text)
