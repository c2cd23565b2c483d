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


def test_entries_need_bytes_that_are_stored() -> None:
    """One entry over and over costs time, and nearly nothing else."""
    budget = Budget(10, 10**7)
    budget.entries = 250_000
    budget.add_stored(4)
    budget.add_entry("sha256:a", b"x")
    with pytest.raises(LayerError) as caught:
        budget.add_entry("sha256:a", b"y")
    assert caught.value.message == (
        "layer sha256:a, entry 'y': the image's layers hold more than 250000 entries, and one for each 4 bytes of their"
        " blobs, a fixed limit; build the image without repeated entries, or compress its layers less"
    )


def test_implied_directories_need_entries() -> None:
    budget = Budget(10, 10**7)
    budget.entries = budget.implied = 20_000
    budget.add_entry("sha256:a", b"x")
    for _directory in range(4):
        budget.add_implied("sha256:a")
    with pytest.raises(LayerError) as caught:
        budget.add_implied("sha256:a")
    assert caught.value.message == (
        "layer sha256:a: the image's names and links imply more than 20000 directories, and 4 for each entry, a fixed"
        " limit; build the image with entries for its directories"
    )


def test_implied_directories_are_entries() -> None:
    budget = Budget(10, 1)
    budget.add_implied("sha256:a")
    with pytest.raises(LayerError, match="more than 1 entries; raise max_entries"):
        budget.add_implied("sha256:a")


def test_extended_headers_need_entries() -> None:
    budget = Budget(10, 10)
    budget.add_extended(64 * 1024 * 1024, "sha256:a", None)
    budget.add_entry("sha256:a", b"x")
    budget.add_extended(4096, "sha256:a", None)
    with pytest.raises(LayerError) as caught:
        budget.add_extended(1, "sha256:a", b"y")
    assert caught.value.message == (
        "layer sha256:a, entry 'y': the image's extended headers hold more than 67108864 bytes, and 4096 for each entry, a"
        " fixed limit; build the image with shorter ones"
    )


def test_records_need_entries() -> None:
    budget = Budget(10, 10)
    budget.add_records(1_000_000, "sha256:a", None)
    budget.add_entry("sha256:a", b"x")
    budget.add_records(32, "sha256:a", None)
    with pytest.raises(LayerError) as caught:
        budget.add_records(1, "sha256:a", b"y")
    assert caught.value.message == (
        "layer sha256:a, entry 'y': the image's extended headers hold more than 1000000 records, and 32 for each entry, a"
        " fixed limit; build the image with fewer of them"
    )
