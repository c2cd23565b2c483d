# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Registries that attack their client, and what modules show of names and passwords (docs/behaviour.md, section 11)."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hypervisor.oci.plugins.module_utils import _secrets
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.digest import Digest
from ansible_collections.hypervisor.oci.plugins.module_utils._registry.client import RegistryClient
from ansible_collections.hypervisor.oci.plugins.module_utils._registry.name import parse_name
from ansible_collections.hypervisor.oci.plugins.module_utils._registry.options import RegistryOptions
from ansible_collections.hypervisor.oci.plugins.modules import oci_image_info, oci_rootfs
from ansible_collections.hypervisor.oci.tests.images.builder import Image, Index, Layer, file
from ansible_collections.hypervisor.oci.tests.unit.registry import Handler, Registry, TokenServer, serving
from ansible_collections.hypervisor.oci.tests.unit.remote import call, noise, waited
from ansible_collections.hypervisor.oci.tests.unit.web import endless, talking

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 99999\r\nWWW-Authenticate: "
_WAITS = {
    "interim answers": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.002),
    "headers": endless(_OK + b"X: ", b"x", 0.05),
    "short headers": endless(_OK, b"X: y\r\n", 0.05),
    "trailers": endless(_CHUNKED + b"1\r\n{\r\n0\r\n", b"X: y\r\n", 0.002),
    "small chunks": endless(_CHUNKED, b"1;" + b"x" * 4000 + b"\r\n \r\n", 0.01),
    "a body": endless(_OK + b"Content-Length: 8192\r\n\r\n", b" ", 0.05),
    "a challenge": endless(_REFUSED + b"Bearer ", b'x="', 0.05),
    "the body of a challenge": endless(_REFUSED + b"Basic\r\n\r\n", b"x", 0.05),
    "a handshake": endless(b"\x16\x03\x03\x40\x00", b"\0", 0.05, ask=False),
}
_DIGEST = Digest("sha256:" + "0" * 64)
IMAGE = Image([Layer(file("big", noise(300_000)))])


@pytest.fixture(autouse=True)
def _without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def client(host: str, plain: bool = True, **changes: t.Any) -> RegistryClient:
    """A client that soon gives up."""
    options = RegistryOptions(**{"plain_http": plain, "retries": 0, "timeout": 1.0, **changes})
    return RegistryClient(parse_name(f"docker://{host}/app:1"), options)


def problem(work: t.Callable[[], t.Any]) -> str:
    """What this says that fails."""
    with pytest.raises(OciError) as caught:
        work()
    return caught.value.message


def test_no_registry_keeps_a_node_waiting() -> None:
    """Each phase of an answer ends with ``timeout``, of a manifest as of a blob. All at once."""
    cases = [(name, kind) for name in _WAITS for kind in ("manifest", "blob", "head")]

    def attack(case: tuple[str, str]) -> tuple[str, float]:
        name, kind = case
        with talking(_WAITS[name]) as port:
            one = client(f"127.0.0.1:{port}", name != "a handshake", username="user", password="canary")
            work = {
                "manifest": lambda: one.manifest("1"),
                "blob": lambda: one.blob_data(_DIGEST, 8192),
                "head": lambda: one.current_digest("1"),
            }[kind]
            return waited(lambda: _message(work))

    with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
        results = dict(zip(cases, pool.map(attack, cases)))
    assert {case: took for case, (_said, took) in results.items() if took > 5} == {}
    assert not any("canary" in said for said, _took in results.values())


def _message(work: t.Callable[[], t.Any]) -> str:
    try:
        work()
    except OciError as error:
        return error.message
    return "nothing"


def test_a_token_server_keeps_nobody_waiting() -> None:
    with serving(Registry()) as registry, talking(endless(_OK, b"X: y\r\n", 0.05)) as port:
        registry.auth = "bearer"
        registry.challenge = lambda handler: f'Bearer realm="http://127.0.0.1:{port}/t"'  # type: ignore[method-assign]
        said, took = waited(lambda: problem(lambda: client(registry.host).manifest("1")))
    assert took < 4 and "nothing of the file" in said


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "http://[::1", "/again", ""]
)
@pytest.mark.parametrize("kind", ["manifest", "blob", "token"])
def test_redirects_that_lead_nowhere(location: str, kind: str) -> None:
    with serving(Registry()) as registry, serving(TokenServer()) as tokens:

        def redirect(handler: Handler) -> bool:
            handler.send(302, b"", **({"Location": location} if location else {}))
            return True

        if kind == "token":
            registry.auth, registry.tokens, tokens.handle = "bearer", tokens, redirect
        else:
            registry.handle = redirect
        one = client(registry.host)
        work = (lambda: one.blob_data(_DIGEST, 10)) if kind == "blob" else (lambda: one.manifest("1"))
        assert problem(work)
        assert len(registry.asked) + len(tokens.asked) <= 12


