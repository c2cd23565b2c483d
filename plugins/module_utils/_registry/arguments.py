# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of a source that is fetched, from any server, that a module's arguments give."""

from __future__ import annotations

import typing as t

from .. import _fetch_arguments as fetch_arguments
from .._errors import SourceError
from .._remote.url import is_registry, is_url, masked, masked_name, secrets_of
from .._secrets import register

if t.TYPE_CHECKING:
    from .._remote.options import HttpOptions

_MOST_MIRRORS = 16


def fetch_options(params: dict[str, t.Any]) -> HttpOptions | None:
    """Return the options for the server of ``src``, or ``None`` if it is a path. Raises ``SourceError``."""
    if not is_registry(params["src"] or ""):
        return _http_options(params)
    from .options import RegistryOptions, parse_mirror

    mirrors = params["registry_mirrors"]
    if len(mirrors) > _MOST_MIRRORS:
        raise SourceError(f"registry_mirrors has more than {_MOST_MIRRORS} entries, a fixed limit; give fewer")
    if params.get("ref"):
        raise SourceError("ref chooses among the images of an archive; give the tag or digest in src instead")
    options = RegistryOptions(
        **_http_values(params),
        auth_file=params["registry_auth_file"] or None,
        mirrors=tuple(map(parse_mirror, mirrors)),
        plain_http=params["registry_plain_http"],
    )
    options.check()
    return options


def _http_options(params: dict[str, t.Any]) -> HttpOptions | None:
    """Return the options for the server of ``src``, or ``None`` if it is not a URL. Raises ``SourceError``."""
    if not is_url(params["src"] or ""):
        return None
    from .._remote.options import HttpOptions

    options = HttpOptions(**_http_values(params))
    options.check()
    return options


def _http_values(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the fields of ``HttpOptions`` that a module's arguments give."""
    return {
        "username": params["url_username"] or None,
        "password": params["url_password"] or None,
        "force_basic_auth": params["force_basic_auth"],
        "client_cert": params["client_cert"] or None,
        "client_key": params["client_key"] or None,
        "ca_path": params["ca_path"] or None,
        "validate_certs": params["validate_certs"],
        "use_proxy": params["use_proxy"],
        "agent": params["http_agent"],
        "headers": {str(name): str(value) for name, value in (params["headers"] or {}).items()},
        "timeout": float(params["timeout"]),
        "retries": params["url_retries"],
    }


def without_secrets(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return masked values for arguments that hold secrets, and register the secrets with Ansible."""
    shown = fetch_arguments.without_secrets(params)
    src = params.get("src")
    if isinstance(src, str) and is_url(src):
        shown["src"] = masked(src)
        register(secrets_of(src))
    elif isinstance(src, str) and is_registry(src) and masked_name(src) != src:
        shown["src"] = masked_name(src)
        register([src])
    return shown
