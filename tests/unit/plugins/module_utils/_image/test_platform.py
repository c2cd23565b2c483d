# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Platforms (docs/behaviour.md, section 2)."""

from __future__ import annotations

import platform as host
import struct

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import ImageError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.platform import (
    Platform,
    node_platform,
    parse_platform,
    platform_of,
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/x86-64", "linux/amd64"),
        ("Linux/AMD64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
        ("linux/amd64/3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armv7l", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/armv8l", "linux/arm/v7"),
        ("linux/i386", "linux/386"),
        ("linux/i686", "linux/386"),
        ("linux/riscv64", "linux/riscv64"),
        ("macos/arm64", "darwin/arm64"),
    ],
)
def test_normal_names(text: str, normal: str) -> None:
    assert str(parse_platform(text)) == normal
    assert parse_platform(normal) == parse_platform(text)


@pytest.mark.parametrize("text", ["", "amd64", "linux/", "/amd64", "linux/arm/v7/x", "linux/a\nb", "a b/c"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(ImageError, match=r"expected os/architecture or os/"):
        parse_platform(text)


@pytest.mark.parametrize(
    ("node", "order"),
    [
        ("linux/amd64", ["linux/amd64"]),
        ("linux/amd64/v3", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"]),
        ("linux/arm/v7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm/v6", ["linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm64/v9.2", ["linux/arm64/v9.2", "linux/arm64/v9", "linux/arm64/v8.6", "linux/arm64"]),
        ("linux/riscv64", ["linux/riscv64"]),
    ],
)
def test_ranks(node: str, order: list[str]) -> None:
    """The exact variant, then lower ones in order; nothing above, nothing else."""
    every = [
        *("linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/amd64/v4"),
        *("linux/386", "windows/amd64", "linux/riscv64", "linux/arm64"),
        *("linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm/v8"),
        *("linux/arm64/v8.6", "linux/arm64/v9", "linux/arm64/v9.2"),
        *("linux/arm64/v9.4", "linux/arm64/strange", "linux/amd64/strange"),
    ]
    wanted = parse_platform(node)
    ranks = {text: wanted.rank_of(parse_platform(text)) for text in every}
    served = {text: rank for text, rank in ranks.items() if rank is not None}
    assert sorted(served, key=lambda text: served[text]) == order
    assert served[order[0]] == 0
    assert len(set(served.values())) == len(served)


def test_a_strange_variant_serves_itself() -> None:
    strange = parse_platform("linux/amd64/strange")
    assert strange.rank_of(strange) == 0
    assert strange.rank_of(parse_platform("linux/amd64")) is None


def test_fields_of_a_document() -> None:
    fields = {"os": "linux", "architecture": "arm", "variant": None, "os.version": "1"}
    assert platform_of(fields, "it") == Platform("linux", "arm", "v7")
    assert platform_of({}, "it") == Platform("", "", "")
    with pytest.raises(ImageError, match="it has a platform that is not a string"):
        platform_of({"os": 5}, "it")
    with pytest.raises(ImageError, match=r"it has an invalid platform: 'a\\x1b\[31m'"):
        platform_of({"os": "linux", "architecture": "a\x1b[31m"}, "it")


@pytest.mark.parametrize(
    ("machine", "pointer", "platform"),
    [
        ("x86_64", 8, "linux/amd64"),
        ("aarch64", 8, "linux/arm64"),
        ("armv7l", 4, "linux/arm/v7"),
        ("armv6l", 4, "linux/arm/v6"),
        ("i686", 4, "linux/386"),
        # 32-bit systems under a 64-bit kernel
        ("x86_64", 4, "linux/386"),
        ("aarch64", 4, "linux/arm/v7"),
        ("s390x", 8, "linux/s390x"),
    ],
)
def test_the_node_itself(monkeypatch: pytest.MonkeyPatch, machine: str, pointer: int, platform: str) -> None:
    monkeypatch.setattr(host, "system", lambda: "Linux")
    monkeypatch.setattr(host, "machine", lambda: machine)
    monkeypatch.setattr(struct, "calcsize", lambda _format: pointer)
    assert str(node_platform()) == platform
