# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Users, passwords and headers, and who gets them (docs/behaviour.md, section 1)."""

from __future__ import annotations

import base64
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hypervisor.oci.plugins.module_utils import _secrets
from ansible_collections.hypervisor.oci.plugins.modules import oci_image_info, oci_rootfs
from ansible_collections.hypervisor.oci.tests.unit.web import Web, serving
from ansible_collections.hypervisor.oci.tests.unit.remote import BIG, call, opened, problem, read, redirecting

# -- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_stay_with_their_origin(web: Web, status: int, tmp_path: Path) -> None:
    """User, password and headers are for the URL's own origin; another port is another one."""
    with serving(b"") as first:
        first.handle = redirecting(web.url + "?signature=1", status)
        with opened(
            first.url,
            username="user",
            password="secret",
            force_basic_auth=True,
            headers={"X-Token": "secret", "Cookie": "secret"},
        ) as source:
            assert read(source, BIG) == BIG.data
        # it is asked once, and then its answer is remembered
        assert len(first.asked) == 1
        assert first.asked[0].headers["x-token"] == "secret"
        assert first.asked[0].headers["authorization"].startswith("Basic ")
    assert len(web.asked) > 2
    for asked in web.asked:
        assert "secret" not in str(asked.headers)
        assert "authorization" not in asked.headers
        assert asked.path == "/image.tar?signature=1"
        assert asked.headers["accept-encoding"] == "identity"


def test_credentials_go_on_to_the_same_origin(web: Web) -> None:
    def redirect(handler: t.Any) -> bool:
        if handler.path == "/image.tar":
            handler.status(302, Location="/other/place")
            return True
        return False

    web.handle = redirect
    with opened(web.url, username="user", password="secret", force_basic_auth=True, headers={"X-Token": "1"}):
        pass
    assert {asked.path for asked in web.asked} == {"/image.tar", "/other/place"}
    for asked in web.asked:
        assert "authorization" in asked.headers
        assert asked.headers["x-token"] == "1"


# -- credentials


def guarded(scheme: str) -> t.Callable[[t.Any], bool]:
    """A server that wants user and password."""
    good = "Basic " + base64.b64encode("üser:p@ss:word".encode()).decode()

    def guard(handler: t.Any) -> bool:
        said = handler.headers.get("Authorization", "")
        if said == good or (scheme == "digest" and said.startswith("Digest ")):
            return False
        challenge = 'Digest realm="x", nonce="n", qop="auth"' if scheme == "digest" else 'Basic realm="x"'
        handler.status(401, WWW_Authenticate=challenge)
        return True

    return guard


@pytest.mark.parametrize(("scheme", "user"), [("basic", "%C3%BCser:p%40ss%3Aword"), ("digest", "user:secret")])
def test_a_challenge_behind_a_redirect_of_the_same_origin(web: Web, scheme: str, user: str) -> None:
    guard = guarded(scheme)

    def redirect(handler: t.Any) -> bool:
        if handler.path == "/image.tar":
            handler.status(302, Location="/other/place")
            return True
        return guard(handler)

    web.handle = redirect
    with opened(web.url.replace("//", f"//{user}@"), retries=0):
        pass
    assert web.asked[-1].path == "/other/place" and web.asked[-1].status == 206


@pytest.mark.parametrize("force", [False, True])
def test_basic_authentication(web: Web, force: bool) -> None:
    web.handle = guarded("basic")
    with opened(web.url, username="üser", password="p@ss:word", force_basic_auth=force):
        pass
    assert (web.asked[0].status == 401) is not force
    # the same in the URL itself
    url = web.url.replace("//", "//%C3%BCser:p%40ss%3Aword@")
    with opened(url, force_basic_auth=force) as source:
        assert source.path == web.url
    assert "401" in problem(web.url)
    assert "401" in problem(web.url, username="üser", password="wrong")


def test_digest_authentication(web: Web) -> None:
    web.handle = guarded("digest")
    with opened(web.url, username="user", password="secret"):
        pass
    assert any(asked.headers.get("authorization", "").startswith("Digest ") for asked in web.asked)
    assert "secret" not in str(web.asked)


