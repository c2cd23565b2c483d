# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node is told of signatures (docs/behaviour.md, section 12)."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import ImageError, OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._signed.verdict import Approval, Verdict, parse_verdict

DIGEST = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64
SIGNERS = {"sha256:key": ["registry.example.org/web"]}
VERDICT = Verdict({DIGEST: Approval(SIGNERS, "linux/amd64")}, {OTHER: "it has no signature"})


def test_a_verdict_survives_the_way_to_a_node() -> None:
    assert parse_verdict(json.loads(json.dumps(VERDICT.to_argument()))) == VERDICT


def test_nothing_else_is_approved() -> None:
    assert VERDICT.signers_of(DIGEST, "linux/amd64") == SIGNERS
    for digest, platform, words in (
        (DIGEST, "linux/arm64", "not among those that were verified"),
        (OTHER, "linux/amd64", "it has no signature"),
        ("sha256:" + "3" * 64, "linux/amd64", "not among those that were verified"),
        ("", "linux/amd64", "not among those that were verified"),
    ):
        with pytest.raises(ImageError, match=words):
            VERDICT.signers_of(digest, platform)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"approvals": {}},
        {"approvals": [], "errors": []},
        {"approvals": {DIGEST: {}}, "errors": {}},
        {"approvals": 1, "errors": {}},
    ],
)
def test_a_damaged_verdict_approves_nothing(value: t.Any) -> None:
    try:
        parsed = parse_verdict(value)
    except OciError as error:
        assert "damaged" in error.message
    else:
        assert parsed.approvals == {}
