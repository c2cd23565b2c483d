# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node of one page: empty folders, a network of its own, a mirror, a registry, and substitutes for programs.

Only to be used in namespaces of its own (``unshare --mount --net --pid``), inside the sandbox.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import ssl
import subprocess
import tarfile
import threading
import typing as t

from .images import ON_NODE

# Folders that an example, the role or a runtime writes to; each is an empty file system in memory.
_EMPTY = ("/etc/pve", "/etc/systemd/nspawn", "/run/hypervisor.oci", "/run/lxc", "/srv", "/var/cache", "/var/lib/hypervisor.oci",
          "/var/lib/lxc", "/var/lib/machines", "/var/log")  # fmt: skip
# The web servers and registries that the examples name.
_MIRRORS = ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", "europe-west3-docker.pkg.dev", "images.example.org",
            "mirror.example.org", "mirror.rack1.example.org", "rack1.mirror.example.org", "registry-1.docker.io",
            "registry.example.org")  # fmt: skip
# What login programs write, and the programs of clouds that print a password.
_AUTH = "/root/.config/containers/auth.json"
_CLOUDS = ("aws", "gcloud")
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
        self.clouds = os.path.join(folder, "clouds")
        self.authorities = os.path.join(folder, "mirror.pem")
        self._make_folders()
        self._make_network()
        self._make_programs()

    @contextlib.contextmanager
    def mirror(self, archives: str) -> t.Iterator[None]:
        """Serve the archives of a folder by https, as files and as a registry, under the names that the examples use."""
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
        os.makedirs(os.path.dirname(_AUTH), exist_ok=True)
        with open(_AUTH, "w", encoding="utf-8") as file:
            file.write('{"auths": {}}')

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
        for folder, names, text in (
            (self.programs, PROGRAMS, _PROGRAM),
            (self.clouds, _CLOUDS, "#!/bin/sh\necho password\n"),
        ):
            os.makedirs(folder)
            for name in names:
                path = os.path.join(folder, name)
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
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
    """Serve every archive at any path, without ranges, and one of them as every image of a registry, without tokens."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a registry's request, or send a file."""
        if self.path.startswith("/v2/"):
            self._answer(True)
        else:
            super().do_GET()

    def do_HEAD(self) -> None:
        """Answer a registry's request, or tell about a file."""
        if self.path.startswith("/v2/"):
            self._answer(False)
        else:
            super().do_HEAD()

    def _answer(self, with_body: bool) -> None:
        kind, _slash, reference = self.path.rpartition("/")
        with tarfile.open(os.path.join(self.directory, "web.oci.tar")) as archive:
            # the image; its signatures follow it, and are not in this registry
            listed = json.loads(_content(archive, "index.json"))["manifests"][0]
            digest = reference if reference.startswith("sha256") else listed["digest"]
            try:
                body = _content(archive, "blobs/" + digest.replace(":", "/"))
            except KeyError:
                self.send_error(404)
                return
        media_type = json.loads(body).get("mediaType") if kind.endswith("/manifests") else "application/octet-stream"
        self.send_response(200)
        self.send_header("Content-Type", media_type or listed["mediaType"])
        self.send_header("Docker-Content-Digest", digest)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def translate_path(self, path: str) -> str:
        return os.path.join(self.directory, os.path.basename(path))

    def log_message(self, *_arguments: t.Any) -> None:
        """Write nothing."""


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    return b"" if file is None else file.read()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
