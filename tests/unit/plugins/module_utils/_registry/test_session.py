# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who gets which credentials: challenges, tokens, realms, redirects and mirrors (docs/behaviour.md, section 11)."""

from __future__ import annotations

import json
import os
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._registry import session, token
from ansible_collections.hypervisor.oci.plugins.module_utils._registry.client import RegistryClient
from ansible_collections.hypervisor.oci.plugins.module_utils._registry.name import parse_name
from ansible_collections.hypervisor.oci.plugins.module_utils._registry.options import RegistryOptions, parse_mirror
from ansible_collections.hypervisor.oci.plugins.module_utils._remote import retries
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file
from ansible_collections.hypervisor.oci.tests.unit.authority import Authority
from ansible_collections.hypervisor.oci.tests.unit import registry as stub
from ansible_collections.hypervisor.oci.tests.unit.registry import (
    Handler,
    Registry,
    Server,
    Store,
    TokenServer,
    basic,
    serving,
)
from ansible_collections.hypervisor.oci.tests.unit.clocks import Clock
from ansible_collections.hypervisor.oci.tests.unit.support import contents, run, without_waiting

LAYER = Layer(file("big", os.urandom(800_000)))
IMAGE = Image([LAYER])
USER = {"url_username": "user", "url_password": "canary-registry"}


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)
    monkeypatch.setattr(retries, "_FIRST_PAUSE", 0.01)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(name="authority", scope="module")
def fixture_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority for all servers."""
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(name="registry")
def fixture_registry() -> t.Iterator[Registry]:
    """A registry over http, with a user."""
    with serving(Registry()) as registry:
        registry.users = {"user": "canary-registry"}
        registry.push("app", "1", IMAGE)
        yield registry


@pytest.fixture(name="tokens")
def fixture_tokens(registry: Registry) -> t.Iterator[TokenServer]:
    """The registry's server of tokens, for that user alone."""
    with serving(TokenServer()) as tokens:
        tokens.users = registry.users
        tokens.anonymous = False
        registry.auth, registry.tokens = "bearer", tokens
        yield tokens


def pull(registry: Registry, tmp_path: Path, **changes: t.Any) -> dict[str, t.Any]:
    """Provision from the registry."""
    plain = registry.scheme == "http"
    changes = {"src": f"docker://{registry.host}/app:1", "registry_plain_http": plain, "url_retries": 1, **changes}
    return run(tmp_path / "dest" / "root", **changes)


def problem(registry: Registry, tmp_path: Path, **changes: t.Any) -> str:
    """What a pull says that fails."""
    with pytest.raises(OciError) as caught:
        pull(registry, tmp_path, **changes)
    assert "canary" not in caught.value.message
    return caught.value.message


def auth_file(tmp_path: Path, **entries: t.Any) -> str:
    """A file with these entries, each a user and password or an entry."""
    path = tmp_path / "auth.json"
    auths = {key: {"auth": basic(*entry)} if isinstance(entry, tuple) else entry for key, entry in entries.items()}
    path.write_text(json.dumps({"auths": auths}))
    return str(path)


def client(registry: Registry, tokens: token.Tokens | None = None, **changes: t.Any) -> RegistryClient:
    """A client of the registry."""
    options = RegistryOptions(plain_http=True, retries=1, **changes)
    return RegistryClient(parse_name(f"docker://{registry.host}/app:1"), options, tokens)


# -- challenges


def test_basic(registry: Registry, tmp_path: Path) -> None:
    registry.auth = "basic"
    pull(registry, tmp_path, **USER)
    assert [asked.status for asked in registry.asked] == [401, 200, 200, 200]
    assert "an anonymous client may not pull" in problem(registry, tmp_path / "x")
    registry.asked.clear()
    message = problem(registry, tmp_path / "x", url_username="user", url_password="canary-wrong")
    assert "the user 'user' may not pull the tag '1'" in message and "private or missing" in message
    assert "UNAUTHORIZED: authentication required" in message and "registry_auth_file" in message
    assert [asked.status for asked in registry.asked] == [401, 401]


def test_basic_at_once(registry: Registry, tmp_path: Path) -> None:
    registry.auth = "basic"
    pull(registry, tmp_path, force_basic_auth=True, **USER)
    assert [asked.status for asked in registry.asked] == [200, 200, 200]


