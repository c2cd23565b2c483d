# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is seen of processes that were started (docs/behaviour.md, section 8)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.hypervisor.oci.plugins.plugin_utils import _processes
from ansible_collections.hypervisor.oci.plugins.plugin_utils._processes import layer_progress, read_position


@contextlib.contextmanager
def process(code: str, *before: str) -> t.Iterator[None]:
    """A process that has run some code and waits."""
    script = f"{code}\nprint('ready', flush=True)\nimport sys\nsys.stdin.read()"
    words = [*before, sys.executable, "-c", script]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield
        child.communicate("")


@pytest.fixture(name="path")
def fixture_path(tmp_path: Path) -> Path:
    """A file of 100,000 bytes."""
    path = tmp_path / "blob"
    path.write_bytes(bytes(100_000))
    return path


@pytest.mark.parametrize("before", [(), ("sh", "-c", '"$@"; :', "-")], ids=["child", "grandchild"])
def test_how_far_another_process_has_read(path: Path, before: tuple[str, ...]) -> None:
    with process(f"import os\nfd = os.open({str(path)!r}, os.O_RDONLY)\nos.read(fd, 70_000)", *before):
        assert read_position(str(path)) == 70_000
        assert read_position(str(path.with_name("other"))) == 0
    assert read_position(str(path)) == 0


def test_how_far_this_process_has_read(path: Path) -> None:
    with open(path, "rb", buffering=0) as file:
        file.read(123)
        assert read_position(str(path)) == 123


def test_a_process_that_somebody_else_started_is_not_seen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os\nopen('/proc/self/comm', 'r+').write('layer 2/7')"
    with process(f"{code}\nfd = os.open({str(path)!r}, os.O_RDONLY)\nos.read(fd, 5)"):
        assert layer_progress() == (2, 7)
        assert read_position(str(path)) == 5
        monkeypatch.setattr(os, "getpid", lambda: 1 << 30)
        assert layer_progress() is None
        assert read_position(str(path)) == 0


def test_a_system_that_shows_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: t.Any) -> t.Any:
        raise FileNotFoundError

    monkeypatch.setattr(_processes.os, "listdir", refuse)
    assert layer_progress() is None
    assert read_position(str(path)) == 0
