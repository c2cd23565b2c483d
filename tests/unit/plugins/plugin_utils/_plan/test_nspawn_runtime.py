# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""systemd-nspawn for the role: docs/behaviour.md, section 10."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils._container.model import ContainerError
from ansible_collections.hypervisor.oci.tests.unit.container_plans import MAPS, file_of, planned
from ansible_collections.hypervisor.oci.tests.unit.systemd_settings import KNOWN, read


def test_settings_are_merged_by_section() -> None:
    text = file_of(planned("nspawn"), ".nspawn")["content"]
    assert "[Network]\nPrivate=yes\nVirtualEthernet=no\n" in text
    given = {"Network": {"Zone": "web"}, "Exec": {"Timezone": "copy"}}
    text = file_of(planned("nspawn", nspawn_settings=given), ".nspawn")["content"]
    assert "Private=" not in text
    assert "Zone=web\n" in text
    assert ("Timezone=copy\n" in text, "Timezone=off" in text) == (True, False)


@pytest.mark.parametrize("maps", [{}, MAPS])
def test_systemd_knows_all_settings(maps: dict[str, t.Any]) -> None:
    """By the table of its parser."""
    for section, key in read(file_of(planned("nspawn", **maps), ".nspawn")["content"]):
        assert key in KNOWN[section], (section, key)


def test_a_section_that_is_not_a_mapping() -> None:
    with pytest.raises(ContainerError, match="^settings.Exec must be a mapping"):
        planned("nspawn", nspawn_settings={"Exec": "Boot=yes"})


def test_every_user_is_looked_up() -> None:
    assert planned("nspawn")["needs_user_info"]
    assert not planned("runc")["needs_user_info"]
    assert planned("runc", user="app", root=None)["needs_user_info"]
