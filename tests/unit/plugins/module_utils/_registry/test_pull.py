# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images from a registry: what is asked for, and what a registry may answer (docs/behaviour.md, section 11)."""

from __future__ import annotations

import json
import os
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError, RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import provision
from ansible_collections.hypervisor.oci.plugins.module_utils._remote import retries
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Index, Layer, attestation, file
from ansible_collections.hypervisor.oci.tests.unit.registry import (
    Handler,
    Registry,
    Store,
    TokenServer,
    serving,
    sha256,
)
from ansible_collections.hypervisor.oci.tests.unit.remote import noise
from ansible_collections.hypervisor.oci.tests.unit.clocks import Pauses
from ansible_collections.hypervisor.oci.tests.unit.support import contents, run, without_waiting

REPOSITORY = "team/app"


BIG = Layer(file("big", noise(1_500_000)))
SMALL = Layer(file("small", b"small"))
IMAGE = Image([BIG, SMALL])
ARM = Image([Layer(file("arm", b"arm"))], platform="linux/arm64")
MULTI = Index(IMAGE, ARM, attestation(IMAGE))
TREE = {"big": noise(1_500_000), "small": b"small"}
OTHER = Index(Image([Layer(file("other", b"other"))]), ARM)


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are short, nothing is made durable, and no proxy of this machine is used."""
    without_waiting(monkeypatch)
    monkeypatch.setattr(retries, "_FIRST_PAUSE", 0.01)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(name="registry")
def fixture_registry() -> t.Iterator[Registry]:
    """A registry with ``MULTI`` and ``IMAGE``."""
    with serving(Registry()) as registry:
        registry.push(REPOSITORY, "multi", MULTI)
        registry.push(REPOSITORY, "one", IMAGE)
        yield registry


@pytest.fixture(name="tokens")
def fixture_tokens(registry: Registry) -> t.Iterator[TokenServer]:
    """The registry's server of tokens."""
    with serving(TokenServer()) as tokens:
        registry.auth = "bearer"
        registry.tokens = tokens
        yield tokens


def src_of(registry: Registry, end: str = ":multi") -> str:
    """The name of an image."""
    return f"docker://{registry.host}/{REPOSITORY}{end}"


def pull(registry: Registry, tmp_path: Path, end: str = ":multi", **changes: t.Any) -> dict[str, t.Any]:
    """Provision from the registry."""
    changes = {"src": src_of(registry, end), "registry_plain_http": True, "url_retries": 3, **changes}
    return run(tmp_path / "dest" / "root", **changes)


def problem(registry: Registry, tmp_path: Path, end: str = ":multi", **changes: t.Any) -> str:
    """What a pull says that fails, after which nothing is at dest."""
    with pytest.raises(OciError) as caught:
        pull(registry, tmp_path, end, **changes)
    assert not (tmp_path / "dest" / "root").exists()
    return caught.value.message


def arrived(tmp_path: Path) -> t.Any:
    """What is at dest."""
    return contents(tmp_path / "dest" / "root")


# -- what is asked for


def test_a_new_image_by_tag(registry: Registry, tmp_path: Path) -> None:
    result = pull(registry, tmp_path)
    assert result["changed"] and arrived(tmp_path) == TREE
    assert (result["manifest_digest"], result["config_digest"]) == (IMAGE.digest, IMAGE.config_digest)
    assert result["ref"] == f"{registry.host}/{REPOSITORY}:multi"
    base = f"GET /v2/{REPOSITORY}"
    assert registry.paths() == [
        f"{base}/manifests/multi 200",
        f"{base}/manifests/{IMAGE.digest} 200",
        f"{base}/blobs/{IMAGE.config_digest} 200",
        f"{base}/blobs/{BIG.digest} 200",
        f"{base}/blobs/{SMALL.digest} 200",
    ]
    assert registry.sent == MULTI.size + IMAGE.size + IMAGE.config.size + BIG.size + SMALL.size
    accepted = {asked.headers["accept"] for asked in registry.asked if "/manifests/" in asked.path}
    assert len(accepted) == 1 and "docker.distribution.manifest.list" in accepted.pop()
    assert {asked.headers["accept-encoding"] for asked in registry.asked} == {"identity"}


