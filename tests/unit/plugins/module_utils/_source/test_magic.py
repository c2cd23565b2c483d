# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a stream's first bytes say (docs/behaviour.md, section 3)."""

from __future__ import annotations

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._source.magic import detect
from ansible_collections.hypervisor.oci.tests.images.builder import gzip_member, skippable_frame, zstd_stored_frame


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (gzip_member(b""), "gzip"),
        (zstd_stored_frame(b""), "zstd"),
        (skippable_frame(b""), "zstd"),
        (skippable_frame(b"", 15), "zstd"),
        (b"", None),
        (b"\x1f", None),
        (b"BZh9", None),
        (b"\x60\x2a\x4d\x18", None),
        (bytes(512), None),
    ],
)
def test_bytes_decide(head: bytes, kind: str | None) -> None:
    assert detect(head) == kind
