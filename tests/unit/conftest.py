# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for all unit tests: root runs them in a sandbox, or not at all."""

from __future__ import annotations

import pytest

from ansible_collections.hypervisor.oci.tests.tools.confinement import why_not_here


def pytest_configure() -> None:
    """Refuse before anything is collected."""
    reason = why_not_here()
    if reason:
        pytest.exit(reason, returncode=4)
