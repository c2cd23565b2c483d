# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long tokens are used, by a clock that the tests move (docs/behaviour.md, section 11)."""

from __future__ import annotations

import email.utils
import json
import os
import time
import types
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._registry import token
from ansible_collections.hypervisor.oci.plugins.module_utils._remote import retries
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file
from ansible_collections.hypervisor.oci.tests.unit import registry as stub
from ansible_collections.hypervisor.oci.tests.unit.registry import Handler, Registry, TokenServer, serving
from ansible_collections.hypervisor.oci.tests.unit.support import contents, run, without_waiting

BIG = Layer(file("big", os.urandom(600_000)))
IMAGE = Image([BIG])
USER = {"url_username": "user", "url_password": "canary-registry"}


class FakeTime:
    """The time of tokens, in seconds; nothing else is measured by it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture(name="clock")
def fixture_clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """One clock for the client's tokens and for the server of tokens; pauses are short."""
    without_waiting(monkeypatch)
    monkeypatch.setattr(retries, "_FIRST_PAUSE", 0.01)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    clock = FakeTime()
    monkeypatch.setattr(token, "time", clock)
    monkeypatch.setattr(stub, "time", types.SimpleNamespace(monotonic=clock.monotonic, sleep=time.sleep))
    return clock


@pytest.fixture(name="registry")
def fixture_registry(clock: FakeTime) -> t.Iterator[Registry]:
    """A registry that wants tokens."""
    with serving(Registry()) as registry, serving(TokenServer()) as tokens:
        registry.push("app", "1", IMAGE)
        registry.users = tokens.users = {"user": "canary-registry"}
        registry.auth, registry.tokens = "bearer", tokens
        tokens.anonymous = False
        yield registry


def tokens_of(registry: Registry) -> TokenServer:
    """The server of its tokens."""
    return t.cast(TokenServer, registry.tokens)


def pull(registry: Registry, tmp_path: Path, **changes: t.Any) -> dict[str, t.Any]:
    """Provision from the registry."""
    changes = {"src": f"docker://{registry.host}/app:1", "registry_plain_http": True, "url_retries": 1, **changes}
    return run(tmp_path / "dest" / "root", **{**USER, **changes})


def statuses(registry: Registry) -> list[int]:
    """The status of each request."""
    return [asked.status for asked in registry.asked]


@pytest.mark.parametrize("skew", [-600, 0, 600])
@pytest.mark.parametrize(("life", "takes"), [(5, 20), (30, 40), (60, 61)])
def test_a_blob_that_takes_longer_than_its_token_lives(
    registry: Registry, clock: FakeTime, tmp_path: Path, life: int, takes: int, skew: int
) -> None:
    """It is cut once: the token is renewed before the rest is asked for, whatever the servers' clocks say."""
    tokens = tokens_of(registry)
    registry.cuts = [400_000]
    said = {"Date": email.utils.formatdate(time.time() + skew, usegmt=True)}

    def slow(handler: Handler) -> bool:
        if "Range" not in handler.headers and BIG.digest in handler.path:
            registry.answer(handler)
            clock.now += takes
            return True
        return False

    def give(handler: Handler) -> bool:
        name = f"t{len(tokens.asked)}"
        tokens.valid[name] = clock.now + life
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + skew))
        body = {"token": name, "expires_in": life, "issued_at": issued}
        handler.send(200, json.dumps(body).encode(), **said)
        return True

    registry.handle, tokens.handle = slow, give
    pull(registry, tmp_path)
    assert list(contents(tmp_path / "dest" / "root")) == ["big"]
    assert len(tokens.asked) == 2
    assert statuses(registry) == [401, 200, 200, 200, 206]


@pytest.mark.parametrize("life", [5, 30, 60])
def test_a_token_is_used_as_long_as_it_lives(registry: Registry, clock: FakeTime, tmp_path: Path, life: int) -> None:
    """Each request takes a tenth of its life, so that one is enough for all of them."""
    tokens_of(registry).life = life

    def slow(handler: Handler) -> bool:
        clock.now += life / 10
        return False

    registry.handle = slow
    pull(registry, tmp_path)
    assert len(tokens_of(registry).asked) == 1 and statuses(registry) == [401, 200, 200, 200]


@pytest.mark.parametrize("life", [5, 30, 60])
def test_a_token_lives_from_its_receipt_on(registry: Registry, clock: FakeTime, tmp_path: Path, life: int) -> None:
    """Its server was busy before: what was waited for that is no part of its life."""
    tokens = tokens_of(registry)
    tokens.life = life
    busy = [429]

    def limited(handler: Handler) -> bool:
        if not busy:
            return False
        handler.send(busy.pop(), Retry_After="0")
        clock.now += life
        return True

    tokens.handle = limited
    pull(registry, tmp_path)
    assert [asked.status for asked in tokens.asked] == [429, 200]


@pytest.mark.parametrize("life", [5, 30, 60])
def test_a_token_that_expires_early_is_renewed_once_for_each_request(
    registry: Registry, clock: FakeTime, tmp_path: Path, life: int
) -> None:
    """The registry's clock runs ahead: it takes no token for longer than two requests."""
    tokens = tokens_of(registry)
    tokens.life = life
    uses: dict[str, int] = {}

    def strict(handler: Handler) -> bool:
        value = handler.headers.get("Authorization", "").partition(" ")[2]
        uses[value] = uses.get(value, 0) + 1
        if uses[value] > 2:
            tokens.valid[value] = 0.0
        return False

    registry.handle = strict
    pull(registry, tmp_path)
    assert statuses(registry) == [401, 200, 200, 401, 200] and len(tokens.asked) == 2


def test_a_user_who_is_revoked_in_the_middle(registry: Registry, tmp_path: Path) -> None:
    """The rest is refused, and the error says by whom. What came before is of no use to anybody else."""
    tokens = tokens_of(registry)
    registry.cuts = [400_000]

    def revoke(handler: Handler) -> bool:
        if "Range" in handler.headers:
            tokens.valid.clear()
            tokens.users = {"heir": "canary-heir"}
        return False

    registry.handle = revoke
    with pytest.raises(OciError, match="gives 'user' no token") as caught:
        pull(registry, tmp_path)
    assert "canary" not in caught.value.message
    registry.asked.clear()
    registry.handle = lambda _handler: False
    pull(registry, tmp_path, url_username="heir", url_password="canary-heir")
    assert "range" not in registry.log().lower()
