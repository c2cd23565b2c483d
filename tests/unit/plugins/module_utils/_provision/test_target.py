# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Opening dest for a run (docs/behaviour.md, section 7)."""

from __future__ import annotations

import os
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest import lock_dest
from ansible_collections.hypervisor.oci.plugins.module_utils._dest.dest_path import resolve_dest
from ansible_collections.hypervisor.oci.tests.unit.support import needs_root, run
from ansible_collections.hypervisor.oci.tests.unit.provision_runs import GOOD, archive, refused


def test_a_dest_that_is_none(tmp_path: Path, one: str) -> None:
    """Section 7."""
    os.symlink("guests", tmp_path / "link")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        for changes in ({"src": one}, {"state": "absent", "force": True}):
            assert refused(tmp_path / name, **changes) == (
                f"'{name}' is a link or a file, not a directory; remove it or choose another path"
            )


def test_another_run_at_work(dest: Path, one: str) -> None:
    """Section 7, two runs on one dest."""
    with lock_dest(resolve_dest(str(dest)), 5.0, 0o700, False):
        for changes in ({"src": one}, {"state": "absent"}, {"state": "previous"}):
            assert refused(dest, lock_timeout=0, **changes) == (
                f"another run works on '{dest}' and was not done after 0 seconds;" " wait for it or raise lock_timeout"
            )


@pytest.mark.parametrize(
    ("maps", "mode"),
    [({}, 0o700), pytest.param({"uid_map": ["0:1000:9"], "gid_map": ["0:1000:9"]}, 0o710, marks=needs_root)],
)
def test_the_folder_above_dest(tmp_path: Path, maps: dict[str, t.Any], mode: int) -> None:
    """Section 7: 0700 where the module makes it, or 0710 with an id map."""
    src = archive(tmp_path, GOOD)
    run(tmp_path / "a/b/c", src=src, **maps)
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o755
    (tmp_path / "own").mkdir(0o755)
    os.chmod(tmp_path / "own", 0o751)
    run(tmp_path / "own/c", src=src, **maps)
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o751
