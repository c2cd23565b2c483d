# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The arguments of a source that is fetched, from any server, the same for all modules."""

from __future__ import annotations

import typing as t

from .._errors import SourceError
from .._remote.arguments import HTTP_ARGUMENTS, http_options, http_values, without_secrets as without_url_secrets
from .._remote.url import MASK, is_registry, masked_name
from .._secrets import register

if t.TYPE_CHECKING:
    from .._remote.options import HttpOptions

FETCH_ARGUMENTS: dict[str, dict[str, t.Any]] = {
    **HTTP_ARGUMENTS,
    "registry_auth_file": {"type": "path"},
    "registry_mirrors": {"type": "list", "elements": "str", "default": []},
    "registry_plain_http": {"type": "bool", "default": False},
}
_MOST_MIRRORS = 16


def fetch_options(params: dict[str, t.Any]) -> HttpOptions | None:
    """Return the options for the server of ``src``, or ``None`` if it is a path. Raises ``SourceError``."""
    if not is_registry(params["src"] or ""):
        return http_options(params)
    from .options import RegistryOptions, parse_mirror

    mirrors = params["registry_mirrors"]
    if len(mirrors) > _MOST_MIRRORS:
        raise SourceError(f"registry_mirrors has more than {_MOST_MIRRORS} entries, a fixed limit; give fewer")
    if params.get("ref"):
        raise SourceError("ref chooses among the images of an archive; give the tag or digest in src instead")
    options = RegistryOptions(
        **http_values(params),
        auth_file=params["registry_auth_file"] or None,
        mirrors=tuple(map(parse_mirror, mirrors)),
        plain_http=params["registry_plain_http"],
    )
    options.check()
    return options


def without_secrets(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return masked values for arguments that hold secrets, and register the secrets with Ansible."""
    shown = without_url_secrets(params)
    src = params.get("src")
    if isinstance(src, str) and is_registry(src) and masked_name(src) != src:
        shown["src"] = masked_name(src)
        register([src])
    mirrors = params.get("registry_mirrors")
    if isinstance(mirrors, list) and any("@" in str(mirror) for mirror in mirrors):
        # one that is refused, because it may name a password
        shown["registry_mirrors"] = MASK
        register(map(str, mirrors))
    return shown
