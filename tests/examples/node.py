# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node of one page: empty folders, a network of its own, a mirror, and substitutes for LXC's programs.

Only to be used in namespaces of its own (``unshare --mount --net --pid``), inside the sandbox.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import ssl
import subprocess
import threading
import typing as t

from .images import ON_NODE

# Folders that an example, the role or a runtime writes to; each is an empty file system in memory.
_EMPTY = ("/etc/pve", "/etc/systemd/nspawn", "/run/hypervisor.oci", "/run/lxc", "/srv", "/var/cache", "/var/lib/hypervisor.oci",
          "/var/lib/lxc", "/var/lib/machines", "/var/log")  # fmt: skip
_MIRRORS = ("mirror.example.org", "mirror.rack1.example.org", "rack1.mirror.example.org")
# A container of Proxmox VE that an example changes.
_PVE = "arch: amd64\nhostname: old\nmemory: 256\nrootfs: local:101/vm-101-disk-0.raw,size=4G\nunprivileged: 1\n"
# Runs a process in the root file system, as a container does, so that the tree is in use. A file fail-NAME beside it
# makes one call of the program fail.
_PROGRAM = """\
#!/bin/sh
set -e
here=$(dirname "$0")
program=$(basename "$0")
while [ $# -gt 0 ]; do
    case $1 in
        -n | --name) name=$2; shift ;;
    esac
    shift
done
root=/var/lib/lxc/$name/rootfs
state=$here/$name
if [ -e "$here/fail-$program" ]; then
    rm "$here/fail-$program"
    echo "$program: failed on purpose" >&2
    exit 1
fi
# a process that ended and was not waited for has no working directory any more
runs() { [ -e "$state.pid" ] && readlink "/proc/$(cat "$state.pid")/cwd" >/dev/null; }
case $program in
    lxc-info) if runs; then echo RUNNING; else echo STOPPED; fi ;;
    lxc-attach) runs ;;
    lxc-start)
        if runs; then echo "$name runs already" >&2; exit 1; fi
        (cd "$root" && exec sleep 10000 >/dev/null 2>&1) &
        echo $! >"$state.pid"
        cp "$root/etc/version" "$state.version" ;;
    lxc-stop)
        runs || { echo "$name is not running" >&2; exit 2; }
        kill "$(cat "$state.pid")"
        while runs; do sleep 0.1; done
        rm "$state.pid" "$state.version" ;;
esac
"""
PROGRAMS = ("lxc-attach", "lxc-info", "lxc-start", "lxc-stop")


class Node:
    """This machine as the node of one page; ``programs`` is the folder of the substitutes."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.programs = os.path.join(folder, "programs")
        self.authorities = os.path.join(folder, "mirror.pem")
        self._make_folders()
        self._make_network()
        self._make_programs()

    @contextlib.contextmanager
    def mirror(self, archives: str) -> t.Iterator[None]:
        """Serve the archives of a folder by https, under the names that the examples use."""
        self._make_certificate()
        handler = functools.partial(_Handler, directory=archives)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.authorities)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 443), handler) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()

    def fail_once(self, program: str) -> None:
        """Make the next call of a substitute fail."""
        with open(os.path.join(self.programs, f"fail-{program}"), "w", encoding="utf-8"):
            pass

    def version_of(self, name: str) -> int:
        """Return the version that a substitute's container was started with, 0 if it does not run."""
        info = [os.path.join(self.programs, "lxc-info"), "--name", name]
        if subprocess.run(info, check=True, capture_output=True, text=True).stdout != "RUNNING\n":
            return 0
        with open(os.path.join(self.programs, f"{name}.version"), encoding="utf-8") as file:
            return int(file.read())

    def stop(self, name: str) -> None:
        """Stop a substitute's container behind Ansible's back."""
        subprocess.run([os.path.join(self.programs, "lxc-stop"), "--name", name], check=True)

    def _make_folders(self) -> None:
        for path in _EMPTY:
            os.makedirs(path, exist_ok=True)
            _run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", path)
        for path in ("/etc/pve/lxc", "/srv/web/data", os.path.dirname(ON_NODE)):
            os.makedirs(path)
        with open("/etc/pve/lxc/101.conf", "w", encoding="utf-8") as file:
            file.write(_PVE)

    def _make_network(self) -> None:
        # LXC looks for bridges in /sys, which otherwise shows the network of the process that mounted it
        groups = os.path.join(self._folder, "cgroup")
        os.mkdir(groups)
        _run("mount", "--rbind", "/sys/fs/cgroup", groups)
        _run("mount", "-t", "sysfs", "sysfs", "/sys")
        _run("mount", "--rbind", groups, "/sys/fs/cgroup")
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "lxcbr0", "type", "bridge")
        _run("ip", "link", "set", "lxcbr0", "up")
        hosts = os.path.join(self._folder, "hosts")
        with open(hosts, "w", encoding="utf-8") as file:
            file.write("127.0.0.1 localhost " + " ".join(_MIRRORS) + "\n")
        _run("mount", "--bind", hosts, "/etc/hosts")

    def _make_programs(self) -> None:
        os.makedirs(self.programs)
        for name in PROGRAMS:
            path = os.path.join(self.programs, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(_PROGRAM)
            os.chmod(path, 0o755)

    def _make_certificate(self) -> None:
        names = ",".join(f"DNS:{name}" for name in _MIRRORS)
        _run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mirror",
             "-addext", f"subjectAltName={names}", "-keyout", self.authorities + ".key",
             "-out", self.authorities)  # fmt: skip
        with open(self.authorities + ".key", encoding="utf-8") as key, open(
            self.authorities, "a", encoding="utf-8"
        ) as file:
            file.write(key.read())


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serve every archive at any path; without ranges, which the tests of the transfer cover."""

    def translate_path(self, path: str) -> str:
        return os.path.join(self.directory, os.path.basename(path))

    def log_message(self, *_arguments: t.Any) -> None:
        """Write nothing."""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
