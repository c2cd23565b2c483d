# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which first programs are systemd (docs/behaviour.md, section 15); links are tested with the module oci_user_info."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._container.init import is_systemd
from ansible_collections.hypervisor.oci.plugins.module_utils._fs.descriptors import opened

SYSTEMD = "usr/lib/systemd/systemd"
BUS = "usr/lib/systemd/system/dbus.socket"


def judge(top: Path, program: str) -> bool:
    with opened(os.open(top, os.O_RDONLY)) as root:
        return is_systemd(root, program)


@pytest.mark.parametrize(
    ("files", "program", "expected"),
    [
        ((SYSTEMD, BUS), f"/{SYSTEMD}", True),
        ((SYSTEMD,), f"/{SYSTEMD}", False),
        ((BUS,), f"/{SYSTEMD}", False),
        ((SYSTEMD, BUS), f"/{SYSTEMD}\0", False),
        ((SYSTEMD, BUS), SYSTEMD, False),
        ((SYSTEMD, BUS), "/" + "a/" * 5000, False),
        (("usr/bin/systemd-x", BUS), "/usr/bin/systemd-x", False),
    ],
)
def test_only_with_d_bus(tmp_path: Path, files: tuple[str, ...], program: str, expected: bool) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert judge(tmp_path, program) is expected
