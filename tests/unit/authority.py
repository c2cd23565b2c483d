# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An authority and certificates of its own, made by openssl for the addresses of loopback."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

ADDRESSES = [f"127.0.0.{number}" for number in range(1, 7)]


class Authority:
    """An authority in a folder: ``ca`` is its certificate, ``cert`` and ``key`` are a client's."""

    def __init__(self, folder: Path) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            pytest.skip("openssl is not here to make certificates")
        self._openssl = openssl
        self._folder = folder
        # whatever this machine's own openssl.cnf says
        (folder / "cnf").write_text(
            "[req]\ndistinguished_name=dn\nx509_extensions=ca\n[dn]\n[ca]\n"
            "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
        )
        self._call(*self._new("ca"), "-x509", "-days", "2", "-out", "ca.pem")
        self._sign("server", "subjectAltName=" + ",".join(f"IP:{address}" for address in ADDRESSES))
        self._sign("client", "extendedKeyUsage=clientAuth")
        self.ca, self.cert, self.key = (str(folder / name) for name in ("ca.pem", "client.pem", "client.key"))

    def context(self, wants_client: bool = False) -> ssl.SSLContext:
        """A server's context, which may want a client's certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._folder / "server.pem", self._folder / "server.key")
        if wants_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca)
        return context

    def _new(self, name: str) -> list[str]:
        new = ["req", "-config", "cnf", "-newkey", "rsa:2048", "-nodes"]
        return [*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key"]

    def _sign(self, name: str, extension: str) -> None:
        self._call(*self._new(name), "-out", f"{name}.csr")
        (self._folder / f"{name}.ext").write_text(extension + "\nauthorityKeyIdentifier=keyid\n")
        ca = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"]
        self._call("x509", "-req", "-in", f"{name}.csr", *ca, "-extfile", f"{name}.ext", "-out", f"{name}.pem")

    def _call(self, *words: str) -> None:
        subprocess.run([self._openssl, *words], check=True, capture_output=True, cwd=self._folder)
