# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The arguments that say how a web server is spoken to, the same for all modules (docs/behaviour.md, section 1)."""

from __future__ import annotations

import typing as t

from .._secrets import register
from .url import MASK, is_url, masked, secrets_of

if t.TYPE_CHECKING:
    from .options import HttpOptions

HTTP_ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "url_username": {"type": "str"},
    "url_password": {"type": "str", "no_log": True},
    "force_basic_auth": {"type": "bool", "default": False},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path"},
    "ca_path": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "use_proxy": {"type": "bool", "default": True},
    "http_agent": {"type": "str", "default": "ansible-httpget"},
    "headers": {"type": "dict", "no_log": True},
    "timeout": {"type": "int", "default": 30},
    "url_retries": {"type": "int", "default": 5},
}


def http_options(params: dict[str, t.Any]) -> HttpOptions | None:
    """Return the options for the server of ``src``, or ``None`` if it is not a URL. Raises ``SourceError``."""
    if not is_url(params["src"] or ""):
        return None
    from .options import HttpOptions

    options = HttpOptions(**http_values(params))
    options.check()
    return options


def http_values(params: dict[str, t.Any]) -> dict[str, t.Any]:
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
    shown: dict[str, t.Any] = {}
    src = params.get("src")
    if isinstance(src, str) and is_url(src):
        shown["src"] = masked(src)
        register(secrets_of(src))
    headers = params.get("headers")
    if isinstance(headers, dict):
        shown["headers"] = dict.fromkeys(headers, MASK)
        register(map(str, headers.values()))
    elif headers is not None:
        # not to be understood, so all of it may be secret
        shown["headers"] = MASK
    return shown