def test_netrc(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    netrc.chmod(0o600)
    with opened(web.url):
        pass
    assert web.asked[0].headers["authorization"].startswith("Basic ")
    # another port of the same host is another origin
    with serving(b"") as first:
        first.handle = redirecting(web.url)
        web.asked.clear()
        with opened(first.url):
            pass
        assert first.asked[0].headers["authorization"].startswith("Basic ")
        assert not any("authorization" in asked.headers for asked in web.asked)
    netrc.write_text("machine 127.0.0.1 nonsense\n")
    assert "the .netrc of the user who runs the module is damaged" in problem(web.url)


def test_netrc_stays_with_its_origin(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another port is another origin, although it has the name that the file speaks of."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with serving(b"") as first:
        first.handle = redirecting(web.url, 302)
        with opened(first.url) as source:
            assert read(source, BIG) == BIG.data
        assert first.asked[0].headers["authorization"].startswith("Basic ")
    assert web.asked
    assert not any("authorization" in asked.headers for asked in web.asked)


# -- the modules

SECRETS = ("s3cret", "t0ken", "us3r")


def test_secrets_are_in_no_result(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    url = web.url.replace("//", "//us3r:s3cret@") + "?token=t0ken"
    arguments: dict[str, t.Any] = {
        "src": url,
        "dest": str(tmp_path / "x"),
        "platform": "linux/amd64",
        "headers": {"X-Token": "s3cret"},
        "force_basic_auth": True,
        "_ansible_diff": True,
    }
    result, written = call(oci_rootfs, monkeypatch, capfd, **arguments)
    assert result["changed"]
    # newer releases of ansible-core return the invocation only when they are asked to
    assert ("X-Token" in written) is ("invocation" in result)
    assert not any(secret in written for secret in SECRETS)
    assert web.asked[0].headers["x-token"] == "s3cret"
    assert "authorization" in web.asked[0].headers
    for headers in ('{"X-Token": "s3cret"}', "X-Token=s3cret", {"X-Token": "s3cret"}):
        result, written = call(oci_rootfs, monkeypatch, capfd, **{**arguments, "headers": headers})
        assert ("X-Token" in written) is ("invocation" in result)
        assert not any(secret in written for secret in SECRETS)
        assert web.asked[-1].headers["x-token"] == "s3cret"
    record = next(tmp_path.glob(".x.oci_rootfs/record.json")).read_text()
    assert not any(secret in record for secret in SECRETS)
    # in messages, the query is not shown either
    for fault in ("404", "503", "other-start"):
        web.faults = [fault] * 9
        result, written = call(oci_rootfs, monkeypatch, capfd, **{**arguments, "url_retries": 0})
        assert result["failed"]
        assert f"'{web.url}?...'" in result["msg"]
        assert not any(secret in result["msg"] for secret in SECRETS)
        assert not any(secret in written for secret in SECRETS)
        web.faults = []
    web.data = b"no archive at all"
    result, written = call(oci_rootfs, monkeypatch, capfd, **arguments)
    assert "is not an image archive: it is text; " in result["msg"]
    assert "s3cret" not in written
    arguments["src"] = "http://us3r:s3cret@host:port/"
    result, written = call(oci_rootfs, monkeypatch, capfd, **arguments)
    assert "src is not a valid URL" in result["msg"]
    assert "s3cret" not in written


@pytest.mark.parametrize("module", [oci_rootfs, oci_image_info])
def test_secrets_are_in_no_log_of_the_node(
    module: t.Any, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ansible writes each module's arguments to syslog before the module itself does anything."""
    logged: list[str] = []
    monkeypatch.setattr(AnsibleModule, "log", lambda _self, message, **_more: logged.append(message))
    arguments: dict[str, t.Any] = {
        "src": web.url.replace("//", "//us3r:s3cret@") + "?token=t0ken",
        "headers": "X-Token=s3cret",
    }
    if module is oci_rootfs:
        arguments.update(dest=str(tmp_path / "x"), platform="linux/amd64")
    result, written = call(module, monkeypatch, capfd, **arguments)
    assert not result.get("failed")
    assert web.asked[0].path == "/image.tar?token=t0ken"
    assert "Invoked with" in logged[0]
    assert "/image.tar?********" in logged[0]
    assert not any(secret in text for secret in SECRETS for text in (*logged, written))
    # arguments that are wrong are shown as well
    for wrong in ({"timeout": "abc"}, {"unknown": 1}, {"headers": "s3cret"}):
        result, written = call(module, monkeypatch, capfd, **{**arguments, **wrong})
        assert result["failed"]
        assert not any(secret in written for secret in SECRETS)


def test_secrets_are_told_to_ansible(
    web: Web, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From ansible-core 2.22 on, it masks what is registered; and no short word, which would be a part of others."""
    told: list[str] = []
    monkeypatch.setattr(_secrets, "register_secrets", told.extend)
    src = web.url.replace("//", "//us3r:s3cr%65t@") + "?a=b&signature=t0ken"
    call(oci_image_info, monkeypatch, capfd, src=src, headers={"A": "h34der", "B": "1"})
    assert {"us3r:s3cr%65t", "s3cret", "a=b&signature=t0ken", "h34der"} <= set(told)
    assert "1" not in told
    monkeypatch.setattr(_secrets, "register_secrets", None)
    result, _written = call(oci_image_info, monkeypatch, capfd, src=src)
    assert result["form"] == "archive"
