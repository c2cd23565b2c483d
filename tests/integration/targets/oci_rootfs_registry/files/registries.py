# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real registries on loopback: anonymous over http, a mirror of that, htpasswd and tokens over https, nginx before them.

registries.py FOLDER REPOSITORY=ARCHIVE…   pushes the archives by skopeo as REPOSITORY:1, writes FOLDER/ready.json, and
                                           serves until it is ended

FOLDER/tokens.log gets a line for each request for a token.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import typing as t
import urllib.parse
import urllib.request

from cutter import WHOLE, Cut, Cutter
from fronts import NAMES, configuration, serve_signer

USER, PASSWORD = "user", "canary-password"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
# Seconds after its end that docker-registry still believes a token.
LEEWAY = 60
# Seconds that the tokens of short life are good for.
SHORT = 5
# Where connections are cut: before the first byte, in the headers, in the bodies. At the origin after URLs have expired.
PLAIN_CUTS = (Cut(0), Cut(150), WHOLE, Cut(70_000), Cut(600_000))
ORIGIN_CUTS = (WHOLE, Cut(400_000, hold=5.0))
# A blob of 2 MB takes 20 seconds, and is cut once in the middle.
SLOW_CUTS = (WHOLE, Cut(1_000_000, rate=100_000), Cut(1 << 62, rate=100_000))
# This program is ended by its caller, and by itself when that was killed.
LONGEST = 600


