# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recognise a compression by a stream's first bytes (docs/behaviour.md, section 3)."""

from __future__ import annotations

import re

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
XZ = b"\xfd7zXZ\x00"
BZIP2 = b"BZh"
_SKIPPABLE = b"\x2a\x4d\x18"
# a level, and then the first block or the end of an empty stream
_BZIP2_STREAM = re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)")


def detect(head: bytes) -> str | None:
    """Return ``gzip``, ``zstd``, ``xz`` or ``bzip2`` from a stream's first bytes, ``None`` for anything else."""
    if head.startswith(GZIP):
        return "gzip"
    if head.startswith(ZSTD) or is_skippable(head):
        return "zstd"
    if head.startswith(XZ):
        return "xz"
    return "bzip2" if _BZIP2_STREAM.match(head) else None


def is_skippable(head: bytes) -> bool:
    """Return whether a skippable zstd frame begins here (RFC 8878, section 3.1.2)."""
    return head[1:4] == _SKIPPABLE and head[0] & 0xF0 == 0x50
