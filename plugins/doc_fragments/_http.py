# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is PRIVATE to the collection.

from __future__ import annotations


class ModuleDocFragment:
    """How a web server is spoken to, where ``src`` is a URL."""

    DOCUMENTATION = r"""
options:
  url_username:
    description:
      - The user for a URL or a registry that wants one. A user and password in a URL itself are understood, too.
      - User, password, O(headers), client certificate and what F(.netrc) says are sent to the URL's own origin alone, never to
        where it redirects. A registry's user and password are also sent to its token server. For registries, F(.netrc) is not read.
    type: str
  url_password:
    description:
      - The password of O(url_username).
    type: str
  force_basic_auth:
    description:
      - Send user and password at once, instead of once the server has asked for them, which costs a request each time.
    type: bool
    default: false
  client_cert:
    description:
      - A PEM file with a certificate that the module shows to the server, and its key unless O(client_key) has it.
        It lies where the fetch runs.
    type: path
  client_key:
    description:
      - A PEM file with the key of O(client_cert).
    type: path
  ca_path:
    description:
      - A PEM file with the certificates of the authorities to trust, instead of the system's. It lies where the fetch runs.
    type: path
  validate_certs:
    description:
      - Whether the server's certificate must be valid. Without it, pin what may come by O(digest).
    type: bool
    default: true
  use_proxy:
    description:
      - Whether the proxies of the environment (C(http_proxy), C(https_proxy), C(no_proxy)) are used.
    type: bool
    default: true
  http_agent:
    description:
      - The C(User-Agent).
    type: str
    default: ansible-httpget
  headers:
    description:
      - Headers for each request, for example a token. Their values are not shown.
      - C(Range), C(If-Range) and C(Accept-Encoding) are the module's own.
    type: dict
  timeout:
    description:
      - How many seconds each wait for the server may last, from the connection to the end of an answer's headers, and for
        each piece of a body. In so many seconds of waiting, a body must also bring 1 KiB a second on average.
      - All requests together may wait 100 times as long, beside O(url_retries) failures and a second for each KiB that came.
    type: int
    default: 30
  url_retries:
    description:
      - How often a request that failed is tried again, with growing pauses. A transfer goes on at the byte that it reached.
      - What is tried again are lost connections, slow and short answers, and the statuses 408, 425, 429, 500, 502,
        503 and 504.
    type: int
    default: 5
"""
