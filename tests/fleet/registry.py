# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A registry in a fleet's network: Debian's docker-registry, to which skopeo pushes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import typing as t

from ..tools.removal import remove_below
from .fleet import Fleet, run, wait_for
from .nodes import WEB

PORT = 5000
# A line of the log in Apache's format.
_LINE = re.compile(r'(\S+) \S+ \S+ \[[^]]*\] "(\S+) (\S+) [^"]*" (\d+) (\d+)')


class Answer(t.NamedTuple):
    """One answer of the registry, with the bytes of its body."""

    client: str
    method: str
    path: str
    status: int
    sent: int


class Registry:
    """Runs on a node, by ``http``, or by ``https`` with a ``certificate`` of its own."""

    def __init__(self, fleet: Fleet, node: str = WEB) -> None:
        self._node = fleet.nodes[node]
        self._folder = os.path.join(fleet.folder, f"registry-{node}")
        self._log = os.path.join(self._folder, "log")
        self._read = 0
        self.certificate = os.path.join(self._folder, "server.pem")
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, name: str) -> str:
        """The ``src`` of an image."""
        return f"docker://{self._node.address}:{PORT}/fleet/{name}"

    def start(self, user: str = "", tls: bool = False) -> None:
        """Serve what was pushed before, to everybody or to one user, given as a line of htpasswd with bcrypt's hash."""
        os.makedirs(self._folder, exist_ok=True)
        config: dict[str, t.Any] = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": os.path.join(self._folder, "data")}},
            "http": {"addr": f"{self._node.address}:{PORT}"},
        }
        if tls:
            config["http"]["tls"] = {"certificate": self.certificate, "key": self._make_certificate()}
        if user:
            users = os.path.join(self._folder, "htpasswd")
            with open(users, "w", encoding="ascii") as file:
                file.write(f"{user}\n")
            config["auth"] = {"htpasswd": {"realm": "fleet", "path": users}}
        path = os.path.join(self._folder, "config.yml")
        with open(path, "w", encoding="ascii") as file:
            # JSON is YAML
            json.dump(config, file)
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                ["nsenter", "-t", str(self._node.pid), "-n", "--", "docker-registry", "serve", path],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.DEVNULL,
            )
        wait_for("the registry", lambda: self._node.listens(PORT))

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wipe(self) -> None:
        """Lose everything that was pushed, while it is stopped."""
        remove_below(self._folder, os.path.join(self._folder, "data"))

    def _make_certificate(self) -> str:
        """Make a certificate that signs itself, and return the path of its key."""
        key = os.path.join(self._folder, "server.key")
        names = ["-subj", "/CN=registry", "-addext", f"subjectAltName=IP:{self._node.address}"]
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
        run([*words, "-keyout", key, "-out", self.certificate])
        return key

    def push(self, archive: str, ref: str, name: str, *options: str) -> None:
        """Push the image of an archive, by its ``ref`` if it has several, or all of its index with ``--all``."""
        words = ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", *options]
        run([*words, f"oci-archive:{archive}" + (f":{ref}" if ref else ""), self.url(name)], 120)
        self.served()

    def served(self) -> list[Answer]:
        """The answers since the last call."""
        with open(self._log, encoding="utf-8", errors="replace") as file:
            file.seek(self._read)
            text = file.read()
            self._read = file.tell()
        return [
            Answer(client, method, path, int(status), int(sent))
            for client, method, path, status, sent in _LINE.findall(text)
        ]
