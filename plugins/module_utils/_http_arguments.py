# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""The arguments that say how a web server is spoken to, the same for all modules (docs/behaviour.md, section 1)."""

from __future__ import annotations

import typing as t

from ansible_collections.hypervisor.oci.plugins.module_utils._source.url import (
    MASK,
    is_url,
    masked,
)

if t.TYPE_CHECKING:
    from ansible_collections.hypervisor.oci.plugins.module_utils._source.http import (
        HttpOptions,
    )

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
    """How to speak to the server of C(src); C(None) where it is no URL. Raises C(SourceError)."""
    if not is_url(params["src"] or ""):
        return None
    from ansible_collections.hypervisor.oci.plugins.module_utils._source.http import (
        HttpOptions,
    )

    options = HttpOptions(
        username=params["url_username"] or None,
        password=params["url_password"] or None,
        force_basic_auth=params["force_basic_auth"],
        client_cert=params["client_cert"] or None,
        client_key=params["client_key"] or None,
        ca_path=params["ca_path"] or None,
        validate_certs=params["validate_certs"],
        use_proxy=params["use_proxy"],
        agent=params["http_agent"],
        headers={
            str(name): str(value) for name, value in (params["headers"] or {}).items()
        },
        timeout=float(params["timeout"]),
        retries=params["url_retries"],
    )
    options.check()
    return options


def hide_secrets(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """A copy of a module's parameters; the original, which Ansible shows, loses user, password and headers.

    Ansible itself knows neither of a password in a URL, nor of headers that came as one string.
    """
    before = dict(params)
    if params["src"] and is_url(params["src"]):
        params["src"] = masked(params["src"])
    if params["headers"]:
        params["headers"] = dict.fromkeys(params["headers"], MASK)
    return before
