# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A registry, a token server and a store for blobs on loopback, which do what they should or what a test wants."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import re
import ssl
import threading
import time
import typing as t
import urllib.parse

from ansible_collections.hypervisor.oci.tests.images.builder import Blob

_PATH = re.compile(r"/v2/(.+)/(manifests|blobs)/([^/]+)\Z")
# seconds; only a test that fails waits that long
_LONGEST_HOLD = 60
_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Asked(t.NamedTuple):
    """One request, its status, and how many bytes of body were sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int
    sent: int


class Server:
    """What all servers have: a log, and ``handle``, which may answer a request in some other way; true then.

    ``cuts`` are used up, one by each answer with a body of more than that: the connection ends after so many bytes.
    After ``held_at`` bytes the rest of an answer waits until ``released``.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.handle: t.Callable[[Handler], bool] = lambda _handler: False
        self.cuts: list[int] = []
        self.pause = 0.0
        self.held_at: int | None = None
        self.released = threading.Event()
        self.host = ""
        self.scheme = "http"

    @property
    def url(self) -> str:
        """The server's origin."""
        return f"{self.scheme}://{self.host}"

    @property
    def sent(self) -> int:
        """Bytes of all bodies."""
        return sum(asked.sent for asked in self.asked)

    def paths(self) -> list[str]:
        """Method, path and status of all requests."""
        return [f"{asked.method} {asked.path} {asked.status}" for asked in self.asked]

    def log(self) -> str:
        """Everything that clients have sent."""
        return "\n".join(f"{asked.method} {asked.path} {asked.headers} {asked.body!r}" for asked in self.asked)

    def answer(self, handler: Handler) -> None:
        """Answer a request."""
        raise NotImplementedError