def test_a_new_image_with_tokens_costs_two_requests_more(
    registry: Registry, tokens: TokenServer, tmp_path: Path
) -> None:
    pull(registry, tmp_path)
    assert arrived(tmp_path) == TREE
    assert [asked.status for asked in registry.asked] == [401, 200, 200, 200, 200, 200]
    assert tokens.paths() == [
        f"GET /token?service=the%2C+stub&scope=repository%3A{REPOSITORY.replace('/', '%2F')}%3Apull 200"
    ]


def test_by_tag_and_there(registry: Registry, tmp_path: Path) -> None:
    pull(registry, tmp_path)
    registry.asked.clear()
    for check_mode in (True, False):
        with_tag = pull(registry, tmp_path, check_mode=check_mode)
        assert not with_tag["changed"]
    assert registry.paths() == [f"HEAD /v2/{REPOSITORY}/manifests/multi 200"] * 2


def test_by_tag_and_there_with_tokens(registry: Registry, tokens: TokenServer, tmp_path: Path) -> None:
    pull(registry, tmp_path)
    registry.asked.clear()
    tokens.asked.clear()
    assert not pull(registry, tmp_path)["changed"]
    assert registry.paths() == [
        f"HEAD /v2/{REPOSITORY}/manifests/multi 401",
        f"HEAD /v2/{REPOSITORY}/manifests/multi 200",
    ]
    assert len(tokens.asked) == 1


@pytest.mark.parametrize("which", ["index", "manifest", "config"])
@pytest.mark.parametrize("how", ["digest", "name"])
def test_pinned_and_there_asks_nobody(registry: Registry, tmp_path: Path, which: str, how: str) -> None:
    pull(registry, tmp_path)
    registry.asked.clear()
    digest = {"index": MULTI.digest, "manifest": IMAGE.digest, "config": IMAGE.config_digest}[which]
    pinned = {"digest": digest} if how == "digest" else {"src": src_of(registry, f"@{digest}")}
    for check_mode in (True, False):
        result = pull(registry, tmp_path, check_mode=check_mode, **pinned)
        assert not result["changed"] and result["manifest_digest"] == IMAGE.digest
    assert registry.asked == []


@pytest.mark.parametrize("how", ["digest", "name"])
def test_pinned_and_new(registry: Registry, tmp_path: Path, how: str) -> None:
    """An index is asked for by its digest, whatever the tag means by now."""
    registry.push(REPOSITORY, "multi", OTHER)
    pinned = {"digest": MULTI.digest} if how == "digest" else {"src": src_of(registry, f":multi@{MULTI.digest}")}
    result = pull(registry, tmp_path, **pinned)
    assert arrived(tmp_path) == TREE
    assert f"GET /v2/{REPOSITORY}/manifests/{MULTI.digest} 200" in registry.paths()
    assert not any("arm" in path or "/multi" in path for path in registry.paths())
    assert result["ref"] == f"{registry.host}/{REPOSITORY}" + (":multi" if how == "digest" else f"@{MULTI.digest}")


def test_a_config_digest_pins_too(registry: Registry, tmp_path: Path) -> None:
    pull(registry, tmp_path, digest=IMAGE.config_digest)
    assert arrived(tmp_path) == TREE
    registry.push(REPOSITORY, "multi", OTHER)
    assert "holds no image" in problem(registry, tmp_path / "x", digest=ARM.config_digest)


def test_a_digest_that_the_registry_lacks(registry: Registry, tmp_path: Path) -> None:
    missing = sha256(b"nothing")
    assert "holds no image" in problem(registry, tmp_path, digest=missing)
    assert "does not exist" in problem(registry, tmp_path, f"@{missing}")


def test_two_digests_must_agree(registry: Registry, tmp_path: Path) -> None:
    assert "name two digests" in problem(registry, tmp_path, f"@{MULTI.digest}", digest=IMAGE.digest)
    pull(registry, tmp_path, f"@{MULTI.digest}", digest=MULTI.digest)


def test_ref_is_for_archives(registry: Registry, tmp_path: Path) -> None:
    assert "give the tag or digest in src" in problem(registry, tmp_path, ref="multi")


