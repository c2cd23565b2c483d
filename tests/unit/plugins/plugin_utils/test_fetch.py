# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller fetches for its nodes (docs/behaviour.md, section 7)."""

from __future__ import annotations

import base64
import concurrent.futures
import os
import stat
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError, SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._remote import retries
from ansible_collections.hypervisor.oci.plugins.module_utils._source.offer import read_offer
from ansible_collections.hypervisor.oci.plugins.plugin_utils import _fetch
from ansible_collections.hypervisor.oci.plugins.plugin_utils._criteria import Criteria
from ansible_collections.hypervisor.oci.plugins.plugin_utils._fetch import (
    FetchedImage,
    FetchedStaging,
    arguments_for_node,
    is_fetched_here,
)
from ansible_collections.hypervisor.oci.plugins.plugin_utils._progress import Progress
from ansible_collections.hypervisor.oci.plugins.plugin_utils._single_flight import SingleFlight
from ansible_collections.hypervisor.oci.tests.images.archives import oci_archive
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Layer, file, write_docker_archive
from ansible_collections.hypervisor.oci.tests.unit.web import Web, serving

NOISE = os.urandom(3_000_000)
BIG = Layer(file("big", NOISE), compression="none")
MORE = Layer(file("more", NOISE[:2_000_000]), compression="none")
SMALL = [Layer(file(name, name)) for name in ("a", "b")]
IMAGE = Image([BIG, MORE, *SMALL], ref="demo:1")
OTHER = Image([Layer(file("g", os.urandom(2_000_000)))], platform="linux/s390x")
ARCHIVE = oci_archive(IMAGE, OTHER)
NAMES = [layer.path for layer in IMAGE.layers]


class Controller:
    """A controller with its local tmp; ``lines`` are what it displays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []

    def staging(self, src: str, criteria: Criteria | None = None, **args: t.Any) -> FetchedStaging:
        """A staging as a fork has it."""
        image = FetchedImage({"src": src, "url_retries": 1, **args}, os.path.abspath, self.lines.append)
        return FetchedStaging(image, str(self.folder), criteria or Criteria(ref="demo:1"), self._progress)

    def _progress(self, sizes: dict[str, int]) -> Progress:
        return Progress("node1", sizes, lambda line, _long: self.lines.append(line), verbs=("fetching", "fetched"))

    def files(self) -> list[Path]:
        """All files in the local tmp."""
        return [path for path in self.folder.rglob("*") if path.is_file()]


@pytest.fixture(name="controller")
def fixture_controller(tmp_path: Path) -> Controller:
    """One whose folder is empty."""
    folder = tmp_path / "local"
    folder.mkdir()
    return Controller(folder)


@pytest.fixture(name="cache", autouse=True)
def fixture_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache and configuration, without those of this machine."""
    monkeypatch.setattr(retries, "_FIRST_PAUSE", 0.01)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", "/nonexistent")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(name="web")
def fixture_web() -> t.Iterator[Web]:
    """A server of the archive."""
    with serving(ARCHIVE) as server:
        yield server


def fetched(staging: FetchedStaging, names: t.Sequence[str] = ()) -> int:
    """Stage blobs as a fork does; return how many bytes they have."""
    return sum(os.path.getsize(bundle.path) for bundle in staging.bundles(names or NAMES))


def one_node(tmp_path: Path, controller: Controller, web: Web) -> tuple[int, int]:
    """How many requests and bytes one node costs, with a controller of its own."""
    own = tmp_path / "own"
    own.mkdir()
    with Controller(own).staging(web.url + "?one") as staging:
        staging.offer()
        fetched(staging)
    cost = len(web.asked), web.sent
    web.asked.clear()
    return cost


def test_forks_cost_the_server_one_pull(tmp_path: Path, controller: Controller, web: Web) -> None:
    cost = one_node(tmp_path, controller, web)

    def fork(_number: int) -> int:
        with controller.staging(web.url) as staging:
            offer, _status = read_offer(staging.offer())
            return fetched(staging, list(offer.layers))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        sizes = set(pool.map(fork, range(8)))
    assert len(sizes) == 1
    assert (len(web.asked), web.sent) == cost
    assert cost[1] < 1.01 * sum(layer.size for layer in IMAGE.layers) + 20_000