class Registry(Server):
    """A registry that holds what ``push`` was given. ``auth`` is empty, ``basic`` or ``bearer``."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[tuple[str, str], str] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.auth = ""
        self.users: dict[str, str] = {}
        self.tokens: TokenServer | None = None
        self.store: Store | None = None
        self.ranges = True

    def push(self, repository: str, tag: str, content: Blob) -> str:
        """Store an image or index under a tag, and return its digest."""
        for path, data in content.files().items():
            digest = path.split("/", 1)[1].replace("/", ":")
            self.blobs[repository, digest] = data
            media_type = media_type_of(data)
            if media_type:
                self.manifests[repository, digest] = media_type, data
        self.tags[repository, tag] = content.digest
        return content.digest

    def answer(self, handler: Handler) -> None:
        """Serve the API."""
        if self.auth and not self._may(handler):
            handler.send(
                401, _error("UNAUTHORIZED", "authentication required"), WWW_Authenticate=self.challenge(handler)
            )
            return
        match = _PATH.match(handler.path)
        if match is None:
            handler.send(404, _error("UNSUPPORTED", "nothing here"))
            return
        repository, kind, reference = match.groups()
        if kind == "manifests":
            self._manifest(handler, repository, reference)
        else:
            self._blob(handler, repository, reference)

    def challenge(self, handler: Handler) -> str:
        """Return the header of a 401."""
        if self.auth == "basic" or self.tokens is None:
            return 'Basic realm="stub"'
        repository = (handler.path.split("/v2/")[1].split("/manifests/")[0].split("/blobs/")[0]) or "x"
        realm = f'realm="{self.tokens.url}/token",service="the, stub"'
        return f'Bearer {realm},scope="repository:{repository}:pull,push,delete"'

    def _may(self, handler: Handler) -> bool:
        scheme, _space, value = handler.headers.get("Authorization", "").partition(" ")
        if self.auth == "basic":
            return scheme == "Basic" and _user_of(value, self.users) is not None
        return scheme == "Bearer" and self.tokens is not None and self.tokens.is_valid(value)

    def _manifest(self, handler: Handler, repository: str, reference: str) -> None:
        digest = self.tags.get((repository, reference), reference)
        found = self.manifests.get((repository, digest))
        if found is None:
            handler.send(404, _error("MANIFEST_UNKNOWN", "manifest unknown"))
        else:
            handler.send(200, found[1], Content_Type=found[0], Docker_Content_Digest=digest)

    def _blob(self, handler: Handler, repository: str, digest: str) -> None:
        data = self.blobs.get((repository, digest))
        if data is None:
            handler.send(404, _error("BLOB_UNKNOWN", "blob unknown"))
        elif self.store is not None:
            handler.send(307, Location=self.store.sign(digest, data))
        else:
            handler.send_part(data, self.ranges)


class TokenServer(Server):
    """A server of tokens. ``life`` is in seconds; ``identities`` are identity tokens of users."""

    def __init__(self) -> None:
        super().__init__()
        self.users: dict[str, str] = {}
        self.identities: dict[str, str] = {}
        self.anonymous = True
        self.life: int | None = 300
        self.key = "token"
        self.valid: dict[str, float] = {}

    def answer(self, handler: Handler) -> None:
        """Give a token to whom it knows, and to everybody where it should."""
        scheme, _space, value = handler.headers.get("Authorization", "").partition(" ")
        if handler.command == "POST":
            form = urllib.parse.parse_qs(handler.body.decode())
            known = form.get("refresh_token", [""])[0] in self.identities
        else:
            known = self.anonymous if not value else scheme == "Basic" and _user_of(value, self.users) is not None
        if not known:
            handler.send(401, json.dumps({"details": "incorrect username or password"}).encode())
            return
        token = f"t{len(self.valid)}-{id(self)}"
        self.valid[token] = time.monotonic() + (60 if self.life is None else self.life)
        answer: dict[str, t.Any] = {self.key: token}
        if self.life is not None:
            answer["expires_in"] = self.life
        handler.send(200, json.dumps(answer).encode(), Content_Type="application/json")

    def is_valid(self, token: str) -> bool:
        """Return whether a token may be used now."""
        return self.valid.get(token, 0.0) > time.monotonic()


class Store(Server):
    """A store of blobs on an origin of its own, by URLs with a signature that expires after so many ``uses``."""

    def __init__(self) -> None:
        super().__init__()
        self.signed: dict[str, tuple[bytes, int]] = {}
        self.uses = 1000
        self.ranges = True

    def sign(self, digest: str, data: bytes) -> str:
        """Return a URL."""
        path = f"/{digest}?signature=canary-signature-{len(self.signed)}"
        self.signed[path] = data, self.uses
        return self.url + path

    def answer(self, handler: Handler) -> None:
        """Serve what was signed, as often as it may be."""
        data, uses = self.signed.get(handler.path, (b"", 0))
        if not uses:
            handler.send(403, b"<Error><Code>ExpiredToken</Code></Error>")
            return
        self.signed[handler.path] = data, uses - 1
        handler.send_part(data, self.ranges)


class Handler(http.server.BaseHTTPRequestHandler):
    """One request to one of the servers."""

    protocol_version = "HTTP/1.1"
    body = b""

    def log_message(self, *_arguments: t.Any) -> None:
        """Quietly."""

    def do_GET(self) -> None:
        """Answer."""
        owner = t.cast(_Loopback, self.server).owner
        self.close_connection = True
        self.body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if not owner.handle(self):
            owner.answer(self)

    do_HEAD = do_POST = do_GET

    def send_part(self, data: bytes, ranges: bool = True) -> None:
        """Send all of a file, or the range that is asked for."""
        match = _RANGE.match(self.headers.get("Range", ""))
        if match is None or not ranges:
            self.send(200, data, Content_Type="application/octet-stream")
            return
        start = int(match.group(1))
        if start >= len(data):
            self.send(416)
            return
        end = min(int(match.group(2) or len(data)) + 1, len(data))
        self.send(206, data[start:end], Content_Range=f"bytes {start}-{end - 1}/{len(data)}")

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send an answer, cut off if the server has a cut for it."""
        owner = t.cast(_Loopback, self.server).owner
        sent = body if self.command != "HEAD" else b""
        if sent and owner.cuts and len(sent) > owner.cuts[0]:
            sent = sent[: owner.cuts.pop(0)]
        given = {name.lower(): value for name, value in self.headers.items()}
        # noted before it goes out, so that a test which has all of it sees this too
        owner.asked.append(Asked(self.command, self.path, given, self.body, status, len(sent)))
        self.send_response(status)
        if "Content_Length" not in headers and "Transfer_Encoding" not in headers:
            headers["Content_Length"] = str(len(body))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        with contextlib.suppress(OSError):
            if owner.held_at is not None and len(sent) > owner.held_at:
                self.wfile.write(sent[: owner.held_at])
                owner.released.wait(_LONGEST_HOLD)
                sent = sent[owner.held_at :]
            if owner.pause:
                for start in range(0, len(sent), 64 * 1024):
                    self.wfile.write(sent[start : start + 64 * 1024])
                    time.sleep(owner.pause)
            else:
                self.wfile.write(sent)


class _Loopback(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, owner: Server, address: str, tls: ssl.SSLContext | None) -> None:
        super().__init__((address, 0), Handler)
        self.owner = owner
        owner.host = f"{address}:{self.server_port}"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
            owner.scheme = "https"

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """Clients hang up, and that is no news."""


_Any = t.TypeVar("_Any", bound=Server)


@contextlib.contextmanager
def serving(owner: _Any, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> t.Iterator[_Any]:
    """A server, for that long. Other addresses of loopback are other hosts."""
    server = _Loopback(owner, address, tls)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield owner
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def media_type_of(data: bytes) -> str:
    """Return what a document of an image is, empty for anything but a manifest or index."""
    try:
        value = json.loads(data)
    except ValueError:
        return ""
    if not isinstance(value, dict):
        return ""
    if "manifests" in value:
        return str(value.get("mediaType") or INDEX)
    return str(value.get("mediaType") or MANIFEST) if "layers" in value and "config" in value else ""


def sha256(data: bytes) -> str:
    """Return a digest."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def basic(user: str, password: str) -> str:
    """Return the value of ``auth`` in a file of docker's."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def _user_of(value: str, users: dict[str, str]) -> str | None:
    with contextlib.suppress(ValueError):
        user, _colon, password = base64.b64decode(value).decode().partition(":")
        if users.get(user) == password:
            return user
    return None


def _error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()
