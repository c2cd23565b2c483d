# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is printed of a result (docs/behaviour.md, section 8)."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._output import shorten_output, summarize

DIGEST = "sha256:" + "0" * 64
RESULT: dict[str, t.Any] = {
    "changed": True,
    "manifest_digest": DIGEST,
    "ref": "demo:1",
    "platform": "linux/amd64",
    "layers": [{}, {}],
    "report": {"entries": 3, "bytes": 5 << 20},
}


def test_one_line_says_which_image_it_is() -> None:
    assert summarize(RESULT) == f"'demo:1', 'linux/amd64', '{DIGEST}', 2 layers, 3 entries, 5.00 MB"


@pytest.mark.parametrize("result", [{}, {"changed": False}, {"manifest_digest": None}, {"manifest_digest": ["x"]}])
def test_a_result_without_an_image(result: dict[str, t.Any]) -> None:
    assert summarize(result) == ""


def test_nothing_that_a_node_says_is_trusted() -> None:
    text = summarize(
        {"manifest_digest": "\x1b[31m", "ref": 5, "platform": "a\nb", "layers": 7, "report": {"bytes": "x"}}
    )
    assert text == r"'a\nb', '\x1b[31m'"
    assert summarize({**RESULT, "report": {"entries": 1, "bytes": 10**400}}).endswith(", 2 layers")


@pytest.mark.parametrize(("verbosity", "short"), [(0, True), (1, True), (2, True), (3, False), (4, False)])
def test_the_whole_result_is_for_those_who_ask_for_it(verbosity: int, short: bool) -> None:
    shortened = shorten_output(RESULT, verbosity)
    assert shortened.pop("_ansible_verbose_override", False) is short
    assert shortened == RESULT


def test_a_failure_is_left_as_it_is() -> None:
    assert shorten_output({**RESULT, "failed": True}, 1) == {**RESULT, "failed": True}