def test_another_platform_is_asked_for(registry: Registry, tmp_path: Path) -> None:
    """What was asked for counts, not what came of it."""
    pull(registry, tmp_path)
    registry.asked.clear()
    result = pull(registry, tmp_path, digest=MULTI.digest, platform="linux/arm64")
    assert result["changed"] and arrived(tmp_path) == {"arm": b"arm"}
    registry.asked.clear()
    assert not pull(registry, tmp_path, digest=MULTI.digest, platform="linux/arm64")["changed"]
    assert registry.asked == []


def test_other_options_make_the_tree_anew(registry: Registry, tmp_path: Path) -> None:
    pull(registry, tmp_path)
    assert pull(registry, tmp_path, digest=MULTI.digest, keep_dirlinks=True)["changed"]
    assert pull(registry, tmp_path, digest=MULTI.digest, keep_dirlinks=True, recreate=True)["changed"]


def test_staged_and_then_present_asks_nobody(registry: Registry, tmp_path: Path) -> None:
    pull(registry, tmp_path, ":one")
    registry.push(REPOSITORY, "one", OTHER)
    pinned = {"digest": OTHER.digest}
    assert pull(registry, tmp_path, ":one", state="staged", **pinned)["changed"]
    registry.asked.clear()
    assert pull(registry, tmp_path, ":one", state="staged", **pinned)["changed"] is False
    assert arrived(tmp_path) == TREE
    assert pull(registry, tmp_path, ":one", **pinned)["changed"]
    assert arrived(tmp_path) == {"other": b"other"} and registry.asked == []


def test_what_was_not_made_by_this_module_is_judged_first(registry: Registry, tmp_path: Path) -> None:
    pull(registry, tmp_path)
    registry.asked.clear()
    kept = tmp_path / "kept"
    (tmp_path / "dest" / "root").rename(kept)
    (tmp_path / "dest" / "root").mkdir()
    (tmp_path / "dest" / "root" / "mine").write_text("mine")
    with pytest.raises(OciError, match="not made by this module"):
        pull(registry, tmp_path, digest=MULTI.digest)
    assert registry.asked == []


@pytest.mark.parametrize("judge", ["require_stageable", "require_ours", "require_plain"])
def test_a_dest_is_judged_before_anything_is_asked(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judge: str
) -> None:
    """As for archives, also where a staged tree is all that is needed."""
    pull(registry, tmp_path, state="staged")
    registry.asked.clear()

    def refuse(*_arguments: t.Any) -> None:
        raise RootfsError("not this dest")

    monkeypatch.setattr(provision, judge, refuse)
    for pinned in ({}, {"digest": MULTI.digest}):
        assert problem(registry, tmp_path, **pinned) == "not this dest"
    assert registry.asked == []


@pytest.mark.parametrize("status", [403, 404, 405])
@pytest.mark.parametrize("moved", [True, False])
def test_a_registry_that_refuses_head(registry: Registry, tmp_path: Path, moved: bool, status: int) -> None:
    pull(registry, tmp_path)

    def refuse(handler: Handler) -> bool:
        if handler.command == "HEAD":
            handler.send(status)
        return handler.command == "HEAD"

    registry.handle = refuse
    if moved:
        registry.push(REPOSITORY, "multi", OTHER)
    registry.asked.clear()
    assert pull(registry, tmp_path)["changed"] is moved
    assert [asked.status for asked in registry.asked][:2] == [status, 200]


@pytest.mark.parametrize("said", [None, "", "sha512:" + "0" * 128, "x" * 10_000, "sha256:" + "0" * 64])
def test_a_header_is_believed_for_nothing_else(registry: Registry, tmp_path: Path, said: str | None) -> None:
    """Another digest, none, or nonsense: the manifest is read, and it is the same."""
    pull(registry, tmp_path)

    def head(handler: Handler) -> bool:
        if handler.command != "HEAD":
            return False
        handler.send(200, b"", **({} if said is None else {"Docker_Content_Digest": said}))
        return True

    registry.handle = head
    assert not pull(registry, tmp_path)["changed"]


def test_the_header_of_a_get_is_not_believed(registry: Registry, tmp_path: Path) -> None:
    media_type, data = registry.manifests[REPOSITORY, IMAGE.digest]

    def lie(handler: Handler) -> bool:
        if handler.path.endswith("/one"):
            handler.send(200, data, Content_Type=media_type, Docker_Content_Digest="sha256:" + "0" * 64)
        return handler.path.endswith("/one")

    registry.handle = lie
    assert pull(registry, tmp_path, ":one")["manifest_digest"] == IMAGE.digest


