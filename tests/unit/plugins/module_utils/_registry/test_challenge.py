# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""WWW-Authenticate in all of its forms (RFC 9110, section 11.6.1)."""

from __future__ import annotations

import time

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._registry.challenge import parse_challenges

BEARER = {"realm": "https://a.example/token", "service": "a", "scope": "repository:x:pull"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], []),
        ([""], []),
        (["Basic"], [("basic", {})]),
        (['Basic realm="a"'], [("basic", {"realm": "a"})]),
        (['Bearer realm="https://a.example/token",service="a",scope="repository:x:pull"'], [("bearer", BEARER)]),
        (['bearer scope="repository:x:pull" , service=a,, REALM = https://a.example/token '], [("bearer", BEARER)]),
        (['Basic realm="a", Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        (['Basic realm="a"', 'Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        (['Bearer realm="a, Basic realm=b"'], [("bearer", {"realm": "a, Basic realm=b"})]),
        (['Bearer realm="a\\"b\\\\c"'], [("bearer", {"realm": 'a"b\\c'})]),
        (["Negotiate YWJj==, Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (["Negotiate, NTLM", "Digest qop=auth"], [("negotiate", {}), ("ntlm", {}), ("digest", {"qop": "auth"})]),
        (['Bearer realm="a",realm="b"'], [("bearer", {"realm": "a"})]),
        (['Bearer realm="a', 'Basic realm="b"'], [("bearer", {}), ("basic", {"realm": "b"})]),
        (['"Bearer" realm="a"'], []),
        (["=, Basic"], []),
    ],
)
def test_challenges(headers: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(found.scheme, found.parameters) for found in parse_challenges(headers)] == expected


@pytest.mark.parametrize(
    "text", ["a " * 50_000, 'a="' * 50_000, "a=" * 50_000, 'B r="\\' + "\\" * 100_000, "B " + ", " * 50_000]
)
def test_hostile_headers_take_no_time(text: str) -> None:
    began = time.process_time()
    assert len(parse_challenges([text] * 20)) <= 16
    assert time.process_time() - began < 0.5