def test_a_token_for_a_user(registry: Registry, tokens: TokenServer, tmp_path: Path) -> None:
    pull(registry, tmp_path, **USER)
    assert tokens.asked[0].headers["authorization"] == "Basic " + basic("user", "canary-registry")
    assert "canary" not in registry.log()
    message = problem(registry, tmp_path / "x")
    assert "gives an anonymous client no token" in message and "incorrect username or password" in message
    assert "gives 'user' no token" in problem(registry, tmp_path / "x", url_username="user", url_password="canary-no")


@pytest.mark.parametrize(
    "challenge",
    ['Negotiate, Basic realm="x", {}', "Negotiate abc==, {}", 'Bearer service="without a realm", {}', "{}, Basic"],
)
def test_several_challenges(registry: Registry, tokens: TokenServer, tmp_path: Path, challenge: str) -> None:
    plain = registry.challenge
    registry.challenge = lambda handler: challenge.format(plain(handler))  # type: ignore[method-assign]
    pull(registry, tmp_path, **USER)
    assert len(tokens.asked) == 1 and tokens.asked[0].status == 200


def test_several_headers(registry: Registry, tokens: TokenServer, tmp_path: Path) -> None:
    def two(handler: Handler) -> bool:
        if "Authorization" in handler.headers:
            return False
        handler.send(401, www_authenticate="Negotiate", WWW_Authenticate=registry.challenge(handler))
        return True

    registry.handle = two
    pull(registry, tmp_path, **USER)
    assert len(tokens.asked) == 1


@pytest.mark.parametrize("challenge", ["", "Negotiate", 'Digest realm="x"', "Bearer", 'Bearer realm=""'])
def test_challenges_that_cannot_be_answered(registry: Registry, tmp_path: Path, challenge: str) -> None:
    registry.auth = "bearer"
    registry.challenge = lambda handler: challenge  # type: ignore[method-assign]
    assert "may not pull" in problem(registry, tmp_path, **USER)
    assert len(registry.asked) == 1


def test_the_scope_is_ours(registry: Registry, tokens: TokenServer, tmp_path: Path) -> None:
    """The stub asks for push and delete, too."""
    pull(registry, tmp_path, **USER)
    assert "scope=repository%3Aapp%3Apull" in tokens.asked[0].path
    assert "push" not in tokens.asked[0].path and "delete" not in tokens.asked[0].path


def test_an_authorization_of_ones_own(registry: Registry, tokens: TokenServer, tmp_path: Path) -> None:
    tokens.valid["mine"] = time.monotonic() + 100
    pull(registry, tmp_path, headers={"Authorization": "Bearer mine"})
    assert tokens.asked == []
    message = problem(registry, tmp_path / "x", headers={"authorization": "Bearer canary"})
    assert "may not pull" in message and tokens.asked == []


@pytest.mark.parametrize("key", ["token", "access_token"])
def test_names_of_a_token(registry: Registry, tokens: TokenServer, tmp_path: Path, key: str) -> None:
    tokens.key = key
    pull(registry, tmp_path, **USER)


def test_an_identity_token(registry: Registry, tokens: TokenServer, tmp_path: Path) -> None:
    tokens.identities = {"canary-identity": "user"}
    tokens.key = "access_token"
    entry = {"identitytoken": "canary-identity", "auth": basic("00000000-0000-0000-0000-000000000000", "")}
    pull(registry, tmp_path, registry_auth_file=auth_file(tmp_path, **{registry.host: entry}))
    asked = tokens.asked[0]
    assert (asked.method, asked.path) == ("POST", "/token") and "authorization" not in asked.headers
    assert b"grant_type=refresh_token" in asked.body and b"refresh_token=canary-identity" in asked.body
    assert b"scope=repository%3Aapp%3Apull" in asked.body and b"service=the%2C+stub" in asked.body
    assert "canary" not in registry.log()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"token": 7}',
        b'{"token": ""}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": "\\u00e4"}',
        b'{"token": "x", "expires_in": "soon"}',
        b'{"token": "' + b"x" * 70_000 + b'"}',
        b" " * 300_000,
        b"[" * 100_000,
    ],
)
def test_answers_without_a_token(registry: Registry, tokens: TokenServer, tmp_path: Path, body: bytes) -> None:
    def odd(handler: Handler) -> bool:
        handler.send(200, body)
        return True

    tokens.handle = odd
    message = problem(registry, tmp_path, **USER)
    assert f"{tokens.url}/token" in message and len(tokens.asked) == 1