def test_a_tag_that_moves(registry: Registry, tmp_path: Path) -> None:
    pull(registry, tmp_path)
    registry.push(REPOSITORY, "multi", OTHER)
    result = pull(registry, tmp_path)
    assert result["changed"] and arrived(tmp_path) == {"other": b"other"}


def test_an_index_that_moves_around_the_same_image_is_remembered(registry: Registry, tmp_path: Path) -> None:
    pull(registry, tmp_path)
    moved = Index(IMAGE, ARM)
    registry.push(REPOSITORY, "multi", moved)
    assert not pull(registry, tmp_path)["changed"]
    registry.asked.clear()
    assert not pull(registry, tmp_path)["changed"]
    assert not pull(registry, tmp_path, digest=MULTI.digest)["changed"]
    assert registry.paths() == [f"HEAD /v2/{REPOSITORY}/manifests/multi 200"]


def test_check_mode_reads_no_layer(registry: Registry, tmp_path: Path) -> None:
    assert pull(registry, tmp_path, check_mode=True)["changed"]
    assert not (tmp_path / "dest").exists()
    assert not any(BIG.digest in path for path in registry.paths())


def test_a_cache_is_shared_by_the_tags_of_a_repository(registry: Registry, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    pull(registry, tmp_path, ":one", cache_dir=cache)
    registry.push(REPOSITORY, "two", Image([BIG, Layer(file("new", b"new"))]))
    registry.push("other/app", "two", Image([BIG, Layer(file("new", b"new"))]))
    registry.asked.clear()
    pull(registry, tmp_path, ":two", cache_dir=cache)
    assert not any(BIG.digest in path for path in registry.paths())
    pull(registry, tmp_path / "x", src=f"docker://{registry.host}/other/app:two", cache_dir=cache)
    assert any(BIG.digest in path for path in registry.paths())


# -- documents that a registry may send


def serve_tag(registry: Registry, data: bytes, content_type: str | None) -> None:
    """Serve these bytes as the tag ``odd``."""

    def odd(handler: Handler) -> bool:
        if not handler.path.endswith("/odd"):
            return False
        handler.send(200, data, **({} if content_type is None else {"Content_Type": content_type}))
        return True

    registry.handle = odd


OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.mark.parametrize(
    "content_type",
    [
        OCI_MANIFEST,
        f"{OCI_MANIFEST}; charset=utf-8",
        OCI_MANIFEST.upper(),
        "application/json",
        "text/plain",
        None,
        DOCKER_MANIFEST,
    ],
)
@pytest.mark.parametrize("own", [OCI_MANIFEST, None])
def test_content_types_that_are_fine(
    registry: Registry, tmp_path: Path, content_type: str | None, own: str | None
) -> None:
    image = Image([SMALL], manifest={"mediaType": own})
    registry.push(REPOSITORY, "x", image)
    serve_tag(registry, image.data, content_type)
    pull(registry, tmp_path, ":odd")
    assert arrived(tmp_path) == {"small": b"small"}


@pytest.mark.parametrize("data", [IMAGE.data, MULTI.data])
def test_content_types_that_contradict(registry: Registry, tmp_path: Path, data: bytes) -> None:
    serve_tag(registry, data, OCI_INDEX if data is IMAGE.data else OCI_MANIFEST)
    assert "do not use this image" in problem(registry, tmp_path, ":odd")


@pytest.mark.parametrize(
    ("data", "content_type", "words"),
    [
        (b'{"schemaVersion":1,"fsLayers":[]}', "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (b'{"schemaVersion":1}', "application/json", "schema 1"),
        (b"", OCI_MANIFEST, "not valid JSON"),
        (b"[]", OCI_MANIFEST, "not a JSON object"),
        (b"[" * 100_000, OCI_MANIFEST, "nested too deeply"),
        (b"{" + b" " * (5 * 1024 * 1024) + b"}", OCI_MANIFEST, "a fixed limit"),
        (json.dumps({"manifests": [], "layers": [], "config": {}}).encode(), OCI_MANIFEST, "both manifests and layers"),
        (json.dumps({"manifests": [{"digest": "sha256:../../x", "size": 1}]}).encode(), OCI_INDEX, "invalid digest"),
        (json.dumps({"manifests": [{"digest": "md5:" + "0" * 32, "size": 1}]}).encode(), OCI_INDEX, "unsupported"),
        (json.dumps({"manifests": [{"digest": sha256(b"x"), "size": -1}]}).encode(), OCI_INDEX, "invalid size"),
        (b"{}", "application/vnd.example", "holds no image"),
        (b'{"mediaType": 7}', OCI_INDEX, "not a string"),
    ],
)
def test_documents_that_are_refused(
    registry: Registry, tmp_path: Path, data: bytes, content_type: str, words: str
) -> None:
    serve_tag(registry, data, content_type)
    assert words in problem(registry, tmp_path, ":odd")


@pytest.mark.parametrize("what", ["index", "manifest", "config", "layer"])
def test_other_content_than_the_digest_says(registry: Registry, tmp_path: Path, what: str) -> None:
    digest = {"index": MULTI, "manifest": IMAGE, "config": IMAGE.config, "layer": BIG}[what].digest
    for store in (registry.blobs, registry.manifests):
        if (REPOSITORY, digest) in store:
            found: t.Any = store[REPOSITORY, digest]
            changed = bytes(found if isinstance(found, bytes) else found[1])
            changed = changed[:-2] + bytes([changed[-2] ^ 1]) + changed[-1:]
            store[REPOSITORY, digest] = changed if isinstance(found, bytes) else (found[0], changed)  # type: ignore[assignment]
    end = f"@{MULTI.digest}"
    message = problem(registry, tmp_path, end)
    assert digest in message


def test_an_index_that_lists_more_than_there_is(registry: Registry, tmp_path: Path) -> None:
    """Only the platform's own manifest has to be there."""
    for digest in (ARM.digest, ARM.config_digest):
        registry.manifests.pop((REPOSITORY, digest), None)
        registry.blobs.pop((REPOSITORY, digest), None)
    pull(registry, tmp_path)
    assert arrived(tmp_path) == TREE


def test_a_missing_layer(registry: Registry, tmp_path: Path) -> None:
    del registry.blobs[REPOSITORY, BIG.digest]
    message = problem(registry, tmp_path)
    assert f"the blob {BIG.digest} of {registry.host}/{REPOSITORY} does not exist" in message
    assert "BLOB_UNKNOWN: blob unknown" in message


def test_errors_quote_the_registry_visibly(registry: Registry, tmp_path: Path) -> None:
    body = json.dumps({"errors": [{"code": "DENIED\x1b[2J", "message": "no\n" + "x" * 5000}]}).encode()

    def deny(handler: Handler) -> bool:
        handler.send(403, body)
        return True

    registry.handle = deny
    message = problem(registry, tmp_path)
    assert "(DENIED\\x1b[2J: no\\nx" in message and "\x1b" not in message and len(message) < 800
    assert "an anonymous client may not pull" in message and "registry_auth_file" in message


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"errors": 7}', b'{"errors": [7]}', b'{"errors": []}', b"\xff", b"[" * 16000]
)
def test_errors_without_words(registry: Registry, tmp_path: Path, body: bytes) -> None:
    def fail(handler: Handler) -> bool:
        handler.send(404, body)
        return True

    registry.handle = fail
    assert "the server answered 404 Not Found; check src" in problem(registry, tmp_path)


