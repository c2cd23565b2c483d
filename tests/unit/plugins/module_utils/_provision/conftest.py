# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures of the tests that run ``provision``."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._provision import node_source
from ansible_collections.hypervisor.oci.plugins.module_utils._source.sources import open_source
from ansible_collections.hypervisor.oci.tests.images.builder import write_oci_archive
from ansible_collections.hypervisor.oci.tests.unit.support import Watched, watched, without_waiting
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import ONE, TWO


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)


@pytest.fixture(name="one")
def fixture_one(tmp_path: Path) -> str:
    """The archive of an image."""
    return write_oci_archive(tmp_path / "one.tar", ONE)


@pytest.fixture(name="two")
def fixture_two(tmp_path: Path) -> str:
    """The archive of the image that comes after it."""
    return write_oci_archive(tmp_path / "two.tar", TWO)


@pytest.fixture(name="dest")
def fixture_dest(tmp_path: Path) -> Path:
    """Where it goes; the folder above is there."""
    (tmp_path / "guests").mkdir(0o700)
    return tmp_path / "guests" / "web"


@pytest.fixture(name="sources")
def fixture_sources(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """All sources that runs opened; ``reads`` of each lists what was read of it."""
    seen: list[Watched] = []

    def opened(path: str, *_how: t.Any) -> Watched:
        seen.append(watched(open_source(path)))
        return seen[-1]

    monkeypatch.setattr(node_source, "open_source", opened)
    return seen
