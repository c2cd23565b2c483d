# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is PRIVATE to the collection.

from __future__ import annotations


class ModuleDocFragment:
    """Options for requests to web servers and registries."""

    DOCUMENTATION = r"""
options:
  url_username:
    description:
      - The user for a URL or a registry. A user and password in the URL itself are used, too.
      - User, password, O(headers), client certificate and credentials from F(.netrc) are sent only to the URL's own origin, never to
        the target of a redirect. A registry's user and password are also sent to its token server. For registries, F(.netrc) is not read.
    type: str
  url_password:
    description:
      - The password of O(url_username).
    type: str
  force_basic_auth:
    description:
      - Send user and password with the first request. Otherwise the server has to ask for them, which costs one more request each time.
    type: bool
    default: false
  client_cert:
    description:
      - A PEM file with a client certificate, and its key unless O(client_key) is given. The file is on the host that fetches.
    type: path
  client_key:
    description:
      - A PEM file with the key of O(client_cert).
    type: path
  ca_path:
    description:
      - A PEM file with certificates of trusted authorities, instead of the system's. The file is on the host that fetches.
    type: path
  validate_certs:
    description:
      - Whether the server's certificate must be valid. If you turn this off, pin the image by its digest.
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
      - C(Range), C(If-Range) and C(Accept-Encoding) are set by the module and cannot be given.
    type: dict
  timeout:
    description:
      - How many seconds each wait for the server may last, from the connection to the end of an answer's headers, and for
        each piece of a body. Averaged over as many seconds of waiting, a body must also arrive at 1 KiB a second.
      - All requests together may take 100 times as long, plus O(url_retries) failures and a second for each KiB received.
    type: int
    default: 30
  url_retries:
    description:
      - How often a failed request is tried again, with growing pauses. A transfer resumes at the byte that it reached.
      - Lost connections, slow and short answers are tried again, and so are the statuses 408, 425, 429, 500, 502,
        503 and 504.
    type: int
    default: 5
"""
