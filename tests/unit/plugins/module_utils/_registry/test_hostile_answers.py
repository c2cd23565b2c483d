# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Answers of registries, stores and token servers that are not what was asked for (docs/behaviour.md, section 11)."""

from __future__ import annotations

import contextlib
import gzip
import os
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.digest import Digest
from ansible_collections.hypervisor.oci.plugins.module_utils._registry.client import RegistryClient
from ansible_collections.hypervisor.oci.plugins.module_utils._registry.name import parse_name
from ansible_collections.hypervisor.oci.plugins.module_utils._registry.options import RegistryOptions
from ansible_collections.hypervisor.oci.plugins.module_utils._remote import retries
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file
from ansible_collections.hypervisor.oci.tests.unit.authority import Authority
from ansible_collections.hypervisor.oci.tests.unit.registry import Handler, Registry, Server, TokenServer, serving
from ansible_collections.hypervisor.oci.tests.unit.remote import noise, waited
from ansible_collections.hypervisor.oci.tests.unit.web import endless, talking

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_CHUNK = b"10000\r\n" + b" " * 65536 + b"\r\n"
LAYER = Layer(file("f", noise(5_000)))
IMAGE = Image([LAYER])
BLOB = Digest(str(LAYER.digest))
KINDS = ["manifest", "digest", "blob", "head", "token"]


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_PAUSE", 0.01)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(name="registry")
def fixture_registry() -> t.Iterator[Registry]:
    """A registry with the image and a server of tokens."""
    with serving(Registry()) as registry, serving(TokenServer()) as tokens:
        registry.push("app", "1", IMAGE)
        registry.tokens = tokens
        yield registry


def client(host: str, plain: bool = True, **changes: t.Any) -> RegistryClient:
    """A client that soon gives up."""
    options = RegistryOptions(**{"plain_http": plain, "retries": 1, "timeout": 1.0, **changes})
    return RegistryClient(parse_name(f"docker://{host}/app:1"), options)


def ask(one: RegistryClient, kind: str) -> t.Any:
    """Ask for something of this kind."""
    if kind == "blob":
        return one.blob_data(BLOB, LAYER.size)
    if kind == "head":
        return one.current_digest("1")
    return one.manifest(Digest(str(IMAGE.digest)) if kind == "digest" else "1")


def attacked(registry: Registry, kind: str) -> Server:
    """Return the server that answers a request of this kind."""
    if kind != "token":
        return registry
    registry.auth = "bearer"
    return t.cast(TokenServer, registry.tokens)


def problem(one: RegistryClient, kind: str) -> str:
    """What asking says that fails."""
    with pytest.raises(OciError) as caught:
        ask(one, kind)
    return caught.value.message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        _OK + b"a: b\r\n" * 200 + b"\r\n",
        _OK + b"a: " + b"b" * 70000 + b"\r\n\r\n",
        b"",
    ],
)
def test_what_is_no_http(registry: Registry, kind: str, answer: bytes) -> None:
    def say(handler: Handler) -> bool:
        handler.wfile.write(answer)
        return True

    attacked(registry, kind).handle = say
    assert "(2 tries)" in problem(client(registry.host), kind)


@pytest.mark.parametrize("kind", ["manifest", "blob", "token"])
@pytest.mark.parametrize("size", [b"zz", b"-1", b"FFFFFFFFFFFFFFFFFF"])
def test_chunks_of_no_size(registry: Registry, kind: str, size: bytes) -> None:
    def say(handler: Handler) -> bool:
        handler.wfile.write(_OK + _CHUNKED + size + b"\r\n{}\r\n0\r\n\r\n")
        return True

    attacked(registry, kind).handle = say
    assert problem(client(registry.host), kind)