def test_a_server_that_fails_is_asked_once_for_all_who_wait(
    controller: Controller, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: set[int] = set()
    all_came = threading.Event()
    look = SingleFlight._raise_failure

    def looking(turns: SingleFlight, path: str, began: int) -> None:
        came.add(threading.get_ident())
        if len(came) == 8:
            all_came.set()
        look(turns, path, began)

    def fail(handler: t.Any) -> bool:
        # who comes after the failure asks anew
        all_came.wait(60)
        handler.status(404)
        return True

    def fork(_number: int) -> str:
        with controller.staging(web.url) as staging, pytest.raises(SourceError) as caught:
            staging.offer()
        return caught.value.message

    monkeypatch.setattr(SingleFlight, "_raise_failure", looking)
    web.handle = fail
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        (message,) = set(pool.map(fork, range(8)))
    assert "answered 404" in message
    assert len(web.asked) == 1
    # a task with retries tries again
    web.handle = lambda _handler: False
    with controller.staging(web.url) as staging:
        staging.offer()


def test_old_files_go_although_no_blob_is_fetched(controller: Controller, web: Web, cache: Path) -> None:
    old = cache / "hypervisor.oci" / ("0" * 64)
    old.parent.mkdir(mode=0o700, parents=True)
    old.write_bytes(b"old")
    os.utime(old, (0, 0))
    with controller.staging(web.url) as staging:
        staging.offer()
    assert not old.exists()


def test_later_plays_and_batches_ask_nobody(controller: Controller, web: Web) -> None:
    """A tag is resolved once in a run of ansible-playbook, though it moves meanwhile."""
    with controller.staging(web.url) as staging:
        first = Path(staging.offer()).read_bytes()
        fetched(staging)
    web.data = oci_archive(Image([Layer(file("new", "new"))], ref="demo:1"))
    web.etag = '"version-2"'
    asked = len(web.asked)
    with controller.staging(web.url) as staging:
        assert Path(staging.offer()).read_bytes() == first
        fetched(staging)
    assert len(web.asked) == asked


def test_what_is_not_needed_is_not_fetched(controller: Controller, web: Web) -> None:
    with controller.staging(web.url) as staging:
        assert set(staging.sizes()) == set(NAMES)
    assert web.sent < 60_000


def test_files_are_closed_and_named_after_digests(controller: Controller, web: Web) -> None:
    with controller.staging(web.url) as staging:
        fetched(staging)
        names = [path.name for path in controller.files()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in controller.files()} == {0o600}
    assert f"sha256-{BIG.digest[7:]}" in names


def test_progress_is_told(controller: Controller, web: Web) -> None:
    with controller.staging(web.url) as staging:
        fetched(staging)
    assert controller.lines[0].startswith("[node1] fetching blobs 1 to 2 of 4 together, ")
    assert controller.lines[1].startswith(f"[node1] fetching blob 3 of 4, {BIG.digest[:19]}, 2.86 MB; ")
    assert controller.lines[-1].startswith("[node1] fetched 4.77 MB in ")


# -- interrupted


def test_the_next_run_goes_on_at_the_byte(tmp_path: Path, controller: Controller, web: Web) -> None:
    """Killed at 90 % of a blob: the next run fetches at most 11 % of it."""
    big = Layer(file("big", os.urandom(40_000_000)), compression="none")
    size = big.size
    web.data = oci_archive(Image([big, *SMALL], ref="demo:1"))

    def cut(handler: t.Any) -> bool:
        start, _dash, end = handler.headers.get("Range", "bytes=0-0")[6:].partition("-")
        if int(end) - int(start) < size // 2:
            return False
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{end}/{len(web.data)}")
        handler.send_header("Content-Length", str(int(end) - int(start) + 1))
        handler.end_headers()
        handler.wfile.write(web.data[int(start) : int(start) + size * 9 // 10])
        return True

    with controller.staging(web.url, url_retries=0) as staging:
        staging.offer()
        web.handle = cut
        with pytest.raises(SourceError, match="it broke off"):
            fetched(staging, [big.path])
    web.handle = lambda _handler: False
    web.asked.clear()
    later = tmp_path / "later"
    later.mkdir()
    with Controller(later).staging(web.url) as staging:
        staging.offer()
        documents = web.sent
        fetched(staging, [big.path])
    assert web.sent - documents <= 0.11 * size


def test_a_poisoned_partial_heals_in_one_run(controller: Controller, web: Web, cache: Path) -> None:
    with controller.staging(web.url) as staging:
        folder = cache / "hypervisor.oci"
        folder.mkdir(mode=0o700, parents=True)
        (folder / staging._fetched.partial_name(BIG.digest)).write_bytes(bytes(BIG.size // 2))
        (bundle,) = staging.bundles([BIG.path])
        assert Path(bundle.path).read_bytes() == BIG.data


def test_without_a_cache_it_works_and_says_so(
    controller: Controller, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with controller.staging(web.url) as staging:
        assert fetched(staging, [BIG.path]) == BIG.size
    assert (
        "an interrupted transfer will start over: '/proc/nowhere/hypervisor.oci' cannot be used" in controller.lines[0]
    )


def test_a_full_disk_names_the_folder(
    controller: Controller, web: Web, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: t.Any) -> t.NoReturn:
        raise OSError(28, "No space left on device")

    with controller.staging(web.url) as staging:
        staging.offer()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(
                SourceError, match="cannot write a blob of .* the file system has no room left .*; make room"
            ):
                fetched(staging, [BIG.path])
        assert fetched(staging, [BIG.path]) == BIG.size


# -- a server that changes or lies


def test_an_archive_that_changes_after_the_offer(controller: Controller, web: Web) -> None:
    """What is still in it is sent, and the rest is an error that says so."""
    with controller.staging(web.url) as staging:
        staging.offer()
        web.data = oci_archive(Image([BIG], ref="demo:2"))
        web.etag = '"version-2"'
        assert fetched(staging, [BIG.path]) == BIG.size
        with pytest.raises(SourceError, match="changed during the run, and has no .* any more; run again"):
            fetched(staging, [MORE.path])


def test_a_server_that_damages_a_blob(controller: Controller, web: Web, cache: Path) -> None:
    at = ARCHIVE.index(BIG.data) + 1_500_000
    web.data = ARCHIVE[:at] + bytes([ARCHIVE[at] ^ 1]) + ARCHIVE[at + 1 :]
    with controller.staging(web.url) as staging, pytest.raises(SourceError, match="has another digest"):
        fetched(staging, [BIG.path])
    assert not any("sha" in path.name for path in controller.files())
    assert list((cache / "hypervisor.oci").iterdir()) == []


@pytest.mark.parametrize("kind", ["stream", "gzip", "docker"])
def test_archives_that_are_not_read_in_place(tmp_path: Path, controller: Controller, kind: str) -> None:
    data = ARCHIVE
    if kind == "gzip":
        data = oci_archive(IMAGE, compression="gzip")
    elif kind == "docker":
        data = Path(write_docker_archive(tmp_path / "d.tar", IMAGE)).read_bytes()
    with serving(data) as web:
        web.ranges = kind != "stream"
        for _fork in range(2):
            with controller.staging(web.url) as staging:
                names = list(staging.sizes())
                assert len(names) == 4
                fetched(staging, names)
        if kind != "docker":
            # once to look for documents, and once for the blobs
            assert sum(asked.sent for asked in web.asked) < 2.1 * len(data)


# -- who may have what


def protect(web: Web, password: str) -> None:
    """Let the server want a password."""
    wanted = "Basic " + base64.b64encode(f"user:{password}".encode()).decode()

    def check(handler: t.Any) -> bool:
        if handler.headers.get("Authorization") == wanted:
            return False
        handler.status(401, WWW_Authenticate='Basic realm="x"')
        return True

    web.handle = check


def test_a_host_gets_nothing_that_was_fetched_for_another(controller: Controller, web: Web) -> None:
    protect(web, "right")
    with controller.staging(web.url, url_username="user", url_password="right") as staging:
        fetched(staging)
        # at the same time and later, with wrong credentials and without
        logins: list[dict[str, t.Any]] = [{}, {"url_username": "user", "url_password": "wrong"}]
        for login in logins:
            with controller.staging(web.url, **login) as other, pytest.raises(SourceError, match="answered 401"):
                other.offer()


@pytest.mark.parametrize(
    "other",
    [
        {"url_password": "b"},
        {"url_username": "b"},
        {"headers": {"X-Token": "b"}},
        {"validate_certs": False},
        {"http_agent": "b"},
        {"use_proxy": False},
        {"src": "https://images.example.org/i.tar?b"},
        {"src": "https://a:b@images.example.org/i.tar", "url_username": None, "url_password": None},
    ],
)
def test_forks_share_nothing_across_credentials(other: dict[str, t.Any]) -> None:
    args = {"src": "https://images.example.org/i.tar", "url_username": "a", "url_password": "a", "headers": {}}
    one = FetchedImage(args, str, print)
    two = FetchedImage({**args, **other}, str, print)
    assert one.key() != two.key()
    assert one.partial_name("sha256:1") != two.partial_name("sha256:1")
    assert one.key() == FetchedImage({**args, "timeout": 7, "url_retries": 9}, str, print).key()


def test_certificates_count_by_what_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "client.pem"
    keys = set()
    for content in ("one host's", "another host's"):
        path.write_text(content)
        args = {"src": "https://images.example.org/i.tar", "client_cert": "client.pem"}
        keys.add(FetchedImage(args, lambda name: str(tmp_path / name), print).key())
    assert len(keys) == 2


def test_netrc_is_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = {"src": "https://images.example.org/i.tar"}
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    keys = {FetchedImage(args, str, print).key()}
    for password in ("a", "b"):
        (tmp_path / "netrc").write_text(f"machine images.example.org login u password {password}\n")
        keys.add(FetchedImage(args, str, print).key())
    assert len(keys) == 3
    (tmp_path / "netrc").write_text("machine images.example.org bogus\n")
    with pytest.raises(SourceError, match="the .netrc of the user who runs ansible-playbook is damaged"):
        FetchedImage(args, str, print)


def test_nodes_keep_tenants_apart_and_know_no_secret(controller: Controller) -> None:
    """A new password is no new source, another query, user or header is one."""
    args = {"src": "https://images.example.org/i.tar", "url_username": "a", "url_password": "a"}
    scopes = {
        FetchedImage({**args, **other}, str, print).scope()
        for other in (
            {},
            {"url_password": "b"},
            {"url_username": "b"},
            {"headers": {"X-Token": "b"}},
            {"src": "https://images.example.org/i.tar?b"},
        )
    }
    assert len(scopes) == 4


def test_the_offer_holds_the_scope_and_no_secret(controller: Controller, web: Web) -> None:
    src = web.url.replace("//", "//canary-us3r:canary-s3cret@") + "?token=canary-t0ken"
    with controller.staging(src, headers={"X-Key": "canary-k3y"}) as staging:
        offer, _status = read_offer(staging.offer())
        fetched(staging)
        assert offer.scope == staging._fetched.scope()
        assert offer.path == web.url + "?..."
        everything = (
            b"".join(path.read_bytes() + os.fsencode(path) for path in controller.files()) + repr(offer).encode()
        )
    for secret in (
        b"canary-us3r",
        b"canary-s3cret",
        b"canary-t0ken",
        b"canary-k3y",
        base64.b64encode(b"canary-us3r:canary-s3cret"),
    ):
        assert secret not in everything
    assert not any("canary-s3cret" in line or "canary-t0ken" in line for line in controller.lines)


# -- options


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"fetch": "anybody"}, "fetch is 'anybody'; give node or controller"),
        (
            {"fetch": "node", "src": "i.tar"},
            "fetch is for a URL or an image in a registry, and src is a path; leave fetch out",
        ),
        ({"src": "i.tar"}, "fetch is for a URL or an image in a registry, and src is a path; leave fetch out"),
        ({"remote_src": "yes"}, "remote_src: true says that the node has src"),
    ],
)
def test_options_that_contradict_each_other(args: dict[str, t.Any], words: str) -> None:
    with pytest.raises(OciError, match=words):
        is_fetched_here({"src": "https://x/i.tar", "fetch": "controller", **args}, False)


def test_who_fetches() -> None:
    args = {"src": "https://x/i.tar"}
    assert not is_fetched_here(args, True)
    assert not is_fetched_here({"src": "i.tar", "fetch": ""}, True)
    assert not is_fetched_here({**args, "fetch": "node"}, True)
    assert is_fetched_here({**args, "fetch": "controller"}, False)
    with pytest.raises(OciError, match="async cannot send what the controller fetches"):
        is_fetched_here({**args, "fetch": "controller"}, True)


def test_a_node_is_told_nothing_of_the_fetch() -> None:
    secret = {name: "s3cret" for name in _fetch.FETCH_ARGUMENTS}
    given = {"src": "https://u:s3cret@x/i.tar?s3cret#s3cret", "dest": "/d", "keep": 2, "fetch": "controller", **secret}
    assert arguments_for_node(given) == {"src": "https://x/i.tar?...", "dest": "/d", "keep": 2}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"timeout": "soon"}, "timeout"),
        ({"timeout": 0}, "the options timeout and url_retries are more than 0"),
        ({"headers": ["s3cret"]}, "headers"),
        ({"headers": "s3cret"}, "headers"),
        ({"headers": {"X": "s3cret\n"}}, "the option headers holds 'X'"),
        ({"ca_path": "missing.pem"}, "the option ca_path: '/play/missing.pem' cannot be read"),
        ({"src": "https://u:s3cret@:x/"}, "src is not a valid URL"),
    ],
)
def test_invalid_options_are_told_without_secrets(given: dict[str, t.Any], words: str) -> None:
    with pytest.raises(OciError, match=words) as caught:
        FetchedImage({"src": "https://x/i.tar", **given}, lambda path: f"/play/{path}", print)
    assert "s3cret" not in caught.value.message
