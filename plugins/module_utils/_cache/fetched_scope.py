# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decide which images from servers may use which blobs of a cache (docs/behaviour.md, section 7)."""

from __future__ import annotations

import typing as t
from urllib.parse import urlsplit

from .scope import scope_of_values

if t.TYPE_CHECKING:
    from .._remote.options import HttpOptions


def scope_of_url(url: str, http: HttpOptions | None) -> str:
    """Return the scope of a URL and of everything but passwords that may change the answer."""
    parts = urlsplit(url)
    user, separator, host = parts.netloc.rpartition("@")
    if separator:
        parts = parts._replace(netloc=f"{user.partition(':')[0]}@{host}")
    values = [parts.geturl()]
    if http is not None:
        values += [http.username or "", http.client_cert or ""]
        values += [f"{name}: {http.headers[name]}" for name in sorted(http.headers)]
    return scope_of_values("url", *values)


def scope_of_registry(registry: str, repository: str, identity: t.Sequence[str]) -> str:
    """Return the scope of a repository and of everything but passwords that may change what it gives."""
    return scope_of_values("registry", registry, repository, *identity)