# -- blobs


def test_a_blob_is_resumed_where_it_broke_off(registry: Registry, tmp_path: Path) -> None:
    registry.cuts = [1_000_000, 300_000]
    pull(registry, tmp_path)
    assert arrived(tmp_path) == TREE
    ranges = [asked.headers.get("range") for asked in registry.asked if BIG.digest in asked.path]
    assert ranges == [None, "bytes=1000000-", "bytes=1300000-"]


@pytest.mark.parametrize("how", ["whole", "other start", "other total", "no total", "no content-range", "error 501"])
def test_a_server_without_usable_ranges(registry: Registry, tmp_path: Path, how: str) -> None:
    registry.cuts = [1_000_000]
    data = BIG.data

    def odd(handler: Handler) -> bool:
        if "Range" not in handler.headers:
            return False
        start = 999_999 if how == "other start" else 1_000_000
        total: t.Any = "*" if how == "no total" else len(data) + (how == "other total")
        if how == "whole":
            handler.send(200, data)
        elif how == "error 501":
            handler.send(501)
        elif how == "no content-range":
            handler.send(206, data[start:])
        else:
            handler.send(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{total}")
        return True

    registry.handle = odd
    if how == "error 501":
        assert "the server answered 501" in problem(registry, tmp_path)
        return
    pull(registry, tmp_path)
    assert arrived(tmp_path) == TREE
    ranges = ["range" in asked.headers for asked in registry.asked if BIG.digest in asked.path]
    # what such a server calls a part is not used
    assert ranges == ([False, True] if how == "whole" else [False, True, False])


@pytest.mark.parametrize("change", [1, -1])
def test_a_blob_of_another_size(registry: Registry, tmp_path: Path, change: int) -> None:
    data = registry.blobs[REPOSITORY, SMALL.digest]
    registry.blobs[REPOSITORY, SMALL.digest] = data + b"x" if change > 0 else data[:-1]
    assert f"bytes instead of {SMALL.size}" in problem(registry, tmp_path)


def test_a_blob_that_goes_on_without_a_length(registry: Registry, tmp_path: Path) -> None:
    body = SMALL.data + b"x"

    def chunked(handler: Handler) -> bool:
        if SMALL.digest not in handler.path:
            return False
        handler.send(200, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body), Transfer_Encoding="chunked")
        return True

    registry.handle = chunked
    assert "it sends more bytes than that" in problem(registry, tmp_path)
    body = SMALL.data
    pull(registry, tmp_path)