# -- lives of tokens


@pytest.mark.parametrize("life", [None, -5, 0, 10**15])
def test_lives_that_are_odd(registry: Registry, tokens: TokenServer, tmp_path: Path, life: int | None) -> None:
    def give(handler: Handler) -> bool:
        tokens.valid["x"] = time.monotonic() + 100
        handler.send(200, json.dumps({"token": "x", "expires_in": life}).encode())
        return True

    tokens.handle = give
    pull(registry, tmp_path, **USER)
    assert len(tokens.asked) == 1


def test_a_token_is_renewed_before_it_expires(
    registry: Registry, tokens: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blob, which is cut in the middle, takes longer than it lives."""
    clock = Clock()
    for module in (token, stub):
        monkeypatch.setattr(module, "time", clock)
    tokens.life = 10
    registry.cuts = [700_000]

    def slow(handler: Handler) -> bool:
        if LAYER.digest not in handler.path or "Range" in handler.headers:
            return False
        registry.answer(handler)
        # the client does not know yet that nothing more comes
        clock.now += 11
        return True

    registry.handle = slow
    pull(registry, tmp_path, **USER)
    assert len(tokens.asked) == 2
    # the first challenge alone
    assert [asked.status for asked in registry.asked].count(401) == 1


def test_a_token_that_is_revoked_is_renewed_once(registry: Registry, tokens: TokenServer, tmp_path: Path) -> None:
    registry.cuts = [400_000]

    def revoke(handler: Handler) -> bool:
        if "Range" in handler.headers and len(tokens.asked) == 1:
            tokens.valid.clear()
        return False

    registry.handle = revoke
    pull(registry, tmp_path, **USER)
    assert len(tokens.asked) == 2
    assert [asked.status for asked in registry.asked] == [401, 200, 200, 200, 401, 206]


def test_a_token_that_is_refused_at_once_is_not_asked_for_again(
    registry: Registry, tokens: TokenServer, tmp_path: Path
) -> None:
    def refuse(handler: Handler) -> bool:
        tokens.valid.clear()
        return False

    registry.handle = refuse
    message = problem(registry, tmp_path, **USER)
    assert "the user 'user' may not pull" in message
    assert len(tokens.asked) == 1 and [asked.status for asked in registry.asked] == [401, 401]


def test_any_number_of_blobs_wait_for_one_token(registry: Registry, tokens: TokenServer) -> None:
    tokens.pause = 0.1
    shared = token.Tokens()
    clients = [client(registry, shared, username="user", password="canary-registry") for _number in range(8)]
    failures: list[BaseException] = []

    def fetch(one: RegistryClient) -> None:
        try:
            one.manifest("1")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=fetch, args=(one,)) for one in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and len(tokens.asked) == 1


def test_accounts_do_not_share_tokens(registry: Registry, tokens: TokenServer) -> None:
    """Of two clients with different credentials, one is entitled, and the other gets nothing."""
    shared = token.Tokens()
    client(registry, shared, username="user", password="canary-registry").manifest("1")
    wrong = [{"username": "other", "password": "canary-other"}, {"username": "user", "password": "canary-other"}]
    for changes in ({}, *wrong):
        with pytest.raises(OciError, match="no token"):
            client(registry, shared, **changes).manifest("1")


# -- realms


@pytest.mark.parametrize(
    ("realm", "words"),
    [
        ("/token", "not an absolute http or https URL"),
        ("token", "not an absolute http or https URL"),
        ("ftp://127.0.0.1/token", "not an absolute http or https URL"),
        ("http://127.0.0.2:1/token", "not protected by https"),
        ("http://user:canary@127.0.0.1:1/token", "names a user or password"),
        ("http://127.0.0.1:1/token#x", "not an absolute http or https URL"),
        ("https://", "not a valid URL"),
        ("https://a b/", "not a valid URL"),
    ],
)
def test_realms_that_get_nothing(registry: Registry, tmp_path: Path, realm: str, words: str) -> None:
    registry.auth = "bearer"
    registry.challenge = lambda handler: f'Bearer realm="{realm}"'  # type: ignore[method-assign]
    assert words in problem(registry, tmp_path, **USER)


def test_a_realm_over_http_is_refused_by_a_registry_over_https(authority: Authority, tmp_path: Path) -> None:
    with serving(Registry(), tls=authority.context()) as registry, serving(TokenServer()) as tokens:
        registry.auth, registry.tokens = "bearer", tokens
        assert "not protected by https" in problem(registry, tmp_path, ca_path=authority.ca, **USER)
        assert tokens.asked == []


def test_a_token_server_that_redirects_elsewhere(registry: Registry, tokens: TokenServer, tmp_path: Path) -> None:
    with serving(Server(), "127.0.0.2") as thief:

        def redirect(handler: Handler) -> bool:
            handler.send(307, Location=f"{thief.url}/token")
            return True

        tokens.handle = redirect
        assert "which gets no credentials" in problem(registry, tmp_path, **USER)
        assert thief.asked == []


def test_a_realm_with_a_query_of_its_own(registry: Registry, tokens: TokenServer, tmp_path: Path) -> None:
    registry.challenge = lambda handler: f'Bearer realm="{tokens.url}/token?a=b"'  # type: ignore[method-assign]
    pull(registry, tmp_path, **USER)
    assert tokens.asked[0].path == "/token?a=b&scope=repository%3Aapp%3Apull"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("registry-1.docker.io", "auth.docker.io", True),
        ("a.example.co.uk", "b.example.co.uk", True),
        ("a.co.uk", "b.co.uk", False),
        ("ghcr.io", "ghcr.io", True),
        ("ghcr.io", "quay.io", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.1.0.1", False),
        ("::1", "::2", False),
        ("localhost", "localhost", True),
        ("localhost", "other", False),
    ],
)
def test_domains(one: str, other: str, expected: bool) -> None:
    assert session.same_domain(one, other) is expected


def test_a_realm_elsewhere_is_remembered_and_must_not_change(authority: Authority, tmp_path: Path) -> None:
    """Credentials go to a changed realm only when the task's file names it."""
    tls = authority.context()
    with serving(Registry(), tls=tls) as registry, serving(TokenServer(), "127.0.0.2", tls=tls) as first, serving(
        TokenServer(), "127.0.0.3", tls=tls
    ) as second:
        users = {"user": "canary-registry"}
        registry.push("app", "1", IMAGE)
        registry.auth, registry.tokens = "bearer", first
        first.users = second.users = users
        pull(registry, tmp_path, ca_path=authority.ca, **USER)
        other = Image([Layer(file("other", b"other"))])
        registry.push("app", "1", other)
        registry.tokens = second
        message = problem(registry, tmp_path, ca_path=authority.ca, **USER)
        assert f"sends credentials to '{second.url}' now, and sent them to '{first.url}' before" in message
        assert second.asked == []
        named = auth_file(tmp_path, **{second.host: ("nobody", "canary-realm")})
        result = pull(registry, tmp_path, ca_path=authority.ca, registry_auth_file=named, **USER)
        assert result["changed"] and "canary-realm" not in second.log() + registry.log()
        # it is the known one now
        registry.push("app", "1", IMAGE)
        assert pull(registry, tmp_path, ca_path=authority.ca, **USER)["changed"]
        registry.tokens = first
        assert "sends credentials" in problem(registry, tmp_path, ca_path=authority.ca, **USER)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_a_realm_must_not_change_within_a_run_either(authority: Authority, tmp_path: Path, address: str) -> None:
    """The first realm, the registry's own or another one, gives a token, and the next challenge names a third server."""
    tls = authority.context()
    with serving(Registry(), tls=tls) as registry, serving(TokenServer(), address, tls=tls) as first, serving(
        TokenServer(), "127.0.0.3", tls=tls
    ) as second:
        registry.push("app", "1", IMAGE)
        registry.auth, registry.tokens = "bearer", first
        first.users = second.users = {"user": "canary-registry"}

        def change(handler: Handler) -> bool:
            if "/blobs/" in handler.path:
                registry.tokens = second
            return False

        registry.handle = change
        message = problem(registry, tmp_path, ca_path=authority.ca, **USER)
        assert f"sends credentials to '{second.url}' now, and sent them to '{first.url}' before" in message
        assert len(first.asked) == 1 and second.asked == []


def test_an_anonymous_client_follows_any_realm(authority: Authority, tmp_path: Path) -> None:
    tls = authority.context()
    with serving(Registry(), tls=tls) as registry, serving(TokenServer(), "127.0.0.2", tls=tls) as first:
        registry.push("app", "1", IMAGE)
        registry.auth, registry.tokens = "bearer", first
        pull(registry, tmp_path, ca_path=authority.ca)
        with serving(TokenServer(), "127.0.0.3", tls=tls) as second:
            registry.tokens = second
            assert not pull(registry, tmp_path, ca_path=authority.ca)["changed"]
            assert len(second.asked) == 1


# -- TLS and plain http


def test_https_is_spoken_unless_http_is_asked_for(registry: Registry, authority: Authority, tmp_path: Path) -> None:
    assert "TLS connection" in problem(registry, tmp_path, registry_plain_http=False)
    assert registry.asked == []
    with serving(Registry(), tls=authority.context()) as secure:
        secure.push("app", "1", IMAGE)
        assert "is not trusted" in problem(secure, tmp_path)
        pull(secure, tmp_path, ca_path=authority.ca)
        pull(secure, tmp_path / "x", validate_certs=False)


def test_the_client_certificate_stays_at_the_registry(authority: Authority, tmp_path: Path) -> None:
    """The store and the token server want one, and do not get it."""
    own = {"ca_path": authority.ca, "client_cert": authority.cert, "client_key": authority.key}
    context = authority.context(wants_client=True)
    with serving(Registry(), tls=context) as registry:
        registry.push("app", "1", IMAGE)
        pull(registry, tmp_path, **own)
        with serving(Store(), "127.0.0.2", tls=context) as store:
            registry.store = store
            problem(registry, tmp_path / "x", **own)
            assert store.asked == []


# -- canaries: a password of its own for each origin


def test_every_password_stays_where_it_belongs(authority: Authority, tmp_path: Path) -> None:
    tls = authority.context()
    with serving(Registry(), tls=tls) as registry, serving(TokenServer(), tls=tls) as tokens, serving(
        Store(), "127.0.0.2", tls=tls
    ) as store, serving(Registry(), "127.0.0.3", tls=tls) as mirror:
        registry.push("app", "1", IMAGE)
        mirror.push("cache/app", "1", IMAGE)
        del mirror.blobs["cache/app", LAYER.digest]
        tokens.users = {"user": "canary-registry"}
        tokens.anonymous = False
        registry.auth, registry.tokens, registry.store = "bearer", tokens, store
        mirror.auth, mirror.users = "basic", {"mirror-user": "canary-mirror"}
        entries: dict[str, t.Any] = {
            f"{registry.host}/app": ("user", "canary-registry"),
            registry.host: ("other", "canary-parent"),
            f"{mirror.host}/cache": ("mirror-user", "canary-mirror"),
            store.host: ("store-user", "canary-store"),
        }
        result = pull(
            registry,
            tmp_path,
            registry_auth_file=auth_file(tmp_path, **entries),
            registry_mirrors=[f"{mirror.host}/cache"],
            ca_path=authority.ca,
            headers={"X-Canary": "canary-header"},
        )
        assert contents(tmp_path / "dest" / "root") == {"big": LAYER.tar[512 : 512 + 800_000]}
        seen = {name: server.log() for name, server in vars_of(registry, tokens, store, mirror).items()}
        where = {
            "canary-header": {"registry"},
            basic("user", "canary-registry"): {"tokens"},
            basic("mirror-user", "canary-mirror"): {"mirror"},
            basic("other", "canary-parent"): set(),
            basic("store-user", "canary-store"): set(),
            "canary-": {"registry", "store"},
            next(iter(tokens.valid)): {"registry"},
        }
        for secret, places in where.items():
            assert {name for name, log in seen.items() if secret in log} == places, secret
        assert any("authorization" in asked.headers for asked in mirror.asked)
        assert "canary" not in json.dumps(result)
    left = [path for path in (tmp_path / "dest").rglob("*") if path.is_file()]
    assert left and not any(b"canary" in path.read_bytes() for path in left)


def vars_of(registry: Registry, tokens: TokenServer, store: Store, mirror: Registry) -> dict[str, Server]:
    """Servers by name."""
    return {"registry": registry, "tokens": tokens, "store": store, "mirror": mirror}


# -- mirrors


@pytest.fixture(name="mirror")
def fixture_mirror() -> t.Iterator[Registry]:
    """A mirror that has the image below a prefix."""
    with serving(Registry(), "127.0.0.4") as mirror:
        mirror.push("cache/app", "1", IMAGE)
        yield mirror


def test_a_mirror_serves_digests_alone(registry: Registry, mirror: Registry, tmp_path: Path) -> None:
    result = pull(registry, tmp_path, registry_mirrors=[f"{mirror.host}/cache"])
    assert registry.paths() == ["GET /v2/app/manifests/1 200"]
    base = "GET /v2/cache/app/blobs/"
    assert mirror.paths() == [f"{base}{IMAGE.config_digest} 200", f"{base}{LAYER.digest} 200"]
    assert result["warnings"] == []


def test_a_pinned_image_comes_from_the_mirror_alone(registry: Registry, mirror: Registry, tmp_path: Path) -> None:
    pull(registry, tmp_path, registry_mirrors=[f"{mirror.host}/cache"], digest=IMAGE.digest)
    assert registry.asked == [] and len(mirror.asked) == 3


@pytest.mark.parametrize(
    "fault", ["absent", "manifest", "blob", "wrong manifest", "wrong config", "wrong blob", "size", "busy", "cut"]
)
def test_what_a_mirror_lacks_comes_from_the_registry(
    registry: Registry, mirror: Registry, tmp_path: Path, fault: str
) -> None:
    key, blob = ("cache/app", IMAGE.digest), ("cache/app", LAYER.digest)
    prefix = "cache"
    if fault == "absent":
        prefix = "nothing"
    elif fault == "manifest":
        del mirror.manifests[key]
    elif fault == "blob":
        del mirror.blobs[blob]
    elif fault == "wrong manifest":
        mirror.manifests[key] = mirror.manifests[key][0], mirror.manifests[key][1] + b" "
    elif fault == "wrong config":
        data = mirror.blobs["cache/app", IMAGE.config_digest]
        mirror.blobs["cache/app", IMAGE.config_digest] = data[:-1] + b" "
    elif fault == "wrong blob":
        mirror.blobs[blob] = LAYER.data[:500_000] + b"x" + LAYER.data[500_001:]
    elif fault == "size":
        mirror.blobs[blob] = LAYER.data + b"x"
    elif fault == "busy":

        def busy(handler: Handler) -> bool:
            handler.send(429, Retry_After="3600")
            return True

        mirror.handle = busy
    else:
        mirror.cuts = [500_000]
    result = pull(registry, tmp_path, registry_mirrors=[f"{mirror.host}/{prefix}"], digest=IMAGE.digest)
    assert contents(tmp_path / "dest" / "root") == {"big": LAYER.tar[512 : 512 + 800_000]}
    assert any(mirror.host in warning for warning in result["warnings"])
    assert registry.asked
    if fault == "cut":
        assert [asked.headers["range"] for asked in registry.asked] == ["bytes=500000-"]


def test_a_mirror_that_is_down_costs_one_try(registry: Registry, tmp_path: Path) -> None:
    with serving(Registry(), "127.0.0.5") as gone:
        host = gone.host
    began = time.monotonic()
    result = pull(registry, tmp_path, registry_mirrors=[host], digest=IMAGE.digest)
    assert time.monotonic() - began < 5
    assert len([warning for warning in result["warnings"] if host in warning]) == 1


def test_a_second_mirror_is_asked_before_the_registry(registry: Registry, mirror: Registry, tmp_path: Path) -> None:
    with serving(Registry(), "127.0.0.5") as empty:
        pull(registry, tmp_path, registry_mirrors=[empty.host, f"{mirror.host}/cache"], digest=IMAGE.digest)
        assert len(empty.asked) == 1 and len(mirror.asked) == 3 and registry.asked == []


@pytest.mark.parametrize(
    "text",
    ["", "https://m.example", "user:canary@m.example", "m.example/UPPER", "m.example/", "m_.example", "m:0", "m/a//b"],
)
def test_mirrors_that_are_none(text: str) -> None:
    with pytest.raises(OciError, match="registry_mirrors") as caught:
        parse_mirror(text)
    assert "canary" not in caught.value.message
