# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names after Docker's rules (docs/behaviour.md, section 2)."""

from __future__ import annotations

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._image.names import matches, normalise_name


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("library/alpine", "docker.io/library/alpine:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine:latest"),
        ("me/app", "docker.io/me/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("host:5000/app", "host:5000/app:latest"),
        ("quay.io/a/b/c:1", "quay.io/a/b/c:1"),
        ("Host/app", "Host/app:latest"),
        ("app@sha256:00", "docker.io/library/app@sha256:00"),
        ("app:1@sha256:00", "docker.io/library/app:1@sha256:00"),
    ],
)
def test_full_names(name: str, full: str) -> None:
    assert normalise_name(name) == full
    assert normalise_name(full) == full


@pytest.mark.parametrize(
    ("ref", "name", "strictly", "loosely"),
    [
        ("alpine", "docker.io/library/alpine:latest", True, True),
        ("docker.io/library/alpine:latest", "alpine", True, True),
        ("alpine", "alpine:3", False, False),
        ("alpine", "quay.io/alpine", False, False),
        # a bare tag, as skopeo writes it
        ("1.0", "1.0", True, True),
        ("1.0", "quay.io/me/app:1.0", False, True),
        ("quay.io/me/app:1.0", "1.0", False, True),
        # the whole of it
        ("1", "quay.io/me/app:1.0", False, False),
        ("0", "quay.io/me/app:1.0", False, False),
        # a port is no tag
        ("5000/app", "host:5000/app", False, False),
        ("app", "host:5000/app", False, False),
    ],
)
def test_matches(ref: str, name: str, strictly: bool, loosely: bool) -> None:
    assert matches(ref, [name], False) == strictly
    assert matches(ref, ["other", name], True) == loosely
    assert not matches(ref, [], True)