def test_redirects_to_a_store_that_expires(registry: Registry, tmp_path: Path) -> None:
    """A URL with a signature is used again while it is good; then the registry is asked for another."""
    with serving(Store(), "127.0.0.2") as store:
        registry.store = store
        store.uses = 2
        store.cuts = [500_000, 300_000, 300_000]
        pull(registry, tmp_path, timeout=5)
        assert arrived(tmp_path) == TREE
        big = [asked for asked in store.asked if BIG.digest in asked.path]
        assert [asked.status for asked in big] == [200, 206, 403, 206, 206]
        assert len([asked for asked in registry.asked if BIG.digest in asked.path]) == 2


@pytest.mark.parametrize("status", [401, 403])
def test_what_a_redirect_refuses_is_no_challenge(
    registry: Registry, tokens: TokenServer, tmp_path: Path, status: int
) -> None:
    with serving(Store(), "127.0.0.2") as store:
        registry.store = store

        def refuse(handler: Handler) -> bool:
            handler.send(status, WWW_Authenticate=f'Bearer realm="{store.url}/token",service="s"')
            return True

        store.handle = refuse
        message = problem(registry, tmp_path)
        assert f"the server answered {status}" in message and "to which it redirects" in message
        assert "canary-signature" not in message
        assert all("authorization" not in asked.headers for asked in store.asked)
        assert len(store.asked) == 1 and len(tokens.asked) == 1


# -- servers that want to be left alone


def test_retry_after_is_waited_for_and_told(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = Pauses(waits=True)
    monkeypatch.setattr(retries, "threading", pauses)
    busy = ["2"]

    def limited(handler: Handler) -> bool:
        if not busy:
            return False
        handler.send(429, Retry_After=busy.pop())
        return True

    registry.handle = limited
    began = time.monotonic()
    result = pull(registry, tmp_path, ":one")
    assert time.monotonic() - began >= 2
    assert len(pauses.seconds) == 1
    assert 2 <= pauses.seconds[0] <= 2.4
    said = "127.0.0.1: the server answered 429 Too Many Requests, so the run waited 2 seconds as Retry-After says"
    assert said in result["warnings"]


def test_a_long_wait_is_refused_at_once(registry: Registry, tmp_path: Path) -> None:
    def limited(handler: Handler) -> bool:
        handler.send(429, Retry_After="21600")
        return True

    registry.handle = limited
    message = problem(registry, tmp_path)
    assert "21600 seconds" in message and "run again later" in message
    assert len(registry.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_passes_is_tried_again(registry: Registry, tmp_path: Path, status: int) -> None:
    failures = [status] * 3

    def fail(handler: Handler) -> bool:
        if not failures:
            return False
        handler.send(failures.pop())
        return True

    registry.handle = fail
    pull(registry, tmp_path)
    failures += [status] * 4
    assert f"the server answered {status}" in problem(registry, tmp_path / "x")
