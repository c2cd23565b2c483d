# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The control script: docs/behaviour.md, section 10."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.hypervisor.oci.tests.unit.container_plans import file_of, planned


@pytest.mark.parametrize("runtime", ["lxc", "nspawn", "runc", "crun"])
def test_it_is_a_shell_script(runtime: str) -> None:
    result = planned(runtime, log_folder="/var/log/it's $HOME `id` %n")
    script = file_of(result, "/control")
    assert script["mode"] == "0700"
    assert "@" not in script["content"].replace("printf '%s@'", "")
    done = subprocess.run(["sh", "-n"], input=script["content"], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "signal=QUIT\n" in script["content"]
    assert "log='/var/log/it'\"'\"'s $HOME `id` %n/web.log'\n" in script["content"]
