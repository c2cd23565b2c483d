# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much of each setting an image may have (docs/behaviour.md, section 7)."""

from __future__ import annotations

import typing as t

from .._errors import ImageError

# Limits of an image's settings, in entries and in bytes per entry: far above all known images, and harmless to a node.
# Linux limits one argument or variable to 128 KiB. Each volume becomes a mount and a task of the role; a range of ports
# becomes one entry for each port and protocol.
Limit = t.Tuple[int, int]
WORDS: Limit = (10_000, 128 * 1024 - 1)
VOLUMES: Limit = (256, 4096)
PORTS: Limit = (2 * 65536, 64)
LABELS: Limit = (10_000, 1024 * 1024)
HISTORY: Limit = (10_000, 1024 * 1024)
LONGEST_PATH = 4096
LONGEST_NAME = 1024


def require(texts: t.Collection[str], field: str, where: str, limit: Limit) -> None:
    """Check the number of texts and the length of each. Raises ``ImageError``."""
    most, longest = limit
    if len(texts) > most:
        raise ImageError(
            f"{where}: {field} has {len(texts)} entries, more than {most}, a fixed limit; build the image with fewer"
        )
    for text in texts:
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > longest:
            raise ImageError(
                f"{where}: {field} holds a string of {size} bytes, more than {longest}, a fixed limit; build the image"
                " with a shorter one"
            )
