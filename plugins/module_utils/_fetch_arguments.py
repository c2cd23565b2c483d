# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The arguments of a source that is fetched, from any server, the same for all modules (docs/behaviour.md, section 1)."""

from __future__ import annotations

import typing as t

from ._secrets import MASK, register

_HTTP_ARGUMENTS: dict[str, dict[str, t.Any]] = {
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

FETCH_ARGUMENTS: dict[str, dict[str, t.Any]] = {
    **_HTTP_ARGUMENTS,
    "registry_auth_file": {"type": "path"},
    "registry_mirrors": {"type": "list", "elements": "str", "default": []},
    "registry_plain_http": {"type": "bool", "default": False},
}


def without_secrets(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return masked values for arguments that hold secrets, other than ``src``, and register the secrets with Ansible."""
    shown: dict[str, t.Any] = {}
    headers = params.get("headers")
    if isinstance(headers, dict):
        shown["headers"] = dict.fromkeys(headers, MASK)
        register(map(str, headers.values()))
    elif headers is not None:
        # not to be understood, so all of it may be secret
        shown["headers"] = MASK
    mirrors = params.get("registry_mirrors")
    if isinstance(mirrors, list) and any("@" in str(mirror) for mirror in mirrors):
        # one that is refused, because it may name a password
        shown["registry_mirrors"] = MASK
        register(map(str, mirrors))
    return shown
