# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller fetches from a registry for its nodes (docs/behaviour.md, section 7)."""

from __future__ import annotations

import concurrent.futures
import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError, SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.platform import parse_platform
from ansible_collections.hypervisor.oci.plugins.module_utils._registry import session
from ansible_collections.hypervisor.oci.plugins.module_utils._remote import retries
from ansible_collections.hypervisor.oci.plugins.module_utils._remote.url import parse_url
from ansible_collections.hypervisor.oci.plugins.module_utils._source.offer import read_offer
from ansible_collections.hypervisor.oci.plugins.plugin_utils._criteria import Criteria
from ansible_collections.hypervisor.oci.plugins.plugin_utils._fetch import (
    FetchedImage,
    FetchedStaging,
    arguments_for_node,
    is_fetched_here,
)
from ansible_collections.hypervisor.oci.plugins.plugin_utils._progress import Progress
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Index, Layer, file
from ansible_collections.hypervisor.oci.tests.unit.registry import Handler, Registry, TokenServer, basic, serving

NOISE = os.urandom(4_000_000)
BIG = Layer(file("big", NOISE), compression="none")
MORE = Layer(file("more", NOISE[:2_000_000]), compression="none")
SMALL = [Layer(file(name, name)) for name in ("a", "b")]
IMAGE = Image([BIG, MORE, *SMALL])
OTHER = Image([Layer(file("g", os.urandom(700_000)))], platform="linux/s390x")
INDEX = Index(IMAGE, OTHER)
NAMES = [layer.path for layer in IMAGE.layers]
AMD64 = Criteria(platform=parse_platform("linux/amd64"))


