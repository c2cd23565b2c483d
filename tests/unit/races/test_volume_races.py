# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A volume filled from a root that somebody is changing (docs/behaviour.md, section 9)."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.hypervisor.oci.tests.crash.volume_races import CHANGED, attack


def test_nothing_of_the_host_arrives_in_a_volume(tmp_path: Path) -> None:
    arrived, ends = attack(str(tmp_path), 6)
    assert arrived == []
    assert set(ends) <= {"filled", CHANGED}
    # what changed under way was noticed, so it was under attack
    assert ends.get(CHANGED, 0) > 0