class Lab:
    """A folder with keys, configurations and logs, and the programs that run."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return os.path.join(self.folder, name)

    def write(self, name: str, text: str) -> str:
        """Write a file, and return its path."""
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def call(self, *words: str, data: bytes | None = None) -> bytes:
        """Run a program, and return what it prints."""
        return subprocess.run(words, check=True, input=data, stdout=subprocess.PIPE, cwd=self.folder).stdout

    def make_certificates(self) -> None:
        """Make an authority and a server's certificate."""
        self.write(
            "cnf", "[req]\ndistinguished_name=dn\nx509_extensions=ca\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\n"
        )
        new = ("openssl", "req", "-config", "cnf", "-newkey", "rsa:2048", "-nodes")
        self.call(*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
        self.call(*new, "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
        self.write("ext", "subjectAltName=IP:127.0.0.1\n")
        sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
        self.call("openssl", "x509", "-req", "-in", "server.csr", *sign, "-out", "server.pem")

    def serve(self, name: str, config: dict[str, t.Any], data: str, tls: bool) -> int:
        """Start a registry, and return its port."""
        port = free_port()
        serves: dict[str, t.Any] = {"addr": f"127.0.0.1:{port}"}
        if tls:
            serves["tls"] = {"certificate": self.path("server.pem"), "key": self.path("server.key")}
        storage = {"filesystem": {"rootdirectory": self.path(data)}}
        everything = {"version": 0.1, "storage": storage, "http": serves, **config}
        # JSON is YAML
        path = self.write(f"{name}.yml", json.dumps(everything))
        with open(self.path(f"{name}.log"), "wb") as log:
            self.running.append(subprocess.Popen(["docker-registry", "serve", path], stdout=log, stderr=log))
        wait_for(port)
        return port

    def serve_fronts(self, ports: t.Mapping[str, int]) -> dict[str, int]:
        """Start nginx and what it needs before the registries of these ports, and return the fronts' ports by name."""
        fronts = {name: free_port() for name in NAMES}
        own = {"signer": serve_signer(fronts["origin"], BASIC), "cut_origin": Cutter(ports["open"], ORIGIN_CUTS).port}
        path = self.write("nginx.conf", configuration(self.folder, {**ports, **fronts, **own}))
        with open(self.path("nginx.log"), "wb") as log:
            self.running.append(subprocess.Popen(["/usr/sbin/nginx", "-c", path], stdout=log, stderr=log))
        for port in fronts.values():
            wait_for(port)
        fronts["cut"] = Cutter(fronts["plain"], PLAIN_CUTS).port
        fronts["slow"] = Cutter(ports["short"], SLOW_CUTS).port
        return fronts

    def stop(self) -> None:
        """End all programs."""
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait()


def free_port() -> int:
    """Return a port of loopback that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until somebody listens to a port."""
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"nobody listens to port {port}")
        time.sleep(0.05)


def encode(data: bytes) -> str:
    """Return base64 as JSON web tokens have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def make_token(lab: Lab, scope: str, life: int) -> str:
    """Return a token that the registry believes for so many seconds."""
    kind, _colon, rest = scope.partition(":")
    name, _colon, _actions = rest.rpartition(":")
    der = lab.call("openssl", "x509", "-in", "server.pem", "-outform", "DER")
    now = int(time.time())
    header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
    access = [{"type": kind, "name": name, "actions": ["pull"]}]
    times = {"exp": now + life - LEEWAY, "nbf": now - 10}
    claims = {"iss": "lab", "aud": "registry", "sub": USER, **times, "access": access}
    signed = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    signature = lab.call("openssl", "dgst", "-sha256", "-sign", "server.key", data=signed.encode())
    return f"{signed}.{encode(signature)}"


def serve_tokens(lab: Lab) -> int:
    """Start a server of tokens for the user, and return its port; /short has tokens of a short life."""

    class Tokens(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Give a token to the user."""
            parts = urllib.parse.urlsplit(self.path)
            query = urllib.parse.parse_qs(parts.query)
            known = self.headers.get("Authorization") == BASIC
            life = SHORT if parts.path == "/short" else 300
            token = make_token(lab, query["scope"][0], life) if known else ""
            answer = {"token": token, "expires_in": life} if known else {"details": "who are you?"}
            with open(lab.path("tokens.log"), "a", encoding="utf-8") as log:
                log.write(f"{parts.path} {known}\n")
            body = json.dumps(answer).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: t.Any) -> None:
            """Quietly."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(lab.path("server.pem"), lab.path("server.key"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_port)


def main() -> None:
    """Start everything, and wait to be ended."""
    lab = Lab(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_signal: sys.exit(0))
    signal.signal(signal.SIGALRM, lambda *_signal: sys.exit(1))
    signal.alarm(LONGEST)
    try:
        lab.make_certificates()
        # docker-registry wants bcrypt, which the C library has, and Python no longer
        script = 'print crypt($ARGV[0], "\\$2b\\$05\\$abcdefghijklmnopqrstuu")'
        hashed = lab.call("perl", "-e", script, PASSWORD).decode()
        lab.write("htpasswd", f"{USER}:{hashed}\n")
        tokens = serve_tokens(lab)
        ports = {"open": lab.serve("open", {}, "data", False)}
        origin = f"http://127.0.0.1:{ports['open']}"
        token = {"service": "registry", "issuer": "lab", "rootcertbundle": lab.path("ca.pem")}
        realm = f"https://127.0.0.1:{tokens}"
        ports["mirror"] = lab.serve("mirror", {"proxy": {"remoteurl": origin}}, "mirrored", False)
        basic = {"htpasswd": {"realm": "lab", "path": lab.path("htpasswd")}}
        ports["htpasswd"] = lab.serve("htpasswd", {"auth": basic}, "data", True)
        for name, tls in (("token", True), ("short", False)):
            auth = {"token": {**token, "realm": f"{realm}/{name}"}}
            ports[name] = lab.serve(name, {"auth": auth}, "data", tls)
        push = ("skopeo", "--insecure-policy", "copy", "-q", "--all", "--dest-tls-verify=false")
        for name, _equals, archive in (word.partition("=") for word in sys.argv[2:]):
            lab.call(*push, f"oci-archive:{archive}", f"docker://127.0.0.1:{ports['open']}/{name}:1")
        ports.update(lab.serve_fronts(ports))
        auths = {f"127.0.0.1:{ports['token']}": {"auth": BASIC[6:]}}
        lab.write("auth.json", json.dumps({"auths": auths}))
        lab.write("ready.new", json.dumps({**ports, "pid": os.getpid()}))
        os.rename(lab.path("ready.new"), lab.path("ready.json"))
        while True:
            time.sleep(60)
    finally:
        lab.stop()


if __name__ == "__main__":
    main()
