# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The limits that the user may raise (docs/behaviour.md, section 7)."""

from __future__ import annotations

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import LayerError
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.budget import Budget


def test_bytes_of_all_layers_count_together() -> None:
    budget = Budget(10, 5)
    budget.add_bytes(4, "sha256:a")
    budget.add_bytes(6, "sha256:b")
    with pytest.raises(LayerError) as caught:
        budget.add_bytes(1, "sha256:c")
    assert caught.value.message == (
        "layer sha256:c: the image's layers hold more than 10 bytes when decompressed;"
        " raise max_size if you trust this image"
    )


def test_entries_of_all_layers_count_together() -> None:
    budget = Budget(10, 2)
    budget.add_entry("sha256:a", b"x")
    budget.add_entry("sha256:b")
    with pytest.raises(LayerError) as caught:
        budget.add_entry("sha256:c", b"y")
    assert caught.value.message == (
        "layer sha256:c, entry 'y': the image's layers hold more than 2 entries;"
        " raise max_entries if you trust this image"
    )


def test_holes_count_as_what_the_user_will_see() -> None:
    budget = Budget(10, 5)
    budget.add_bytes(4, "sha256:a")
    budget.add_hole(6, "sha256:a", b"x")
    for add in (lambda: budget.add_bytes(1, "sha256:b"), lambda: budget.add_hole(1, "sha256:b", b"y")):  # fmt: skip
        with pytest.raises(LayerError, match="more than 10 bytes"):
            add()