def test_challenges_without_end() -> None:
    """A registry that is content with no token, and names another realm each time."""
    with serving(Registry()) as registry, serving(TokenServer()) as tokens:
        registry.auth = "bearer"
        numbers = iter(range(1000))
        registry.challenge = lambda handler: f'Bearer realm="{tokens.url}/{next(numbers)}"'  # type: ignore[method-assign]
        assert "may not pull" in problem(lambda: client(registry.host).manifest("1"))
        assert (len(registry.asked), len(tokens.asked)) == (2, 1)


def test_an_index_of_many_manifests_is_bounded() -> None:
    """Each is as large as a document may be; together they may hold 64 MiB."""
    from ansible_collections.hypervisor.oci.plugins.module_utils._image.listing import list_images
    from ansible_collections.hypervisor.oci.plugins.module_utils._registry.source import RegistrySource

    padding = {"x": "x" * 4_000_000}
    images = [Image([], manifest=padding, config={"author": str(number)}) for number in range(20)]
    with serving(Registry()) as registry:
        registry.push("app", "1", Index(*images))
        with contextlib.closing(RegistrySource(client(registry.host, timeout=20.0))) as source:
            listed = list_images(source, None, None, None)
        assert any("a fixed limit" in (item["problem"] or "") for item in listed)
        assert registry.sent < 72_000_000


def test_what_a_descriptor_says_is_read_at_most() -> None:
    """A config of gigabytes by its descriptor is refused before it is asked for."""
    image = Image(
        [],
        manifest={
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(_DIGEST), "size": 10**12}
        },
    )
    from ansible_collections.hypervisor.oci.plugins.module_utils._image.selection import select_image
    from ansible_collections.hypervisor.oci.plugins.module_utils._registry.source import RegistrySource

    with serving(Registry()) as registry:
        registry.push("app", "1", image)
        with contextlib.closing(RegistrySource(client(registry.host))) as source:
            assert "a fixed limit" in problem(lambda: select_image(source, None, None, None))
        assert len(registry.asked) == 1


# -- what modules show


def test_passwords_are_in_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(AnsibleModule, "log", lambda _self, message, **_more: logged.append(message))
    with serving(Registry()) as registry:
        registry.push("app", "1", IMAGE)
        registry.auth, registry.users = "basic", {"user": "canary-password"}
        arguments: dict[str, t.Any] = {
            "src": f"docker://{registry.host}/app:1",
            "dest": str(tmp_path / "x"),
            "platform": "linux/amd64",
            "registry_plain_http": True,
            "url_username": "user",
            "url_password": "canary-password",
            "headers": {"X-Token": "canary-header"},
        }
        result, written = call(oci_rootfs, monkeypatch, capfd, **arguments)
        assert result["changed"] and "canary" not in written
        result, written = call(
            oci_rootfs, monkeypatch, capfd, **{**arguments, "url_password": "canary-wrong", "recreate": True}
        )
        assert "the user 'user' may not pull" in result["msg"] and "canary" not in written
    assert "canary" not in next(tmp_path.glob(".x.oci_rootfs/record.json")).read_text()
    assert logged and not any("canary" in line for line in logged)


@pytest.mark.parametrize("module", [oci_rootfs, oci_image_info])
@pytest.mark.parametrize(
    "wrong", [{}, {"timeout": "abc"}, {"unknown": 1}, {"registry_mirrors": ["us3r:canary@mirror"]}]
)
def test_a_name_with_a_password_is_not_shown(
    module: t.Any,
    wrong: dict[str, t.Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    logged: list[str] = []
    told: list[str] = []
    monkeypatch.setattr(AnsibleModule, "log", lambda _self, message, **_more: logged.append(message))
    monkeypatch.setattr(_secrets, "register_secrets", told.extend)
    arguments: dict[str, t.Any] = {"src": "docker://us3r:canary@r.example/app:1", **wrong}
    if module is oci_rootfs:
        arguments["dest"] = str(tmp_path / "x")
    result, written = call(module, monkeypatch, capfd, **arguments)
    assert result["failed"]
    assert not any(secret in text for secret in ("us3r", "canary") for text in (*logged, written))
    assert arguments["src"] in told


def test_check_mode_and_info_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    other = Image([Layer(file("f", b"f"))], platform="linux/arm64")
    with serving(Registry()) as registry:
        registry.push("app", "1", Index(IMAGE, other))
        arguments: dict[str, t.Any] = {"src": f"docker://{registry.host}/app:1", "registry_plain_http": True}
        listed, _written = call(oci_image_info, monkeypatch, capfd, **arguments)
        assert listed["form"] == "registry"
        assert [image["platform"] for image in listed["images"]] == ["linux/amd64", "linux/arm64"]
        registry.asked.clear()
        listed, _written = call(oci_image_info, monkeypatch, capfd, **arguments, platform="linux/arm64")
        assert [image["manifest_digest"] for image in listed["images"]] == [other.digest]
        # that platform's documents alone
        assert [path.rpartition("/")[2] for path in registry.paths()] == [
            "1 200",
            f"{other.digest} 200",
            f"{other.config_digest} 200",
        ]
        listed, _written = call(oci_image_info, monkeypatch, capfd, **arguments, digest=other.config_digest)
        assert [image["manifest_digest"] for image in listed["images"]] == [other.digest]
    assert list(tmp_path.iterdir()) == []
