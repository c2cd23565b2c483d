# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``--diff`` shows of a change of images."""

from __future__ import annotations

import typing as t

from ansible_collections.hypervisor.oci.plugins.module_utils._dest.record import Binding, Tree
from ansible_collections.hypervisor.oci.plugins.module_utils._provision.diff import diff_trees


def after(labels: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return what a diff shows of the labels of a new tree."""
    tree = Tree(Binding(None, 1, None), result={"image": {"labels": labels}})
    shown: dict[str, t.Any] = diff_trees("/d", None, tree)["after"]["image"]["labels"]
    return shown


def test_what_a_diff_shows_of_an_image_is_bounded() -> None:
    found = after({f"k{n}": ["\x9b" * 10**4] * 200 for n in range(200)})
    assert len(found) == 101
    assert found["..."] == "and 100 more"
    assert len(found["k0"]) == 101
    assert found["k0"][0].isprintable()
    assert after({"a": [1, None, "b"]}) == {"a": [1, None, "b"]}
