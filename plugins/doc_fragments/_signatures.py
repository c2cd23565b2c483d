# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is PRIVATE to the collection.

from __future__ import annotations


class ModuleDocFragment:
    """Options for the signatures that an image must have."""

    DOCUMENTATION = r"""
options:
  signature_keys:
    description:
      - Public keys, each as PEM text or as the path of a file on the controller. With this option, only an image that one of
        them has signed with cosign is installed. Its signatures are verified before any layer is sent or unpacked.
      - They are verified on the controller, and the node gets the digests that were approved. With O(remote_src=true), they
        are verified on the node, by its Python library cryptography.
      - ECDSA keys on P-256, P-384 and P-521, RSA keys of 2048 to 8192 bits and Ed25519 keys; at most 16. Certificates, and
        signatures without keys (keyless), are not supported.
      - If a node fetches O(src) from a web server or a registry, it is asked first whether its record is enough. Otherwise the
        controller reads the documents and signatures there, without layers, and the node gets the digests. The controller uses
        O(url_username), O(url_password) and O(headers), but no file of the node. If that is not enough, set
        O(fetch=controller).
      - An empty list is an error. A private key is an error, and is not shown.
      - With O(state=previous), and when nothing changes, the record of the tree must show that enough of these keys have
        signed it.
    type: list
    elements: str
  signature_threshold:
    description:
      - How many different keys of O(signature_keys) must have signed the same manifest or index. The default is V(1).
    type: int
  signature_identity:
    description:
      - The repository, or repository and tag, that the signatures must name, as V(registry.example.org/web). It is compared
        as a whole, after Docker's rules. By default, any name will do.
      - Sigstore bundles, which cosign 3 makes by default, name no repository, so they never satisfy this option.
    type: str
  signatures:
    description:
      - Files beside the image that hold its signatures, if O(src) does not hold them. Each is a sigstore bundle of version 0.3,
        or an archive or layout with signatures as C(cosign save), C(oras copy -r) or C(regctl image copy --digest-tags
        --referrers) write them.
      - They are on the controller, or on the node with O(remote_src=true).
    type: list
    elements: path
"""
