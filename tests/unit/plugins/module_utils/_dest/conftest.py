# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of this room share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest_path import DestPath
from ansible_collections.hypervisor.oci.tests.unit.support import without_waiting


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made durable."""
    without_waiting(monkeypatch)


@pytest.fixture(name="states")
def fixture_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where records of mount points lie: in the directory of the test."""
    path = tmp_path / "states" / "hypervisor.oci"

    def state_parent(self: DestPath) -> str:
        return os.fspath(path) if self.is_mount else self.parent

    monkeypatch.setattr(DestPath, "state_parent", property(state_parent))
    return path
