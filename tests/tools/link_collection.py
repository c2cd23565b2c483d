# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the checkout known to Ansible as the collection that it is: a link, so that nothing is copied."""

from __future__ import annotations

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main(collections: str, checkout: str = ROOT) -> None:
    """Link ``COLLECTIONS/ansible_collections/hypervisor/oci`` to a checkout, this one by default."""
    folder = os.path.join(collections, "ansible_collections", "hypervisor")
    os.makedirs(folder, exist_ok=True)
    link = os.path.join(folder, "oci")
    if os.path.islink(link):
        os.unlink(link)
    os.symlink(checkout, link)


if __name__ == "__main__":
    main(sys.argv[1])
