# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for all unit tests: root runs them in a sandbox, or not at all."""

from __future__ import annotations

import fcntl
import typing as t

import pytest
from ansible_collections.hypervisor.oci.tests.tools.confinement import why_not_here


def pytest_configure() -> None:
    """Refuse before anything is collected."""
    reason = why_not_here()
    if reason:
        pytest.exit(reason, returncode=4)


@pytest.fixture(name="alone")
def fixture_alone(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[None]:
    """Tests that look for users of a tree run one after the other: a namespace of one copies the mounts of all."""
    # workers that run beside each other have folders in the same one
    with open(tmp_path_factory.getbasetemp().parent / "alone.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
