# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The image that a signature names (docs/behaviour.md, section 12)."""

from __future__ import annotations

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import OciError
from ansible_collections.hypervisor.oci.plugins.module_utils._signature.identity import parse_identity, split_reference


@pytest.mark.parametrize(
    ("identity", "reference", "named"),
    [
        ("registry.example.org/web", "registry.example.org/web", True),
        ("registry.example.org/web", "registry.example.org/web:2.1", True),
        ("registry.example.org/web", "registry.example.org/web@sha256:00", True),
        ("registry.example.org/web:2.1", "registry.example.org/web:2.1", True),
        ("registry.example.org/web:2.1", "registry.example.org/web:2.1@sha256:00", True),
        ("registry.example.org/web:2.1", "registry.example.org/web", False),
        ("registry.example.org/web:latest", "registry.example.org/web", False),
        ("registry.example.org/web:2.1", "registry.example.org/web:2.10", False),
        # the whole of it, no beginning and no end
        ("registry.example.org/web", "registry.example.org/web2", False),
        ("registry.example.org/web", "registry.example.org/web/other", False),
        ("registry.example.org/web", "evil.example.org/registry.example.org/web", False),
        ("example.org/web", "registry.example.org/web", False),
        ("registry.example.org:5000/web", "registry.example.org/web", False),
        ("registry.example.org:5000/web", "registry.example.org:5000/web", True),
        # Docker's rules
        ("alpine", "docker.io/library/alpine:3", True),
        ("alpine", "index.docker.io/library/alpine", True),
        ("docker.io/me/app", "registry-1.docker.io/me/app", True),
        ("alpine", "registry-1.docker.io/alpine", True),
        ("alpine", "quay.io/library/alpine", False),
        ("registry.example.org/web", "Registry.Example.org/web", True),
        ("[::1]:5000/web", "[::1]:5000/web:1", True),
        # no reference at all
        ("alpine", "", False),
        ("alpine", "docker.io/library/alpine:", False),
        ("alpine", "docker.io/library/Alpine", False),
        ("alpine", "docker.io/library/alpine:-", False),
        ("alpine", "docker.io/library/alpine\n", False),
        ("alpine", "docker.io//library/alpine", False),
        ("alpine", "https://docker.io/library/alpine", False),
    ],
)
def test_names(identity: str, reference: str, named: bool) -> None:
    assert parse_identity(identity).is_named_by(reference) is named


@pytest.mark.parametrize(
    "text", ["", "a b", "Web", "web@sha256:" + "0" * 64, "web:", "web:a:b", "a" * 2000, "web\n", "w\u00e9b"]
)
def test_invalid_identities(text: str) -> None:
    with pytest.raises(OciError, match="invalid signature_identity"):
        parse_identity(text)


def test_in_words() -> None:
    assert str(parse_identity("alpine")) == "docker.io/library/alpine"
    assert str(parse_identity("alpine:3")) == "docker.io/library/alpine:3"
    assert split_reference("alpine@sha256:00") == parse_identity("alpine")
