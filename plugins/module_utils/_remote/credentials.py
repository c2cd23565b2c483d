# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a user and password become a header, or an answer to a server that asks for them (docs/behaviour.md, section 1)."""

from __future__ import annotations

import netrc
import os
import typing as t
import urllib.request

from ansible.module_utils import urls

if t.TYPE_CHECKING:
    from .url import Url


def credentials(
    url: Url, username: str | None, password: str | None, at_once: bool
) -> tuple[dict[str, str], list[urllib.request.BaseHandler]]:
    """Return a header to send ``at_once``, and urllib's handlers that answer a challenge.

    Without a user, the .netrc of the user who runs the module is asked. To be called for the origin that the
    credentials are meant for, and for no other. Raises ``netrc.NetrcParseError``.
    """
    if not username:
        username, password = _of_netrc(url)
        at_once = True
    if not username:
        return {}, []
    password = password or ""
    if at_once:
        header = urls.basic_auth_header(username, password)
        return {"Authorization": header.decode("ascii")}, []
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, url.text, username, password)  # type: ignore[arg-type]
    return {}, [urllib.request.HTTPBasicAuthHandler(passwords), urllib.request.HTTPDigestAuthHandler(passwords)]


def _of_netrc(url: Url) -> tuple[str | None, str | None]:
    try:
        login = netrc.netrc(os.environ.get("NETRC")).authenticators(url.origin[1])
    except OSError:
        login = None
    if login is None or not login[0] or not login[2]:
        return None, None
    return login[0], login[2]
