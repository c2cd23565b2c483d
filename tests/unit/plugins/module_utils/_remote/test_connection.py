# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proxies and TLS (docs/behaviour.md, section 1)."""

from __future__ import annotations

import contextlib
import shutil
import ssl
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils import urls
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._remote.options import HttpOptions
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.tests.unit.support import contents
from ansible_collections.hypervisor.oci.tests.unit.web import Web, serving
from ansible_collections.hypervisor.oci.tests.unit.remote import MULTI, TREE, opened, problem, pull, redirecting

# -- what a URL is


def test_a_proxy_of_the_environment(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Used where use_proxy says so; what a proxy sees of an http URL is the whole of it."""
    monkeypatch.setenv("http_proxy", web.url.rpartition("/")[0])
    monkeypatch.setenv("no_proxy", "")
    with opened("http://images.example.org/a.tar"):
        pass
    assert web.asked[0].path == "http://images.example.org/a.tar"
    with pytest.raises(SourceError, match="cannot be fetched"):
        open_source("http://localhost:1/a.tar", HttpOptions(use_proxy=False, retries=0))


# -- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An authority, two servers and a client, made by openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not here to make certificates")
    folder = tmp_path_factory.mktemp("tls")
    names = {name: str(folder / name) for name in ("ca", "server", "other", "client")}

    def call(*words: str) -> None:
        subprocess.run([openssl or "", *words], check=True, capture_output=True, cwd=folder)

    # whatever this machine's own openssl.cnf says
    (folder / "cnf").write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=ca\n[dn]\n[ca]\n"
        "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
    )
    # fmt: off
    new = ("req", "-config", "cnf", "-newkey", "rsa:2048", "-nodes")
    call(*new, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    for name, extra in (
        ("server", "subjectAltName=IP:127.0.0.1"),
        ("other", "subjectAltName=IP:127.0.0.9"),
        ("client", "extendedKeyUsage=clientAuth"),
    ):
        call(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / f"{name}.ext").write_text(extra + "\nauthorityKeyIdentifier=keyid\n")
        call("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
             "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.pem")
    # fmt: on
    return names


@contextlib.contextmanager
def secured(certificates: dict[str, str], client: bool = False, name: str = "server") -> t.Iterator[Web]:
    """A server with a certificate of the authority, which may want one of its clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates[name] + ".pem", certificates[name] + ".key")
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificates["ca"] + ".pem")
    with serving(MULTI, tls=context) as web:
        yield web


def test_an_authority_of_ones_own(certificates: dict[str, str], tmp_path: Path) -> None:
    ca_path = certificates["ca"] + ".pem"
    with secured(certificates) as web:
        pull(web, tmp_path, ca_path=ca_path)
        assert contents(tmp_path / "dest" / "root") == TREE
        began = len(web.asked)
        message = problem(web.url)
        assert "the certificate of '127.0.0.1' is not trusted" in message
        assert "ca_path" in message
        # nothing was asked, and no retry cures it
        assert len(web.asked) == began
        with opened(web.url, validate_certs=False):
            pass
    with secured(certificates, name="other") as web:
        message = problem(web.url, ca_path=ca_path)
        assert "is not trusted: IP address mismatch" in message
        assert web.asked == []


@pytest.mark.skipif(
    not hasattr(urls, "make_context"), reason="this ansible-core forgets ca_path where there is a client certificate"
)
def test_a_client_certificate(certificates: dict[str, str]) -> None:
    ca_path = certificates["ca"] + ".pem"
    cert, key = certificates["client"] + ".pem", certificates["client"] + ".key"
    with secured(certificates, client=True) as web:
        with opened(web.url, ca_path=ca_path, client_cert=cert, client_key=key):
            pass
        assert "cannot be fetched" in problem(web.url, ca_path=ca_path, retries=0)
        assert "no TLS connection can be made" in problem(
            web.url, ca_path=ca_path, client_cert=cert, client_key=certificates["server"] + ".key"
        )
        # nor does it go to another origin
        with secured(certificates) as first:
            first.handle = redirecting(web.url)
            assert "cannot be fetched" in problem(
                first.url, ca_path=ca_path, client_cert=cert, client_key=key, retries=0
            )


def test_https_never_redirects_to_http(certificates: dict[str, str], web: Web) -> None:
    ca_path = certificates["ca"] + ".pem"
    with secured(certificates) as first:
        first.handle = redirecting(web.url)
        message = problem(first.url, ca_path=ca_path)
        assert f"redirects from https to '{web.url}', which is not protected" in message
        assert web.asked == []
        # the other way is fine
        web.handle = redirecting(first.url)
        first.handle = lambda _handler: False
        with opened(web.url, ca_path=ca_path):
            pass


def test_a_server_that_speaks_no_tls(web: Web) -> None:
    message = problem(web.url.replace("http:", "https:"))
    assert "no TLS connection can be made: wrong version number" in message