@pytest.mark.parametrize("kind", ["manifest", "digest", "blob", "token"])
@pytest.mark.parametrize("first", [_OK, b"HTTP/1.1 404 Not Found\r\n", b"HTTP/1.1 403 Forbidden\r\n"])
def test_a_body_without_end_at_full_speed(registry: Registry, kind: str, first: bytes) -> None:
    """A limit for documents and tokens, the descriptor's size for blobs, and the beginning alone of refusals."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(talking(endless(first + _CHUNKED, _CHUNK)))
        host = f"127.0.0.1:{port}"
        if kind == "token":
            registry.auth = "bearer"
            registry.challenge = lambda handler: f'Bearer realm="http://{host}/t"'  # type: ignore[method-assign]
        one = client(registry.host if kind == "token" else host, retries=0)
        said, took = waited(lambda: problem(one, kind))
    assert said and took < 5


@pytest.mark.parametrize("kind", ["manifest", "digest", "blob", "token"])
@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "zstd", "identity, gzip"])
def test_a_body_that_is_encoded_is_refused(registry: Registry, kind: str, encoding: str) -> None:
    """No bomb is unpacked: such bodies are not asked for."""

    def encode(handler: Handler) -> bool:
        handler.send(200, gzip.compress(b" " * 100_000), Content_Encoding=encoding)
        return True

    attacked(registry, kind).handle = encode
    assert "as it is" in problem(client(registry.host), kind)


@pytest.mark.parametrize("kind", ["manifest", "digest", "token"])
@pytest.mark.parametrize("length", [1, 10, 99_999])
def test_a_document_of_another_length(registry: Registry, kind: str, length: int) -> None:
    def lie(handler: Handler) -> bool:
        body = b'{"token": "x"}' if kind == "token" else IMAGE.data
        handler.send(200, body, Content_Length=str(length), Content_Type="application/vnd.oci.image.manifest.v1+json")
        return True

    attacked(registry, kind).handle = lie
    assert problem(client(registry.host), kind)


@pytest.mark.parametrize("kind", ["manifest", "digest", "blob", "token"])
@pytest.mark.parametrize("status", [204, 206, 304, 418])
def test_a_status_that_nobody_asked_for(registry: Registry, kind: str, status: int) -> None:
    def say(handler: Handler) -> bool:
        handler.send(status, b"" if status in (204, 304) else b"{}")
        return True

    attacked(registry, kind).handle = say
    assert problem(client(registry.host), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_https_never_redirects_to_http(authority: Authority, kind: str) -> None:
    tls = authority.context()
    with serving(Registry(), tls=tls) as registry, serving(TokenServer(), tls=tls) as tokens, serving(
        Server()
    ) as plain:
        registry.tokens = tokens

        def redirect(handler: Handler) -> bool:
            handler.send(302, Location=f"{plain.url}/x")
            return True

        attacked(registry, kind).handle = redirect
        assert "not protected" in problem(client(registry.host, False, ca_path=authority.ca), kind)
        assert plain.asked == []


@pytest.fixture(name="authority", scope="module")
def fixture_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority for all servers."""
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("kind", ["manifest", "blob"])
def test_a_redirect_gets_no_credentials_and_its_way_back_asks_for_none(registry: Registry, kind: str) -> None:
    """A store that sends the client back to the registry's origin with a challenge there starts no token flow."""
    with serving(Server(), "127.0.0.2") as store:

        def bounce(handler: Handler) -> bool:
            if handler.path.startswith("/back"):
                handler.send(401, WWW_Authenticate=f'Bearer realm="{store.url}/token"')
            else:
                handler.send(302, Location=f"{store.url}/{kind}")
            return True

        def back(handler: Handler) -> bool:
            handler.send(302, Location=f"{registry.url}/back")
            return True

        registry.handle, store.handle = bounce, back
        message = problem(client(registry.host, username="user", password="canary"), kind)
        assert "to which it redirects" in message and "canary" not in message
        assert all("authorization" not in asked.headers for asked in store.asked)
        assert not any("token" in path for path in store.paths())


@pytest.mark.parametrize("domain", ["", "; Domain=127.0.0.2", "; Domain=.0.2"])
def test_cookies_stay_with_their_host(registry: Registry, domain: str) -> None:
    with serving(Registry(), "127.0.0.2") as store:

        def bake(handler: Handler) -> bool:
            handler.send(302, Location=f"{store.url}/x", Set_Cookie=f"a=canary{domain}")
            return True

        registry.handle = bake
        problem(client(registry.host), "blob")
        assert store.asked and "canary" not in store.log()
