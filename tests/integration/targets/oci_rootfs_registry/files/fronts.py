# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nginx before a registry, as operators and object stores have it: redirects, limits, refusals.

redirecting   sends clients for blobs to another origin by a signed URL that expires
origin        that one: by https, and only with a URL whose signature is right and not too old (secure_link)
busy          one blob in 6.7 seconds: all others get 429 with Retry-After: 7 (limit_req)
plain         refuses HEAD, and knows no ranges
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import threading
import time
import typing as t

NAMES = ("redirecting", "origin", "busy", "plain")
# Seconds that a signed URL is good for, at least.
LIFE = 3
_SECRET = "canary-secret"

_TEXT = """\
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 100; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    proxy_buffering off;
    proxy_set_header Host $http_host;
    map $http_authorization $who {{ default known; "" nobody; }}
    log_format asked '$msec $request_method $uri $status $who "$http_range"';
    map $uri $blob {{ default ""; ~/blobs/ blob; }}
    limit_req_zone $blob zone=blobs:1m rate=9r/m;
    limit_req_status 429;
    ssl_certificate {folder}/server.pem;
    ssl_certificate_key {folder}/server.key;
    server {{
        listen 127.0.0.1:{redirecting} ssl;
        access_log {folder}/redirecting.log asked;
        location / {{ proxy_pass https://127.0.0.1:{htpasswd}; }}
        location ~ /blobs/ {{ proxy_pass http://127.0.0.1:{signer}; }}
    }}
    server {{
        listen 127.0.0.1:{origin} ssl;
        access_log {folder}/origin.log asked;
        secure_link $arg_md5,$arg_expires;
        secure_link_md5 "$secure_link_expires$uri {secret}";
        location / {{
            if ($secure_link = "") {{ return 403; }}
            if ($secure_link = "0") {{ return 403; }}
            proxy_pass http://127.0.0.1:{cut_origin};
        }}
    }}
    server {{
        listen 127.0.0.1:{busy};
        access_log {folder}/busy.log asked;
        location / {{ proxy_pass http://127.0.0.1:{open}; }}
        location ~ /blobs/ {{
            limit_req zone=blobs;
            error_page 429 @busy;
            proxy_pass http://127.0.0.1:{open};
        }}
        location @busy {{
            add_header Retry-After 7 always;
            return 429;
        }}
    }}
    server {{
        listen 127.0.0.1:{plain};
        access_log {folder}/plain.log asked;
        location / {{
            if ($request_method = HEAD) {{ return 405; }}
            proxy_set_header Range "";
            proxy_hide_header Accept-Ranges;
            proxy_pass http://127.0.0.1:{open};
        }}
    }}
}}
"""


def configuration(folder: str, ports: t.Mapping[str, int]) -> str:
    """Return the text of nginx.conf; ``ports`` are those of the servers, the registries, the signer and the cutters."""
    return _TEXT.format(folder=folder, secret=_SECRET, **ports)


def sign(origin: int, path: str) -> str:
    """Return a URL at the origin for a path, good for a few seconds."""
    expires = int(time.time()) + LIFE
    hashed = hashlib.md5(f"{expires}{path} {_SECRET}".encode()).digest()
    signature = base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()
    return f"https://127.0.0.1:{origin}{path}?md5={signature}&expires={expires}"


def serve_signer(origin: int, expected: str) -> int:
    """Start what signs URLs for clients with an expected header Authorization, and return its port."""

    class Signer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Redirect whoever may pull."""
            if self.headers.get("Authorization") != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="lab"')
            else:
                self.send_response(307)
                self.send_header("Location", sign(origin, self.path))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: t.Any) -> None:
            """Quietly."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Signer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_port)
