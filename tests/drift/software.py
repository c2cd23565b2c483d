# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Software as Debian packages it: how it is started, used and restarted, and where it keeps what it makes."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

# What rotates logs; cron is what usually calls it.
_ROTATE = "logrotate --force /etc/logrotate.conf"


@dataclass(frozen=True)
class Software:
    """An image and what happens in its containers; all but ``command`` are scripts of ``sh``.

    ``data`` are patterns of paths where this software keeps what it makes for its user, each with the reason: what is found
    there has really changed, though by the software's purpose. ``boots`` says that ``command`` is an init system.
    """

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    ready: str
    work: str
    reload: str
    rotate: str = _ROTATE
    volumes: tuple[str, ...] = ()
    data: t.Mapping[str, str] = field(default_factory=dict)
    boots: bool = False


_POSTGRES = Software(
    name="postgres",
    packages=("postgresql", "logrotate"),
    command=("pg_ctlcluster", "--foreground", "15", "main", "start"),
    ready="pg_isready --quiet",
    work=(
        'cd /; run() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }\n'
        "run psql -tAc \"select 1 from pg_database where datname = 'bench'\" | grep -q 1 || {"
        " run createdb bench && run pgbench --quiet --initialize bench; }\n"
        "run pgbench --client 4 --transactions 250 bench\n"
        "run psql -c 'vacuum full' bench\n"
    ),
    reload="pg_ctlcluster 15 main reload",
    volumes=("/var/lib/postgresql",),
)
ALL = (
    Software(
        name="nginx",
        packages=("nginx-light", "logrotate"),
        command=("nginx", "-g", "daemon off;"),
        ready="bash -c '</dev/tcp/127.0.0.1/80'",
        work=(
            "cat >/tmp/work <<'END'\n"
            "for number in $(seq 300); do\n"
            "    exec 3<>/dev/tcp/127.0.0.1/80\n"
            "    printf 'GET /%s HTTP/1.0\\r\\n\\r\\n' $((number % 2 ? number : 0)) >&3\n"
            "    cat <&3 >/dev/null\n"
            "done\n"
            "END\n"
            "bash /tmp/work\n"
        ),
        reload="nginx -s reload",
        data={"/var/lib/nginx/**": "bodies of requests, in folders that nginx makes when it starts"},
    ),
    _POSTGRES,
    Software(
        name="postgres without a volume",
        packages=_POSTGRES.packages,
        command=_POSTGRES.command,
        ready=_POSTGRES.ready,
        work=_POSTGRES.work,
        reload=_POSTGRES.reload,
        data={"/var/lib/postgresql/**": "the database"},
    ),
    Software(
        name="redis",
        packages=("redis-server", "logrotate"),
        command=(
            *("setpriv", "--reuid=redis", "--regid=redis", "--init-groups"),
            *("redis-server", "/etc/redis/redis.conf", "--daemonize", "no"),
        ),
        ready="redis-cli ping | grep -q PONG",
        work="redis-benchmark -q -n 3000 -t set,get,lpush && redis-cli save && redis-cli bgrewriteaof",
        reload="redis-cli config set maxclients 500",
        data={"/var/lib/redis/**": "the database"},
    ),
    Software(
        name="systemd",
        packages=(
            "systemd-sysv",
            "dbus",
            "libpam-systemd",
            "cron",
            "logrotate",
            "nginx-light",
            "openssh-server",
            "iputils-ping",
            "libcap2-bin",
        ),
        command=("/sbin/init",),
        ready="systemctl is-system-running --wait | grep -Eq 'running|degraded' && systemctl is-active nginx ssh cron",
        work=(
            "systemctl restart nginx ssh cron dbus\n"
            "systemctl daemon-reload\n"
            "journalctl --rotate\n"
            # whatever its timers start in a day
            "for timer in $(systemctl list-unit-files --type=timer --no-legend | cut -d ' ' -f 1); do\n"
            '    systemctl start "$(systemctl show --property=Unit --value "$timer")" || :\n'
            "done\n"
            "run-parts /etc/cron.daily && ldconfig && systemd-sysusers && systemd-tmpfiles --create\n"
            "systemd-run --wait --pipe true\n"
        ),
        reload="systemctl reload nginx ssh",
        data={"/var/lib/nginx/**": "bodies of requests, in folders that nginx makes when it starts"},
        boots=True,
    ),
)
