# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is PRIVATE to the collection.

from __future__ import annotations


class ModuleDocFragment:
    """Options for registries, for ``src`` that begins with ``docker://``."""

    DOCUMENTATION = r"""
options:
  registry_auth_file:
    description:
      - A file with credentials for registries, F(auth.json) of podman or skopeo, or F(config.json) of docker. The file is on
        the host that fetches; no other places are searched.
      - The longest of its keys that matches the repository counts. O(url_username) takes precedence.
      - Credentials that only a helper program can give (C(credHelpers), C(credsStore)) are an error. Give them as
        O(url_username) and O(url_password), for example with the lookup P(ansible.builtin.pipe#lookup).
    type: path
  registry_mirrors:
    description:
      - Registries that are asked before the one in O(src), in this order, each as V(HOST[:PORT][/PREFIX]). The prefix comes
        before the repository.
      - They are asked only for digests. Tags are resolved by the registry, which also serves what a mirror lacks or delivers
        damaged, with a warning.
      - A mirror gets none of the registry's credentials, only those that O(registry_auth_file) has for the mirror itself.
    type: list
    elements: str
    default: []
  registry_plain_http:
    description:
      - Use http instead of https for the registry and its mirrors. Credentials are then sent in the clear.
    type: bool
    default: false
"""
