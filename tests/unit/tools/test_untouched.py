# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What looks for changes of the machine sees them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.tests.tools import untouched


@pytest.fixture(name="folder")
def fixture_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder that is looked at."""
    for name in ("kept", "edited", "gone", "packages/index"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("before\n")
    (tmp_path / "link").symlink_to("kept")
    monkeypatch.setattr(untouched, "_FILES", (str(tmp_path),))
    monkeypatch.setattr(untouched, "_NAMES", ())
    return tmp_path


def test_each_kind_of_change_is_seen(folder: Path) -> None:
    skipped = {str(folder / "packages")}
    before = untouched.look(skipped, "mark")
    assert untouched.differences(before, before) == []
    status = os.stat(folder / "edited")
    (folder / "edited").write_text("behind\n")
    os.utime(folder / "edited", ns=(status.st_atime_ns, status.st_mtime_ns))
    (folder / "kept").chmod(0o600)
    (folder / "gone").unlink()
    (folder / "link").unlink()
    (folder / "link").symlink_to("gone")
    (folder / "new").mkdir()
    (folder / "packages/index").write_text("after\n")
    environment = {**os.environ, "OCI_TESTS_MARK": "mark"}
    # its environment can be read once it runs: a process that is just being executed shows none
    words = [sys.executable, "-c", "print(flush=True); input()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, env=environment, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        after = untouched.look(skipped, "mark")
        process.kill()
    lines = untouched.differences(before, after)
    ours = [line for line in lines if str(folder) in line or str(process.pid) in line]
    assert [line.split(" -> ")[0].split(": ")[:2] for line in ours] == [
        ["changed", str(folder / "edited")],
        ["changed", str(folder / "kept")],
        ["changed", str(folder / "link")],
        ["gone", str(folder / "gone")],
        ["new", str(folder / "new")],
        ["new", next(line for line in after if line.startswith(f"process {process.pid} "))],
    ]


def test_mounts_devices_and_groups_are_looked_at(folder: Path) -> None:
    found = untouched.look((), "mark")
    assert "mount /" in found
    assert any(name.startswith("namespace mnt:") for name in found)