class Controller:
    """A controller with its local tmp; ``lines`` are what it displays."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.lines: list[str] = []

    def staging(self, src: str, criteria: Criteria = AMD64, **args: t.Any) -> FetchedStaging:
        """A staging as a fork has it."""
        given = {"src": src, "url_retries": 1, "registry_plain_http": True, "digest": criteria.digest, **args}
        image = FetchedImage(given, os.path.abspath, self.lines.append)
        return FetchedStaging(image, str(self.folder), criteria, self._progress)

    def _progress(self, sizes: dict[str, int]) -> Progress:
        return Progress("node1", sizes, lambda line, _long: self.lines.append(line), verbs=("fetching", "fetched"))

    def fork(self, src: str, **args: t.Any) -> list[str]:
        """Offer and stage all layers; return their names."""
        with self.staging(src, **args) as staging:
            offer, _status = read_offer(staging.offer())
            for bundle in staging.bundles(list(offer.layers)):
                assert os.path.getsize(bundle.path)
            return list(offer.layers)


@pytest.fixture(name="controller")
def fixture_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    """One whose folder and cache are empty, without the configuration of this machine."""
    monkeypatch.setattr(retries, "_FIRST_PAUSE", 0.01)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", "/nonexistent")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Controller(tmp_path / "local")


@pytest.fixture(name="registry")
def fixture_registry() -> t.Iterator[Registry]:
    """A registry that wants tokens, which it gives to everybody."""
    with serving(Registry()) as registry, serving(TokenServer()) as tokens:
        registry.auth = "bearer"
        registry.tokens = tokens
        registry.push("team/app", "1", INDEX)
        yield registry


def source(registry: Registry, end: str = ":1") -> str:
    """A name there."""
    return f"docker://{registry.host}/team/app{end}"


def requests(registry: Registry) -> list[str]:
    """The requests since the last call, those for tokens among them."""
    tokens = t.cast(TokenServer, registry.tokens)
    found = registry.paths() + [path.split("?")[0] for path in tokens.paths()]
    registry.asked.clear()
    tokens.asked.clear()
    return found


def test_forks_cost_the_registry_one_pull(tmp_path: Path, controller: Controller, registry: Registry) -> None:
    Controller(tmp_path / "own").fork(source(registry), http_agent="another")
    sent = registry.sent
    alone = requests(registry)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _number: controller.fork(source(registry)), range(8)))
    assert found == [NAMES] * 8
    assert registry.sent == sent
    assert sorted(requests(registry)) == sorted(alone)
    # a challenge, a token, the index, the manifest and the blobs with the config
    assert len(alone) == 4 + len(NAMES) + 1
    # a fork that comes later for what nobody needed asks for no document
    with controller.staging(source(registry), Criteria(platform=parse_platform("linux/s390x"))) as staging:
        staging.offer()
    requests(registry)
    assert controller.fork(source(registry)) == NAMES
    assert requests(registry) == []


def test_a_fork_that_did_not_read_the_documents_fetches_blobs(controller: Controller, registry: Registry) -> None:
    with controller.staging(source(registry)) as first:
        first.offer()
    requests(registry)
    controller.fork(source(registry))
    answers = [path.split()[1] for path in requests(registry) if path.endswith(" 200")]
    assert len(answers) == len(NAMES)
    assert all("/blobs/" in path for path in answers)


def test_a_tag_that_moves_in_a_run_is_resolved_once(tmp_path: Path, controller: Controller, registry: Registry) -> None:
    assert controller.fork(source(registry)) == NAMES
    moved = Image([Layer(file("new", "new"))])
    registry.push("team/app", "1", Index(moved))
    assert controller.fork(source(registry)) == NAMES
    # the next run
    assert Controller(tmp_path / "next").fork(source(registry)) == [moved.layers[0].path]


@pytest.mark.parametrize("pinned", ["index", "manifest", "option", "config"])
def test_a_digest_decides(controller: Controller, registry: Registry, pinned: str) -> None:
    digests = {"index": INDEX.digest, "manifest": IMAGE.digest, "config": IMAGE.config.digest, "option": INDEX.digest}
    end, option = (f":1@{digests[pinned]}", None) if pinned in ("index", "manifest") else (":1", digests[pinned])
    registry.push("team/app", "1", INDEX if pinned == "config" else Index(Image([Layer(file("new", "new"))])))
    criteria = Criteria(digest=option, platform=AMD64.platform)
    with controller.staging(source(registry, end), criteria) as staging:
        offer, _status = read_offer(staging.offer())
        assert list(offer.layers) == NAMES
        assert offer.pinned == (INDEX.digest if pinned == "option" else "")
        assert offer.path.startswith(f"docker://{registry.host}/team/app")


def test_the_next_run_goes_on_at_the_byte(tmp_path: Path, controller: Controller, registry: Registry) -> None:
    big = Layer(file("big", os.urandom(40_000_000)), compression="none")
    registry.push("team/app", "big", Image([big]))
    registry.cuts = [int(0.9 * big.size)]
    with pytest.raises(SourceError, match="too early"):
        controller.fork(source(registry, ":big"), url_retries=0)
    registry.asked.clear()
    # another tag of the same repository names the same blob
    registry.push("team/app", "other", Image([big, *SMALL]))
    Controller(tmp_path / "next").fork(source(registry, ":other"))
    assert registry.sent <= 0.11 * big.size


def test_another_registry_does_not_go_on_with_it(tmp_path: Path, controller: Controller, registry: Registry) -> None:
    """A hostile registry names the digest of a blob, and learns nothing of it."""
    registry.cuts = [BIG.size // 2]
    with pytest.raises(SourceError, match="too early"):
        controller.fork(source(registry), url_retries=0)
    with serving(Registry(), "127.0.0.2") as hostile:
        hostile.push("team/app", "1", INDEX)
        Controller(tmp_path / "next").fork(source(hostile))
        assert "range" not in hostile.log().lower()


def test_two_hosts_with_different_credentials(controller: Controller, registry: Registry, tmp_path: Path) -> None:
    tokens = t.cast(TokenServer, registry.tokens)
    tokens.anonymous = False
    tokens.users = {"reader": "right"}
    login: dict[str, t.Any] = {"url_username": "reader", "url_password": "right"}
    controller.fork(source(registry), **login)
    others: list[dict[str, t.Any]] = [{}, {**login, "url_password": "wrong"}, {"url_username": "other"}]
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {registry.host: {"auth": basic("reader", "wrong")}}}))
    others.append({"registry_auth_file": str(path)})
    for other in others:
        with pytest.raises(OciError, match="registry_auth_file|url_password"):
            controller.fork(source(registry), **other)
    # what earlier runs left is nobody else's either
    with controller.staging(source(registry), **login) as one, controller.staging(source(registry)) as two:
        assert one._fetched.key() != two._fetched.key()
        assert one._fetched.partial_name(BIG.digest) != two._fetched.partial_name(BIG.digest)
        assert one._fetched.scope() != two._fetched.scope()


@pytest.mark.parametrize("wrong", [BIG, SMALL[0]])
def test_a_mirror_that_serves_wrong_bytes_is_left(controller: Controller, registry: Registry, wrong: Layer) -> None:
    with serving(Registry(), "127.0.0.2") as mirror:
        mirror.push("team/app", "1", INDEX)
        data = mirror.blobs["team/app", wrong.digest]
        mirror.blobs["team/app", wrong.digest] = data[:-1] + bytes([data[-1] ^ 1])
        names = controller.fork(source(registry), registry_mirrors=[mirror.host])
        assert names == NAMES
        assert any(path.startswith("GET /v2/team/app/blobs/") for path in mirror.paths())
    assert any(f"GET /v2/team/app/blobs/{wrong.digest} 200" == path for path in registry.paths())
    assert any("may have served wrong bytes" in line for line in controller.lines)


def test_a_registry_that_serves_wrong_bytes(controller: Controller, registry: Registry) -> None:
    registry.blobs["team/app", BIG.digest] = bytes(BIG.size)
    with pytest.raises(SourceError, match=f"the content of the blob {BIG.digest} .* has another digest"):
        controller.fork(source(registry))


def test_a_node_is_told_the_name_alone() -> None:
    given = {
        "src": "docker://alpine:3.20",
        "fetch": "controller",
        "dest": "/d",
        "registry_auth_file": "/a",
        "url_password": "p",
    }
    assert is_fetched_here(given, False)
    assert arguments_for_node(given) == {"src": "docker://docker.io/library/alpine:3.20", "dest": "/d"}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"src": "docker://us3r:s3cret@example.org/x"}, "src names a user, a password or an invalid digest"),
        ({"src": "docker://example.org/x", "ref": "x"}, "ref chooses among the images of an archive"),
        ({"src": "docker://example.org/x", "registry_mirrors": ["us3r:s3cret@m"]}, "registry_mirrors"),
        ({"src": "docker://example.org/x", "registry_auth_file": "missing"}, "'/play/missing'"),
    ],
)
def test_invalid_options_are_told_without_secrets(args: dict[str, t.Any], words: str) -> None:
    with pytest.raises(OciError, match=words) as caught:
        FetchedImage(args, lambda path: f"/play/{path}", print)
    assert "s3cret" not in caught.value.message


def test_a_pause_that_the_registry_asks_for_is_told_meanwhile(controller: Controller, registry: Registry) -> None:
    busy = [True]

    def answer(handler: Handler) -> bool:
        if busy:
            handler.send(429, Retry_After="1")
        return bool(busy and busy.pop())

    registry.handle = answer
    controller.fork(source(registry))
    assert "429" in controller.lines[0] and "Retry-After" in controller.lines[0]


# -- what a later run asks for


def later(tmp_path: Path, registry: Registry, name: str, **args: t.Any) -> list[str]:
    """What a later run offers; no node needs a blob."""
    registry.asked.clear()
    t.cast(TokenServer, registry.tokens).asked.clear()
    with Controller(tmp_path / name).staging(args.pop("src", source(registry)), **args) as staging:
        return list(read_offer(staging.offer())[0].layers)


def test_a_tag_that_has_not_moved_costs_a_token_and_a_question(
    tmp_path: Path, controller: Controller, registry: Registry
) -> None:
    controller.fork(source(registry))
    assert later(tmp_path, registry, "next") == NAMES
    assert [path.split("?")[0] for path in requests(registry)] == [
        "HEAD /v2/team/app/manifests/1 401",
        "HEAD /v2/team/app/manifests/1 200",
        "GET /token",
    ]
    moved = Index(Image([Layer(file("new", "new"))]))
    registry.push("team/app", "1", moved)
    assert later(tmp_path, registry, "moved") != NAMES
    # back again: nothing but the digest that the tag had in the run before is "unchanged"
    registry.push("team/app", "1", INDEX)
    assert later(tmp_path, registry, "back") == NAMES
    assert "GET /v2/team/app/manifests/1 200" in registry.paths()


@pytest.mark.parametrize("by", ["name", "option"])
def test_a_digest_that_is_known_costs_nothing(
    tmp_path: Path, controller: Controller, registry: Registry, by: str
) -> None:
    args: dict[str, t.Any] = {"src": source(registry, f"@{INDEX.digest}")}
    if by == "option":
        args = {"criteria": Criteria(digest=INDEX.digest, platform=AMD64.platform)}
    assert later(tmp_path, registry, "first", **args) == NAMES
    assert requests(registry) != []
    assert later(tmp_path, registry, "second", **args) == NAMES
    assert requests(registry) == []
    # other credentials know nothing of it
    assert later(tmp_path, registry, "third", **args, headers={"X-Team": "b"}) == NAMES
    assert requests(registry) != []


@pytest.mark.parametrize("head", [405, 404, 403])
def test_a_registry_that_does_not_say_is_asked_for_the_manifest(
    tmp_path: Path, controller: Controller, registry: Registry, head: int
) -> None:
    controller.fork(source(registry))

    def refuse(handler: Handler) -> bool:
        if handler.command == "HEAD" and handler.headers.get("Authorization"):
            handler.send(head)
            return True
        return False

    registry.handle = refuse
    assert later(tmp_path, registry, "next") == NAMES
    assert "GET /v2/team/app/manifests/1 200" in registry.paths()


@pytest.mark.parametrize("damage", [b"", b"no line", b"\n", b"x\n{}", b"\xff" * 100])
def test_damaged_documents_are_fetched_again(
    tmp_path: Path, controller: Controller, registry: Registry, damage: bytes
) -> None:
    controller.fork(source(registry))
    for path in (tmp_path / "cache" / "hypervisor.oci").iterdir():
        if path.stat().st_size < 10_000:
            path.write_bytes(damage)
    assert later(tmp_path, registry, "next") == NAMES
    assert later(tmp_path, registry, "healed") == NAMES
    assert not any(path.startswith("GET /v2/") and path.endswith("200") for path in registry.paths())


def test_a_realm_elsewhere_that_changes_gets_no_credentials(
    tmp_path: Path, controller: Controller, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor new ones: the registry may have been taken over."""
    # a realm on another host has to be https, which says nothing here
    monkeypatch.setattr(session, "realm_of", lambda challenge, _url, _options: parse_url(challenge.parameters["realm"]))
    login: dict[str, t.Any] = {"url_username": "reader", "url_password": "right"}
    with serving(TokenServer(), "127.0.0.2") as first, serving(TokenServer(), "127.0.0.3") as second:
        for tokens in (first, second):
            tokens.users = {"reader": "right"}
        registry.tokens = first
        controller.fork(source(registry), **login)
        registry.tokens = second
        for password in ("right", "new"):
            with pytest.raises(SourceError, match="sends credentials to .* now, and sent them to .* before"):
                Controller(tmp_path / password).fork(source(registry), **{**login, "url_password": password})
        assert second.asked == []
        path = tmp_path / "auth.json"
        path.write_text(json.dumps({"auths": {second.host: {"auth": basic("reader", "right")}}}))
        assert Controller(tmp_path / "named").fork(source(registry), **login, registry_auth_file=str(path)) == NAMES
        # and is the known one from then on
        assert Controller(tmp_path / "later").fork(source(registry), **login) == NAMES
