#!/usr/bin/python
# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_image_info
short_description: List what is in an OCI image archive
version_added: 0.1.0
author:
  - the hypervisor.oci authors (@hypervisor-oci)
description:
  - Lists the images that an archive, an image layout directory, or the output of C(docker save) holds, with their names,
    platforms, digests, layers and configs.
  - Reads on the host that it runs on. Use C(delegate_to=localhost) for a file on the controller.
  - Documents are verified by their digests. Layers are not read.
  - An image that is damaged is listed with its problem, and does not hide the others.
requirements:
  - Python 3.8 or newer
  - the Python library zstandard, for an archive that is compressed as a whole by zstd, unless Python is 3.14 or newer
extends_documentation_fragment:
  - hypervisor.oci._attributes
  - hypervisor.oci._http
  - hypervisor.oci._registry
attributes:
  check_mode:
    support: full
    details:
      - Nothing is ever changed.
  diff_mode:
    support: N/A
    details:
      - Nothing is ever changed.
  idempotent:
    support: full
  platform:
    platforms: linux
    support: full
  facts:
    support: none
  action:
    support: none
  async:
    support: full
  safe_file_operations:
    support: N/A
    details:
      - Nothing is written.
options:
  src:
    description:
      - The archive or directory, on the host that the module runs on, an archive's C(http) or C(https) URL, or the name of an
        image in a registry, as O(hypervisor.oci.oci_rootfs#module:src).
        What it is shows from its content.
      - Of a URL only the archive's index and its documents are fetched, if the server serves ranges of bytes.
      - Of an image in a registry only documents are fetched, with O(platform) those of that platform only. Docker Hub counts
        each manifest as a pull.
    type: path
    required: true
  ref:
    description:
      - List only images of this name, compared as O(hypervisor.oci.oci_rootfs#module:ref) is.
    type: str
  digest:
    description:
      - List only the image whose manifest or config has this digest, or the images of the index that has it.
    type: str
  platform:
    description:
      - List only images that serve this platform, as V(os/architecture) or V(os/architecture/variant).
    type: str
  max_size:
    description:
      - The most that an archive may hold, as V(500M) or V(100G), if it cannot be read in place because it is compressed
        as a whole or comes from a server that does not serve ranges of bytes. A larger archive is an error.
    type: str
    default: 100G
seealso:
  - module: hypervisor.oci.oci_rootfs
"""

EXAMPLES = r"""
---
- name: What is in an archive on the controller
  hypervisor.oci.oci_image_info:
    src: "{{ playbook_dir }}/files/app.oci.tar"
  delegate_to: localhost
  register: archive

- name: Show names and platforms
  ansible.builtin.debug:
    msg: "{{ item.refs | join(', ') }} for {{ item.platform }}: {{ item.manifest_digest }}"
  loop: "{{ archive.images }}"
  loop_control:
    label: "{{ item.platform }}"

- name: Find the digest to pin in a registry
  hypervisor.oci.oci_image_info:
    src: docker://nginx:1.27
    platform: linux/amd64
  delegate_to: localhost

- name: Pin what a fleet may install
  hypervisor.oci.oci_rootfs:
    src: app.oci.tar
    dest: /var/lib/lxc/app/rootfs
    digest: "{{ archive.images[0].manifest_digest }}"
"""

RETURN = r"""
form:
  description: How the image is bundled.
  returned: success
  type: str
  sample: archive
images:
  description: The images, in the archive's order. Attestations and artifacts are left out.
  returned: success
  type: list
  elements: dict
  contains:
    refs:
      description: The names under which the archive holds it.
      type: list
      elements: str
    platform:
      description: The platform, null if the image does not give both its operating system and its architecture.
      type: str
      sample: linux/arm64
    present:
      description:
        - Whether the image is in the archive. A partial save of a multi-platform image names others, too.
        - If it is not, the values below are null.
      type: bool
    manifest_digest:
      description: The digest of the manifest. Null for an old C(docker save) archive, which does not have a manifest.
      type: str
    config_digest:
      description: The digest of the config.
      type: str
    layers:
      description: The layers, in the order of their application.
      type: list
      elements: dict
      contains:
        digest:
          description: The digest of the blob; of its content if the archive does not give that.
          type: str
        diff_id:
          description: The digest of the tar inside.
          type: str
        size:
          description: The blob's size in bytes.
          type: int
        media_type:
          description: The media type that the manifest gives.
          type: str
    image:
      description: The config, normalised, as RV(hypervisor.oci.oci_rootfs#module:image) without the resolved user.
      type: dict
    warnings:
      description:
        - What is odd about the image but does not prevent its use, such as a missing platform or settings that are left out.
      type: list
      elements: str
    problem:
      description: Why the image cannot be provisioned as it is, null if no problem is known.
      type: str
"""

import contextlib
import typing as t

from ansible.module_utils.basic import missing_required_lib

from ..module_utils._native_path import native_path
from ..module_utils._errors import MissingLibraryError, OciError, SourceChangedError
from ..module_utils._image.listing import list_images
from ..module_utils._image.platform import parse_platform
from ..module_utils._quiet_module import QuietModule
from ..module_utils._fetch_arguments import FETCH_ARGUMENTS
from ..module_utils._registry.arguments import fetch_options, without_secrets
from ..module_utils._registry.open import open_any
from ..module_utils._result import to_json_safe
from ..module_utils._size_arguments import MAX_SIZE_ARGUMENTS, parse_max_size

ARGUMENT_SPEC: dict[str, t.Any] = {
    "src": {"type": "path", "required": True},
    "ref": {"type": "str"},
    "digest": {"type": "str"},
    "platform": {"type": "str"},
    **MAX_SIZE_ARGUMENTS,
    **FETCH_ARGUMENTS,
}


def main() -> None:
    """Run the module."""
    module = QuietModule(without_secrets, argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.given
    try:
        try:
            form, images = _list(params)
        except SourceChangedError:
            # the archive changed: start once more with its new content
            form, images = _list(params)
    except MissingLibraryError as error:
        module.fail_json(msg=missing_required_lib(error.library, reason=error.why), exception=error.details)
    except OciError as error:
        module.fail_json(msg=error.message)
    module.exit_json(changed=False, form=form, images=to_json_safe(images))


def _list(params: dict[str, t.Any]) -> tuple[str, list[dict[str, t.Any]]]:
    platform = parse_platform(params["platform"]) if params["platform"] else None
    source = open_any(
        native_path(params["src"]), fetch_options(params), parse_max_size(params), params["digest"] or None
    )
    with contextlib.closing(source):
        digest = params["digest"] or None
        # one that the source was asked for, and has verified
        wanted = None if source.pinned == digest else digest
        images = list_images(source, params["ref"] or None, wanted, platform)
        return source.form, images


if __name__ == "__main__":
    main()
